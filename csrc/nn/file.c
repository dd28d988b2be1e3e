/* Writing, opening and loading compiled models; the format and its promises are stated in file.h. */
#define _DEFAULT_SOURCE
#define _POSIX_C_SOURCE 200809L
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Up to here a file is read into memory of our own: no other process can change or truncate it under us, and it can
 * lie on huge pages, which a mapped file cannot on most file systems. Above, the copy would cost more than that is
 * worth. */
enum { READ_UP_TO = 8 << 20, HUGE_PAGE = 2 << 20, HUGE_FROM = 512 << 10 };

_Static_assert(sizeof(tf_file_header) == 128 && sizeof(tf_plain) == 120, "the layout of the file");

static uint64_t round_up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

static uint64_t note_at(uint64_t nodes) { return sizeof(tf_file_header) + nodes * sizeof(tf_plain); }

/* Where the weights begin; the byte after the note is always a zero. */
static uint64_t weights_at(uint64_t nodes, uint64_t note_bytes) {
    return round_up(note_at(nodes) + note_bytes + 1, TF_FILE_ALIGNMENT);
}

uint64_t tf_file_check(const tf_file_header *header, const void *note) {
    tf_file_header plain = *header;
    plain.check = 0;
    return tf_digest(tf_digest(TF_FILE_SEED, &plain, sizeof plain), note, plain.note_bytes);
}

size_t tf_model_file_bytes(const tf_model *model, size_t note_bytes) {
    if (model == NULL || note_bytes > TF_FILE_MAX_NOTE) return 0;
    return (size_t)weights_at((uint64_t)model->count, note_bytes) + model->weight_bytes;
}

tf_status tf_model_write(const tf_model *model, const char *note, size_t note_bytes, void *out, size_t bytes) {
    if (model == NULL || out == NULL || (note == NULL && note_bytes > 0) || note_bytes > TF_FILE_MAX_NOTE)
        return TF_ERR_ARGUMENT;
    const size_t whole = tf_model_file_bytes(model, note_bytes), weights = whole - model->weight_bytes;
    if (whole > TF_FILE_MAX_BYTES) return TF_ERR_SHAPE;
    if (bytes < whole) return TF_ERR_MEMORY;
    char *const file = out;
    tf_file_header header = {
        .magic = TF_FILE_MAGIC,
        .order = TF_FILE_ORDER,
        .version = TF_FILE_VERSION,
        .bytes = whole,
        .model = model->hash,
        .weight_bytes = model->weight_bytes,
        .note_bytes = (uint32_t)note_bytes,
        .nodes = model->count,
        .input = model->input,
        .output = model->output_node,
    };
    const size_t text = (size_t)note_at((uint64_t)model->count);
    memcpy(file + sizeof header, model->nodes, text - sizeof header);
    if (note_bytes > 0) memcpy(file + text, note, note_bytes);
    memset(file + text + note_bytes, 0, weights - text - note_bytes);
    memcpy(file + weights, model->weights, model->weight_bytes);
    header.check = tf_file_check(&header, file + text);
    memcpy(file, &header, sizeof header);
    return TF_OK;
}

static tf_status refuse(tf_fault *fault, tf_status status, const char *rule) {
    if (fault != NULL) *fault = (tf_fault){-1, rule};
    return status;
}
#define REFUSE(rule) return refuse(fault, TF_ERR_FORMAT, rule)

static int all_zero(const char *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (p[i] != 0) return 0;
    return 1;
}

/* Header and sizes against the bytes that are there. On TF_OK everything the header names lies inside them. */
static tf_status check_header(const char *file, size_t bytes, tf_file_header *header, tf_fault *fault) {
    if (bytes == 0) REFUSE("a compiled model must not be empty");
    if (bytes < sizeof *header) REFUSE("a compiled model must begin with a header of 128 bytes: truncated?");
    memcpy(header, file, sizeof *header);
    if (memcmp(header->magic, TF_FILE_MAGIC, sizeof header->magic) != 0)
        REFUSE("a compiled model must begin with its magic bytes: not a .tgp file?");
    if (header->order != TF_FILE_ORDER) REFUSE("a compiled model must have the byte order of this machine");
    if (header->version != TF_FILE_VERSION)
        REFUSE("a compiled model must have the format version of this library: compile it again");
    if (header->bytes != bytes)
        REFUSE("a compiled model must have the size that its header states: truncated or appended to?");
    if (bytes > TF_FILE_MAX_BYTES) REFUSE("a compiled model must have at most 2 GiB");
    if (header->nodes < 1 || header->nodes > TF_MAX_NODES) REFUSE("a compiled model must have 1 to 1024 nodes");
    if (header->note_bytes > TF_FILE_MAX_NOTE) REFUSE("the note of a compiled model must have at most 64 KiB");
    if (!all_zero((const char *)header->reserved, sizeof header->reserved))
        REFUSE("reserved bytes of a compiled model must be zero");
    /* At most 1024 nodes of 120 bytes and 64 KiB: no sum can overflow. */
    const uint64_t text = note_at((uint64_t)header->nodes), text_end = text + header->note_bytes;
    const uint64_t weights = weights_at((uint64_t)header->nodes, header->note_bytes);
    if (weights > bytes || header->weight_bytes != bytes - weights)
        REFUSE("nodes, note and weights of a compiled model must fill the file exactly");
    if (!all_zero(file + text_end, (size_t)(weights - text_end))) REFUSE("padding of a compiled model must be zero");
    if (header->check != tf_file_check(header, file + text))
        REFUSE("header and note of a compiled model must match their hash: damaged?");
    return TF_OK;
}

static tf_status open_nodes(const tf_file_header *header, const tf_plain *nodes, const char *weights,
                            size_t weight_bytes, tf_isa isa, tf_model **out, tf_fault *fault) {
    if (tf_model_digest(nodes, header->nodes, header->input, header->output, weights, weight_bytes) != header->model)
        REFUSE("nodes and weights of a compiled model must match their hash: damaged?");
    const tf_status status = tf_model_from_plain(nodes, header->nodes, header->input, header->output, weights,
                                                 weight_bytes, header->model, isa, out, fault);
    /* What creation calls a wrong shape or number is, in a file, a file that is not what it claims to be. */
    return status == TF_OK || status == TF_ERR_MEMORY || status == TF_ERR_ISA ? status : TF_ERR_FORMAT;
}

tf_status tf_model_open(const void *data, size_t bytes, tf_isa isa, tf_model **out, tf_fault *fault) {
    if (fault != NULL) *fault = (tf_fault){-1, ""};
    if (out != NULL) *out = NULL;
    if (data == NULL || out == NULL) return refuse(fault, TF_ERR_ARGUMENT, "`data` and `out` must not be NULL");
    if ((uintptr_t)data % TF_FILE_ALIGNMENT != 0)
        return refuse(fault, TF_ERR_ARGUMENT, "`data` must lie on a multiple of 64 bytes");
    tf_file_header header;
    tf_status status = check_header(data, bytes, &header, fault);
    if (status != TF_OK) return status;
    if (!tf_isa_available(isa))
        return refuse(fault, TF_ERR_ISA, "`isa` must be one that this processor and this build can run");
    const char *const file = data;
    const char *const weights = file + weights_at((uint64_t)header.nodes, header.note_bytes);
    const size_t weight_bytes = (size_t)header.weight_bytes, node_bytes = (size_t)header.nodes * sizeof(tf_plain);
    /* A copy: what is checked is what is compiled, even when another process writes into a mapped file meanwhile. */
    tf_plain *const nodes = malloc(node_bytes);
    if (nodes == NULL) return refuse(fault, TF_ERR_MEMORY, "there must be memory for the nodes");
    memcpy(nodes, file + sizeof header, node_bytes);
    status = open_nodes(&header, nodes, weights, weight_bytes, isa, out, fault);
    free(nodes);
    if (status != TF_OK) return status;
    tf_model *const model = *out;
    model->note = file + note_at((uint64_t)header.nodes);
    model->note_bytes = header.note_bytes;
    return TF_OK;
}

const char *tf_model_note(const tf_model *model, size_t *bytes) {
    if (bytes != NULL) *bytes = model->note_bytes;
    return model->note != NULL ? model->note : "";
}

static void release_memory(tf_model *model) { free(model->mapping); }
static void release_mapping(tf_model *model) { (void)munmap(model->mapping, model->mapping_bytes); }

static void *allocate(size_t bytes) {
#ifdef MADV_HUGEPAGE
    if (bytes >= HUGE_FROM) {
        void *memory = aligned_alloc(HUGE_PAGE, (size_t)round_up(bytes, HUGE_PAGE));
        /* A wish: without huge pages the model works all the same. */
        if (memory != NULL) (void)madvise(memory, (size_t)round_up(bytes, HUGE_PAGE), MADV_HUGEPAGE);
        return memory;
    }
#endif
    return aligned_alloc(TF_FILE_ALIGNMENT, (size_t)round_up(bytes, TF_FILE_ALIGNMENT));
}

/* The whole file in memory of our own; less when it shrank meanwhile. -1 with errno when it cannot be read. */
static ssize_t read_all(int file, char *memory, size_t bytes) {
    size_t done = 0;
    while (done < bytes) {
        const ssize_t n = read(file, memory + done, bytes - done);
        if (n == 0) break;
        if (n < 0 && errno != EINTR) return -1;
        if (n > 0) done += (size_t)n;
    }
    return (ssize_t)done;
}

/* As tf_model_load, with the file open. */
static tf_status load(int file, tf_isa isa, tf_model **out, tf_fault *fault) {
    struct stat about;
    if (fstat(file, &about) != 0) return refuse(fault, TF_ERR_ARGUMENT, "`path` must name a file that can be read");
    if (!S_ISREG(about.st_mode)) return refuse(fault, TF_ERR_ARGUMENT, "`path` must name a regular file");
    if (about.st_size == 0) REFUSE("a compiled model must not be empty");
    if (about.st_size < 0 || (uint64_t)about.st_size > TF_FILE_MAX_BYTES)
        REFUSE("a compiled model must have at most 2 GiB");
    const size_t bytes = (size_t)about.st_size;
    void *memory;
    const int mapped = bytes > READ_UP_TO;
    if (mapped) {
        memory = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, file, 0);
        if (memory == MAP_FAILED) return refuse(fault, TF_ERR_MEMORY, "the file could not be mapped");
        (void)madvise(memory, bytes, MADV_WILLNEED);
    } else {
        memory = allocate(bytes);
        if (memory == NULL) return refuse(fault, TF_ERR_MEMORY, "there must be memory for the file");
        const ssize_t got = read_all(file, memory, bytes);
        if (got != (ssize_t)bytes) {
            free(memory);
            return got < 0 ? refuse(fault, TF_ERR_ARGUMENT, "`path` must name a file that can be read")
                           : refuse(fault, TF_ERR_FORMAT, "a compiled model must not shrink while it is read");
        }
    }
    const tf_status status = tf_model_open(memory, bytes, isa, out, fault);
    if (status != TF_OK) {
        if (mapped) (void)munmap(memory, bytes);
        else free(memory);
        return status;
    }
    (*out)->mapping = memory;
    (*out)->mapping_bytes = bytes;
    (*out)->release = mapped ? release_mapping : release_memory;
    return TF_OK;
}

tf_status tf_model_load(const char *path, tf_isa isa, tf_model **out, tf_fault *fault) {
    if (fault != NULL) *fault = (tf_fault){-1, ""};
    if (out != NULL) *out = NULL;
    if (path == NULL || out == NULL) return refuse(fault, TF_ERR_ARGUMENT, "`path` and `out` must not be NULL");
    /* O_NONBLOCK: a named pipe that nobody writes to must not stop us here; it does nothing for a regular file. */
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file < 0) return refuse(fault, TF_ERR_ARGUMENT, "`path` must name a file that can be read");
    const tf_status status = load(file, isa, out, fault);
    (void)close(file);
    return status;
}
