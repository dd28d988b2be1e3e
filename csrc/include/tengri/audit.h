/* A log that is only ever appended to, in which every record carries the hash of all before it.
 *
 * File: 64 bytes of header, then records, then zeros up to the reserved end. All numbers are little endian.
 *
 *  header   8 bytes "TFAUDIT1", u32 version (1), u32 header bytes (64), u64 creation time in ns, 32 bytes: the hash that
 *           the chain begins with (zeros, or the last hash of the log that this one continues), 8 bytes 0
 *  record   u32 size (all of it, a multiple of 8), u32 kind, u64 sequence (from 1), u64 time in ns, payload, 32 bytes
 *           SHA-256(hash before || record without its own hash)
 *
 * The file is mapped and shared: once tf_audit_append has returned, the record survives the death of the process; what
 * the loss of power costs depends on tf_audit_sync. The size is written last, so a process that dies in the middle of a
 * record leaves one that does not count; tf_audit_open removes it, and everything behind the last record whose hash is
 * right. Space is reserved on the disk before it is written to, so a full disk is an error and not a signal.
 *
 * The chain shows that something in the middle was changed. That the end was cut off shows only against a hash that was
 * kept elsewhere. */
#ifndef TENGRI_AUDIT_H
#define TENGRI_AUDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TF_AUDIT_HEADER 64u
#define TF_AUDIT_OVERHEAD 56u        /* of a record: size, kind, sequence, time, hash */
#define TF_AUDIT_RECORD_MAX 65536u   /* bytes of one record, all of it */

enum {
    TF_AUDIT_OK = 0,
    TF_AUDIT_IO = -1,
    TF_AUDIT_NOT_A_LOG = -2,
    TF_AUDIT_TOO_LONG = -3,
    TF_AUDIT_MEMORY = -4,
    TF_AUDIT_LOCKED = -5,
    TF_AUDIT_DAMAGED = -6
};

typedef struct tf_audit tf_audit;

/* Opens a log for appending, or makes one. `previous` (32 bytes or NULL) begins the chain of a new one. `*status` gets
 * TF_AUDIT_*; with TF_AUDIT_IO, errno says more. Another process that has the log open is TF_AUDIT_LOCKED. A record that
 * is not the last and does not fit its hash is TF_AUDIT_DAMAGED: nothing is changed then. */
tf_audit *tf_audit_open(const char *path, uint64_t now, const unsigned char *previous, int *status);
/* Cuts the reserved space off, writes to the disk and closes. */
int tf_audit_close(tf_audit *log);

/* Begins a record in place: where its payload of at most `room` bytes goes, or NULL (`*status`). No system call unless
 * the reserved space is used up. */
unsigned char *tf_audit_begin(tf_audit *log, size_t room, int *status);
/* Ends the record that was begun, with `bytes` of payload. */
void tf_audit_commit(tf_audit *log, uint32_t kind, uint64_t ts, size_t bytes);
int tf_audit_append(tf_audit *log, uint32_t kind, uint64_t ts, const void *payload, size_t bytes);
/* Waits until everything is on the disk. May be called by another thread than the one that appends. */
int tf_audit_sync(tf_audit *log);

uint64_t tf_audit_count(const tf_audit *log);
uint64_t tf_audit_bytes(const tf_audit *log);   /* header and records */
uint64_t tf_audit_removed(const tf_audit *log); /* bytes of an unfinished record that opening took away */
const unsigned char *tf_audit_head(const tf_audit *log); /* hash of the last record, 32 bytes */

/* SHA-256 (FIPS 180-4) of a followed by b. */
void tf_sha256(const void *a, size_t a_bytes, const void *b, size_t b_bytes, unsigned char out[32]);

#ifdef __cplusplus
}
#endif

#endif
