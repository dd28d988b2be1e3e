/* The chained log of audit.h. */
#define _GNU_SOURCE
#include <tengri/audit.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { VERSION = 1, HASH = 32, FIXED = 24, STEP = 1 << 22 };
static const char MAGIC[8] = {'T', 'F', 'A', 'U', 'D', 'I', 'T', '1'};

struct tf_audit {
    int file;
    unsigned char *map;
    uint64_t reserved, end, count, removed;
    size_t room; /* payload of the record that was begun */
    unsigned char head[HASH];
};

static void put(unsigned char *p, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) p[i] = (unsigned char)(value >> (8 * i));
}

static uint64_t get(const unsigned char *p, int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) value |= (uint64_t)p[i] << (8 * i);
    return value;
}

/* Reserves the file up to `wanted` bytes, on the disk and in memory. */
static int reserve(tf_audit *log, uint64_t wanted) {
    uint64_t size = (wanted + STEP - 1) / STEP * STEP;
    int failed = posix_fallocate(log->file, 0, (off_t)size);
    if (failed) {
        errno = failed;
        return TF_AUDIT_IO;
    }
    void *map = log->map == NULL ? mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, log->file, 0)
                                 : mremap(log->map, log->reserved, size, MREMAP_MAYMOVE);
    if (map == MAP_FAILED) return TF_AUDIT_IO;
    log->map = map;
    log->reserved = size;
    return TF_AUDIT_OK;
}

/* Size of a whole record at `at` whose hash follows from the one `before`, 0 for anything else. */
static uint64_t sound(const tf_audit *log, uint64_t at, const unsigned char *before) {
    if (at + TF_AUDIT_OVERHEAD > log->reserved) return 0;
    const unsigned char *p = log->map + at;
    uint64_t size = get(p, 4);
    if (size < TF_AUDIT_OVERHEAD || size > TF_AUDIT_RECORD_MAX || size % 8 || at + size > log->reserved) return 0;
    unsigned char hash[HASH];
    tf_sha256(before, HASH, p, size - HASH, hash);
    return memcmp(hash, p + size - HASH, HASH) == 0 ? size : 0;
}

/* Walks the records that are there and takes an unfinished one away. */
static int recover(tf_audit *log, uint64_t size) {
    log->end = TF_AUDIT_HEADER;
    memcpy(log->head, log->map + 24, HASH);
    for (uint64_t found; (found = sound(log, log->end, log->head)) != 0; log->end += found, log->count++) {
        if (get(log->map + log->end + 8, 8) != log->count + 1) return TF_AUDIT_DAMAGED;
        memcpy(log->head, log->map + log->end + found - HASH, HASH);
    }
    uint64_t last = size;
    while (last > log->end && log->map[last - 1] == 0) last--;
    if (last == log->end) return TF_AUDIT_OK;
    /* What is left is the record that was being written, unless it is too much for one, or another record follows (the
     * next in number, or one that fits the hash in front of it): then something was changed. */
    if (last - log->end > TF_AUDIT_RECORD_MAX) return TF_AUDIT_DAMAGED;
    uint64_t next = log->end + get(log->map + log->end, 4);
    if (next % 8 == 0 && next + 16 <= last && get(log->map + next + 8, 8) == log->count + 2) return TF_AUDIT_DAMAGED;
    for (uint64_t at = log->end + TF_AUDIT_OVERHEAD; at < last; at += 8)
        if (sound(log, at, log->map + at - HASH)) return TF_AUDIT_DAMAGED;
    log->removed = last - log->end;
    memset(log->map + log->end, 0, log->removed);
    return TF_AUDIT_OK;
}

static int begin_file(tf_audit *log, uint64_t now, const unsigned char *previous) {
    int status = reserve(log, TF_AUDIT_HEADER);
    if (status) return status;
    unsigned char *p = log->map;
    put(p + 8, VERSION, 4);
    put(p + 12, TF_AUDIT_HEADER, 4);
    put(p + 16, now, 8);
    if (previous != NULL) memcpy(p + 24, previous, HASH);
    memcpy(p, MAGIC, sizeof MAGIC);
    memcpy(log->head, p + 24, HASH);
    log->end = TF_AUDIT_HEADER;
    return fdatasync(log->file) ? TF_AUDIT_IO : TF_AUDIT_OK;
}

static int open_file(tf_audit *log, const char *path, uint64_t now, const unsigned char *previous) {
    log->file = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (log->file < 0) return TF_AUDIT_IO;
    if (flock(log->file, LOCK_EX | LOCK_NB)) return errno == EWOULDBLOCK ? TF_AUDIT_LOCKED : TF_AUDIT_IO;
    struct stat about;
    if (fstat(log->file, &about)) return TF_AUDIT_IO;
    if (!S_ISREG(about.st_mode)) return TF_AUDIT_NOT_A_LOG;
    uint64_t size = (uint64_t)about.st_size;
    if (size == 0) return begin_file(log, now, previous);
    unsigned char start[TF_AUDIT_HEADER];
    ssize_t got = pread(log->file, start, sizeof start, 0);
    if (got < 0) return TF_AUDIT_IO;
    if ((size_t)got < sizeof start) return TF_AUDIT_NOT_A_LOG;
    static const unsigned char nothing[TF_AUDIT_HEADER];
    /* A process that died before its header was written left zeros. */
    if (memcmp(start, nothing, sizeof start) == 0 && size == STEP) return begin_file(log, now, previous);
    if (memcmp(start, MAGIC, sizeof MAGIC) || get(start + 8, 4) != VERSION || get(start + 12, 4) != TF_AUDIT_HEADER)
        return TF_AUDIT_NOT_A_LOG;
    int status = reserve(log, size);
    if (status == TF_AUDIT_OK) status = recover(log, size);
    /* A log that is refused keeps its length too. */
    if (status != TF_AUDIT_OK && ftruncate(log->file, (off_t)size)) return TF_AUDIT_IO;
    return status;
}

tf_audit *tf_audit_open(const char *path, uint64_t now, const unsigned char *previous, int *status) {
    tf_audit *log = calloc(1, sizeof *log);
    if (log == NULL) {
        *status = TF_AUDIT_MEMORY;
        return NULL;
    }
    log->file = -1;
    *status = open_file(log, path, now, previous);
    if (*status == TF_AUDIT_OK) return log;
    int reason = errno;
    if (log->map != NULL) munmap(log->map, log->reserved);
    if (log->file >= 0) close(log->file);
    free(log);
    errno = reason;
    return NULL;
}

unsigned char *tf_audit_begin(tf_audit *log, size_t room, int *status) {
    uint64_t size = (TF_AUDIT_OVERHEAD + (uint64_t)room + 7) / 8 * 8;
    *status = size > TF_AUDIT_RECORD_MAX ? TF_AUDIT_TOO_LONG : TF_AUDIT_OK;
    /* A size of zero must follow the last record, so that it is seen to be the last. */
    if (*status == TF_AUDIT_OK && log->end + size + 8 > log->reserved) *status = reserve(log, log->end + size + 8);
    if (*status != TF_AUDIT_OK) return NULL;
    log->room = room;
    return log->map + log->end + FIXED;
}

void tf_audit_commit(tf_audit *log, uint32_t kind, uint64_t ts, size_t bytes) {
    if (bytes > log->room) bytes = log->room;
    unsigned char *p = log->map + log->end;
    uint64_t body = (FIXED + (uint64_t)bytes + 7) / 8 * 8;
    memset(p + FIXED + bytes, 0, body - FIXED - bytes);
    unsigned char head[8];
    put(head, body + HASH, 4);
    put(head + 4, kind, 4);
    put(p + 8, log->count + 1, 8);
    put(p + 16, ts, 8);
    /* Hashed as it will be, while its size still says that nothing is there. */
    unsigned char start[HASH + 8];
    memcpy(start, log->head, HASH);
    memcpy(start + HASH, head, 8);
    tf_sha256(start, sizeof start, p + 8, body - 8, log->head);
    memcpy(p + body, log->head, HASH);
    uint64_t word;
    memcpy(&word, head, 8);
    __atomic_store_n((uint64_t *)(void *)p, word, __ATOMIC_RELEASE);
    log->end += body + HASH;
    log->count++;
}

int tf_audit_append(tf_audit *log, uint32_t kind, uint64_t ts, const void *payload, size_t bytes) {
    int status;
    unsigned char *p = tf_audit_begin(log, bytes, &status);
    if (p == NULL) return status;
    if (bytes > 0) memcpy(p, payload, bytes);
    tf_audit_commit(log, kind, ts, bytes);
    return TF_AUDIT_OK;
}

int tf_audit_sync(tf_audit *log) { return fdatasync(log->file) ? TF_AUDIT_IO : TF_AUDIT_OK; }

int tf_audit_close(tf_audit *log) {
    int status = TF_AUDIT_OK;
    munmap(log->map, log->reserved);
    if (ftruncate(log->file, (off_t)log->end) || fsync(log->file)) status = TF_AUDIT_IO;
    if (close(log->file)) status = TF_AUDIT_IO;
    free(log);
    return status;
}

uint64_t tf_audit_count(const tf_audit *log) { return log->count; }
uint64_t tf_audit_bytes(const tf_audit *log) { return log->end; }
uint64_t tf_audit_removed(const tf_audit *log) { return log->removed; }
const unsigned char *tf_audit_head(const tf_audit *log) { return log->head; }
