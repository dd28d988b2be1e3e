/* Models: created from a caller's arrays or from packed weights, and what can be asked of them. */
#include "check.h"
#include "compile.h"

#include <stdlib.h>

static tf_status refuse(tf_status status, tf_fault *fault, const char *rule) {
    if (fault != NULL) *fault = (tf_fault){-1, rule};
    return status;
}

tf_status tf_model_create(const tf_network *network, tf_isa isa, tf_model **out, tf_fault *fault) {
    if (fault != NULL) *fault = (tf_fault){-1, ""};
    if (out == NULL) return refuse(TF_ERR_ARGUMENT, fault, "there must be a place for the model");
    *out = NULL;
    if (network == NULL || network->nodes == NULL) return refuse(TF_ERR_ARGUMENT, fault, "there must be nodes");
    if (network->count < 1 || network->count > TF_MAX_NODES)
        return refuse(TF_ERR_ARGUMENT, fault, "a network has 1 to 1,024 nodes");
    if (!tf_isa_available(isa)) return refuse(TF_ERR_ISA, fault, "this machine cannot run the instruction set");
    const int32_t count = network->count;
    tf_plain *plain = calloc((size_t)count, sizeof *plain);
    if (plain == NULL) return refuse(TF_ERR_MEMORY, fault, "out of memory");
    for (int32_t i = 0; i < count; i++) tf_plain_from_desc(&network->nodes[i], &plain[i]);
    tf_status status = tf_plain_check(plain, count, network->input, network->output, fault);
    if (status == TF_OK) status = tf_weights_check(network, plain, fault);
    if (status == TF_OK)
        status = tf_compile(plain, count, network->input, network->output, network->nodes, NULL, 0, isa, out, fault);
    if (status == TF_OK)
        (*out)->hash = tf_model_digest(plain, count, network->input, network->output, (*out)->weights,
                                       (*out)->weight_bytes);
    free(plain);
    return status;
}

tf_status tf_model_from_plain(const tf_plain *nodes, int32_t count, int32_t input, int32_t output, const void *weights,
                              size_t weight_bytes, uint64_t hash, tf_isa isa, tf_model **out, tf_fault *fault) {
    *out = NULL;
    if (!tf_isa_available(isa)) return refuse(TF_ERR_ISA, fault, "this machine cannot run the instruction set");
    if ((uintptr_t)weights % TF_LINE != 0) return refuse(TF_ERR_ARGUMENT, fault, "weights must be aligned to 64 bytes");
    tf_status status = tf_plain_check(nodes, count, input, output, fault);
    if (status == TF_OK)
        status = tf_compile(nodes, count, input, output, NULL, weights, weight_bytes, isa, out, fault);
    if (status == TF_OK) (*out)->hash = hash;
    return status;
}

void tf_model_free(tf_model *model) {
    if (model == NULL) return;
    if (model->release != NULL) model->release(model);
    free(model);
}

tf_isa tf_model_isa(const tf_model *model) { return model->isa; }
uint64_t tf_model_hash(const tf_model *model) { return model->hash; }
int32_t tf_model_input_size(const tf_model *model) { return model->input; }
int32_t tf_model_output_size(const tf_model *model) { return model->output; }
int32_t tf_model_period(const tf_model *model) { return model->period; }
int32_t tf_model_max_steps(const tf_model *model) { return model->max_steps; }
size_t tf_model_bytes(const tf_model *model) { return model->plan_bytes + model->weight_bytes; }
size_t tf_model_session_bytes(const tf_model *model) { return model->session_bytes; }

void tf_model_traffic(const tf_model *model, int32_t node, size_t *finish_bytes, size_t *prepare_bytes) {
    uint64_t sum[2] = {0, 0};
    for (int32_t i = 0; i < model->count; i++) {
        if (node >= 0 && node != i) continue;
        sum[0] += model->traffic[2 * i];
        sum[1] += model->traffic[2 * i + 1];
    }
    if (finish_bytes != NULL) *finish_bytes = (size_t)sum[0];
    if (prepare_bytes != NULL) *prepare_bytes = (size_t)sum[1];
}
