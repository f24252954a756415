/* A tiny pipeline with random weights and two different adapters, in a temporary folder: for the tests of the
 * stages that run the model. */
#ifndef MBL_TESTS_TINY_PIPELINE_H
#define MBL_TESTS_TINY_PIPELINE_H

#include "mmdit_case.h"

#include "base/rng.h"
#include "data/signs/signs.h"
#include "model/pipeline.h"

enum { TINY_TOKENS = 12, TINY_HIDDEN = 24, TINY_POOLED = 20 };

typedef struct {
    mbl_ops_t *ops;
    mbl_dtype_t dtype, stat;
    char folder[256];
    mbl_pipeline_t *pipeline;
    mbl_dit_t *model;
    mbl_lora_t *lora;
    size_t size; /* of an adapter */
    mbl_adapter_t current, old;
    mbl_conditions_t conditions;
} tiny_t;

static inline double tiny_normal(uint32_t stream, size_t i) {
    mbl_rng_t rng = mbl_rng(23, MBL_RNG_STUDY, stream, i);
    float pair[2];
    mbl_rng_normal2(&rng, pair);
    return (double)pair[0];
}

static inline void tiny_make_folder(tiny_t *t) {
    const char *words[256];
    size_t n = 0;
    while ((words[n] = mbl_signs_word(n)))
        n++;
    temporary_folder(t->folder);
    assert_ok(mbl_pipeline_create(t->folder, words, n, TINY_TOKENS, TINY_HIDDEN, 1, TINY_POOLED, 5));
}

/* Sets an adapter to scale * normal numbers of a stream. */
static inline void tiny_set_adapter(tiny_t *t, mbl_adapter_t *adapter, uint32_t stream, double scale) {
    mbl_tensor_t values;
    assert_ok(mbl_tensor_new(t->ops, t->stat, &values, 1, t->size));
    void *host = host_of(t->ops, &values);
    for (size_t i = 0; i < t->size; i++)
        put_value(host, t->stat, i, scale * tiny_normal(stream, i));
    push_host(t->ops, &values, host);
    assert_ok(mbl_adapter_set(t->model, adapter, &values));
    mbl_tensor_free(t->ops, &values);
}

/* `heads` heads of 8, images of image x image in patches, adapters of a rank. The same numbers for
 * every dtype and thread count. */
static inline void tiny_open(tiny_t *t, mbl_dtype_t dtype, int threads, size_t heads, size_t image,
                             size_t patch, size_t rank, const char *const *prompts, size_t n_prompts) {
    mbl_mmdit_config_t config = {.sample_size = image,
                                 .patch_size = patch,
                                 .in_channels = 3,
                                 .out_channels = 3,
                                 .num_layers = 2,
                                 .attention_head_dim = 8,
                                 .num_attention_heads = heads,
                                 .joint_attention_dim = TINY_HIDDEN,
                                 .caption_projection_dim = 8 * heads,
                                 .pooled_projection_dim = TINY_POOLED,
                                 .pos_embed_max_size = image / patch,
                                 .qk_norm = true};
    mbl_lora_config_t lora = {.rank = rank, .alpha = 2 * (double)rank};
    mbl_tensor_t master;
    memset(t, 0, sizeof *t);
    t->dtype = dtype;
    t->stat = mbl_dtype_stat(dtype);
    assert_ok(mbl_ops_open(test_backend(), threads, &t->ops));
    tiny_make_folder(t);
    assert_ok(new_pipeline(t->ops, dtype, t->folder, &config, 7, &t->pipeline));
    t->model = mbl_pipeline_model(t->pipeline);
    assert_ok(mbl_tensor_new(t->ops, t->stat, &master, 1, mbl_dit_weights(t->model)->dim[0]));
    assert_ok(mbl_dit_get_weights(t->model, &master));
    void *host = host_of(t->ops, &master);
    for (size_t p = 0; p < mbl_dit_param_count(t->model); p++) {
        const mbl_param_t *param = mbl_dit_param(t->model, p);
        for (size_t i = 0; param->trained && i < param->count; i++)
            put_value(host, master.dtype, param->offset + i, weight_value(param, i));
    }
    push_host(t->ops, &master, host);
    assert_ok(mbl_dit_set_weights(t->model, &master));
    mbl_tensor_free(t->ops, &master);
    assert_ok(mbl_lora_new(t->model, &lora, &t->lora));
    t->size = mbl_lora_size(t->lora);
    assert_ok(mbl_adapter_new(t->model, t->lora, &t->current));
    assert_ok(mbl_adapter_new(t->model, t->lora, &t->old));
    tiny_set_adapter(t, &t->current, 1, 0.2);
    tiny_set_adapter(t, &t->old, 2, 0.2);
    assert_ok(mbl_pipeline_encode(t->pipeline, prompts, n_prompts, &t->conditions));
}

static inline void tiny_close(tiny_t *t) {
    mbl_adapter_free(t->model, &t->current);
    mbl_adapter_free(t->model, &t->old);
    mbl_lora_free(t->lora);
    mbl_conditions_free(t->ops, &t->conditions);
    mbl_pipeline_close(t->pipeline);
    mbl_ops_close(t->ops);
    remove_folder(t->folder);
}

#endif
