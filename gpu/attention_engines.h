/* Engines of attention on the cuda backend: a table, tried in its order. An engine to come stands in front of
 * those that take what it cannot. */
#ifndef MBL_GPU_ATTENTION_ENGINES_H
#define MBL_GPU_ATTENTION_ENGINES_H

#include "gpu/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    const char *name;
    /* Why a call is not for this engine, in words that follow its name; NULL: it takes it. Depends on types,
     * head size and scale alone, never on how many samples or tokens there are: a sample's result may not
     * depend on its batch. A backward pass has no bias (NULL). */
    const char *(*why_not)(const mbl_tensor_t *q, const mbl_tensor_t *bias, double scale);
    mbl_status_t (*forward)(mbl_ops_t *ops, const mbl_attention_args_t *args);
    mbl_status_t (*backward)(mbl_ops_t *ops, const mbl_attention_bwd_args_t *args);
} mbl_cuda_attention_engine_t;

/* The engine of a call; the last takes all. */
const mbl_cuda_attention_engine_t *mbl_cuda_attention_engine(const mbl_tensor_t *q, const mbl_tensor_t *bias,
                                                             double scale);
/* Engine i in the order they are tried; NULL behind the last. */
const mbl_cuda_attention_engine_t *mbl_cuda_attention_engine_at(size_t i);

/* mma: bf16 on tensor cores, heads of up to 128 (attention.cu, attention_bwd.cu). */
mbl_status_t mbl_cuda_attention_mma(mbl_ops_t *ops, const mbl_attention_args_t *args);
mbl_status_t mbl_cuda_attention_bwd_mma(mbl_ops_t *ops, const mbl_attention_bwd_args_t *args);
/* plain: any type, head size and scale, on the ordinary units (attention_plain.cu). */
mbl_status_t mbl_cuda_attention_plain(mbl_ops_t *ops, const mbl_attention_args_t *args);
mbl_status_t mbl_cuda_attention_bwd_plain(mbl_ops_t *ops, const mbl_attention_bwd_args_t *args);

#ifdef __cplusplus
}
#endif

#endif
