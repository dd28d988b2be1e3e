/* How a program of plan.h is cut into stages for several threads, and the share of one thread in a stage.
 *
 * A stage is either alone (a run of instructions for the caller) or shared (one GEMV or LSTM whose weights have at
 * least TF_SHARE_BYTES). The rows of a shared instruction are cut between panels of its weights, so each thread calls
 * the ordinary kernel on whole panels and the bits do not depend on the number of threads; each keeps its weights in
 * its own second-level cache, because the cut is always the same. What the instruction does to its row afterwards
 * (code->tail) stays inside the cut.
 *
 * Order is kept by data flow. A stage says whether it touches what a shared stage since the last meeting wrote, or
 * writes what such a stage reads; only then do all threads meet before it. An instruction whose operands are not plain
 * rows (see `touches`) counts as touching everything. Instructions under a TF_DO_SKIP are never shared. */
#ifndef TF_NN_TEAM_H
#define TF_NN_TEAM_H

#include "plan.h"

enum { TF_MOST_STAGES = 256, TF_SHARE_BYTES = 96 << 10 };

typedef struct tf_stage {
    int32_t first, count; /* instructions */
    int32_t caller;       /* shared: how many stages the caller must have behind it (those run alone) */
    int32_t others;       /* meet: how many stages everybody must have behind him */
    int32_t shared, meet;
} tf_stage;

typedef struct tf_schedule {
    int32_t count, first, last; /* stages; the first and the last shared one, -1: none */
    size_t bytes;               /* of the weights of shared stages */
    tf_stage stage[TF_MOST_STAGES];
} tf_schedule;

void tf_schedule_make(const tf_model *model, tf_program program, tf_schedule *schedule);

/* Share `part` of `parts` of a shared instruction. *nan |= 1 as in tf_kernels.quantize_i8. */
void tf_share_run(const tf_model *model, tf_session *session, const tf_code *code, int32_t part, int32_t parts,
                  int32_t *nan);

#endif
