/* Which engine a call of attention takes. */
#include "gpu/attention_engines.h"
#include "gpu/kernels.h"

static const char *not_for_mma(const mbl_tensor_t *q, const mbl_tensor_t *bias, double scale) {
    if (q->dtype != MBL_BF16)
        return "multiplies bf16 alone";
    if (q->dim[3] > 128)
        return "has heads of up to 128 numbers";
    if (bias)
        return "knows no bias of scores";
    return scale > 0 ? NULL : "takes the largest score for the largest exponent: the scale must be above 0";
}

static const char *takes_all(const mbl_tensor_t *q, const mbl_tensor_t *bias, double scale) {
    (void)q, (void)bias, (void)scale;
    return NULL;
}

static const mbl_cuda_attention_engine_t engines[] = {
    {"mma", not_for_mma, mbl_cuda_attention_mma, mbl_cuda_attention_bwd_mma},
    {"plain", takes_all, mbl_cuda_attention_plain, mbl_cuda_attention_bwd_plain},
};
enum { ENGINES = sizeof engines / sizeof engines[0] };

const mbl_cuda_attention_engine_t *mbl_cuda_attention_engine_at(size_t i) {
    return i < ENGINES ? &engines[i] : NULL;
}

const mbl_cuda_attention_engine_t *mbl_cuda_attention_engine(const mbl_tensor_t *q, const mbl_tensor_t *bias,
                                                             double scale) {
    size_t i = 0;
    while (i + 1 < ENGINES && engines[i].why_not(q, bias, scale))
        i++;
    return &engines[i];
}

mbl_status_t mbl_cuda_attention(mbl_ops_t *ops, const mbl_attention_args_t *args) {
    return mbl_cuda_attention_engine(args->q, args->bias, args->scale)->forward(ops, args);
}

mbl_status_t mbl_cuda_attention_bwd(mbl_ops_t *ops, const mbl_attention_bwd_args_t *args) {
    return mbl_cuda_attention_engine(args->q, NULL, args->scale)->backward(ops, args);
}
