/* The audit log: published hashes, the chain recomputed here, and files cut at every byte of their last record. */
#define _GNU_SOURCE
#include "check.h"

#include <tengri/audit.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[] = "test_audit_XXXXXX"; /* in the working directory */

static void hex(const unsigned char *bytes, char *out) {
    for (int i = 0; i < 32; i++) sprintf(out + 2 * i, "%02x", bytes[i]);
}

/* FIPS 180-4 examples, and a million times "a". */
static void published_hashes(void) {
    unsigned char out[32];
    char text[65];
    tf_sha256("abc", 3, "", 0, out);
    hex(out, text);
    CHECK(strcmp(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad") == 0);
    const char *longer = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    for (size_t cut = 0; cut <= 56; cut++) {
        tf_sha256(longer, cut, longer + cut, 56 - cut, out);
        hex(out, text);
        CHECK(strcmp(text, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1") == 0);
    }
    char *many = malloc(1000000);
    memset(many, 'a', 1000000);
    tf_sha256(many, 333, many, 1000000 - 333, out);
    hex(out, text);
    CHECK(strcmp(text, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0") == 0);
    free(many);
}

static size_t slurp(unsigned char *into, size_t room) {
    int file = open(path, O_RDONLY);
    ssize_t got = file < 0 ? -1 : read(file, into, room);
    CHECK(got >= 0);
    if (file >= 0) close(file);
    return got < 0 ? 0 : (size_t)got;
}

static void spill(const unsigned char *from, size_t bytes) {
    int file = open(path, O_WRONLY | O_TRUNC);
    CHECK(file >= 0 && write(file, from, bytes) == (ssize_t)bytes);
    if (file >= 0) close(file);
}

static void chain_and_cuts(void) {
    static unsigned char data[8192], again[8192];
    int status = 0;
    unlink(path);
    tf_audit *log = tf_audit_open(path, 42, NULL, &status);
    CHECK(log != NULL && status == TF_AUDIT_OK);
    if (log == NULL) return;
    for (unsigned i = 0; i < 5; i++) {
        char text[64];
        memset(text, 'a' + (int)i, sizeof text);
        CHECK(tf_audit_append(log, i, 100 + i, text, 10 * i) == TF_AUDIT_OK);
    }
    CHECK(tf_audit_append(log, 1, 1, data, TF_AUDIT_RECORD_MAX) == TF_AUDIT_TOO_LONG);
    CHECK(tf_audit_count(log) == 5);
    CHECK(tf_audit_open(path, 42, NULL, &status) == NULL && status == TF_AUDIT_LOCKED);
    uint64_t bytes = tf_audit_bytes(log);
    CHECK(tf_audit_close(log) == TF_AUDIT_OK);
    size_t size = slurp(data, sizeof data);
    CHECK(size == bytes);
    size_t at = TF_AUDIT_HEADER, last = 0;
    unsigned char chain[32] = {0};
    for (unsigned i = 0; i < 5 && at < size; i++) {
        size_t record = data[at] | (size_t)data[at + 1] << 8;
        tf_sha256(chain, 32, data + at, record - 32, chain);
        CHECK(memcmp(chain, data + at + record - 32, 32) == 0);
        last = at;
        at += record;
    }
    CHECK(at == size);
    for (size_t cut = last; cut < size; cut++) {
        spill(data, cut);
        log = tf_audit_open(path, 1, NULL, &status);
        CHECK(log != NULL && tf_audit_count(log) == 4);
        if (log == NULL) continue;
        CHECK(tf_audit_append(log, 7, 7, "x", 1) == TF_AUDIT_OK);
        CHECK(tf_audit_close(log) == TF_AUDIT_OK);
        CHECK(slurp(again, sizeof again) == last + 64);
    }
    /* A change in any earlier record is refused, and the file stays as it was. */
    for (size_t changed = TF_AUDIT_HEADER; changed < last; changed++) {
        memcpy(again, data, size);
        again[changed] ^= 0x10;
        spill(again, size);
        CHECK(tf_audit_open(path, 1, NULL, &status) == NULL);
        CHECK(status == TF_AUDIT_DAMAGED);
        CHECK(slurp(again, sizeof again) == size);
    }
}

int main(void) {
    int file = mkstemp(path);
    CHECK(file >= 0);
    if (file >= 0) close(file);
    published_hashes();
    chain_and_cuts();
    unlink(path);
    return done("test_audit");
}
