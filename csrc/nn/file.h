/* Compiled models (.tgp): one file that is loaded by looking at it, not by working through it.
 *
 *     header      128 bytes, tf_file_header
 *     nodes       tf_plain [nodes]: descriptions without pointers or offsets
 *     note        free text of the caller, then at least one zero byte, zeros to the next 64
 *     weights     as they lie in memory: packed, in execution order, 64-byte aligned, the same on every instruction set
 *
 * All numbers are little endian; `order` reads differently on a machine that is not, and such a file is refused.
 *
 * A loader trusts nothing. Sizes are compared with the size of the file before anything is read at them. `check` is a
 * digest of header and note, `model` one of descriptions and weights, so every byte is covered (padding must be zero):
 * truncated, flipped or appended bytes are refused. The digest is no signature: somebody who wants to can make another
 * file with the right one. Such a forged file can hold another network, and its answers are that network's. It cannot
 * make the engine read or write outside its memory: it holds no offset and no size of state, the descriptions pass the
 * rules of tf_model_create and are compiled anew, the size of the weights must be exactly what they need, integers in
 * them cannot overflow a sum, and a number in them that is not finite is refused. Who needs to know where a file comes
 * from compares its SHA-256 with one that came by another way.
 *
 * Up to 8 MiB a file is read into private memory, on huge pages from 512 KiB; a larger one is mapped read-only. A
 * mapped file is replaced by renaming another over it: one that is truncated in place ends the process (SIGBUS), one
 * that is written into changes the answers.
 *
 * TF_FILE_VERSION is raised whenever tf_plain, the packing or the order of the weights change. There is no conversion:
 * a file is made again from its ONNX model, which takes milliseconds. */
#ifndef TF_NN_FILE_H
#define TF_NN_FILE_H

#include "plan.h"

#define TF_FILE_MAGIC "\x89TGP\r\n\x1a\n" /* damaged by whoever takes it for text */
#define TF_FILE_ORDER UINT32_C(0x01020304)
#define TF_FILE_VERSION 2u
#define TF_FILE_SEED UINT64_C(0x5447500000000001)
enum { TF_FILE_MAX_NOTE = 64 << 10, TF_FILE_ALIGNMENT = 64 };
#define TF_FILE_MAX_BYTES (UINT64_C(1) << 31)

typedef struct tf_file_header {
    char magic[8];
    uint32_t order;
    uint32_t version;
    uint64_t bytes;        /* of the whole file */
    uint64_t model;        /* tf_model_digest */
    uint64_t check;        /* tf_digest of this header, with 0 here, and the note */
    uint64_t weight_bytes; /* they end the file */
    uint32_t note_bytes;
    int32_t nodes;
    int32_t input;         /* width of the input row */
    int32_t output;        /* the node whose row is the answer */
    uint8_t reserved[64];  /* zero */
} tf_file_header;

/* `check` of a header and its note. */
uint64_t tf_file_check(const tf_file_header *header, const void *note);

#endif
