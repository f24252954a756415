/* Models and inputs of the MM-DiT tests: the configurations of golden/make_mmdit.py, with weights and inputs
 * from the same hash of name and index. */
#ifndef MBL_TESTS_MMDIT_CASE_H
#define MBL_TESTS_MMDIT_CASE_H

#include "support.h"

#include "base/mem.h"
#include "mmdit_new.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define assert_ok(expr) assert_string_equal(mbl_status_name(expr), "OK")

typedef struct {
    const char *name;
    mbl_mmdit_config_t config;
    size_t height, width, tokens;
} mmdit_case_t;

#define CASE_BASE                                                                                            \
    .patch_size = 2, .in_channels = 3, .attention_head_dim = 8, .num_attention_heads = 4,                    \
    .joint_attention_dim = 24, .caption_projection_dim = 32, .pooled_projection_dim = 20
static const mmdit_case_t mmdit_cases[] = {
    {"dual",
     {CASE_BASE, .out_channels = 3, .sample_size = 8, .num_layers = 3, .pos_embed_max_size = 6,
      .dual_attention = {true, true}, .qk_norm = true},
     8,
     8,
     5},
    {"plain",
     {CASE_BASE, .out_channels = 3, .sample_size = 8, .num_layers = 2, .pos_embed_max_size = 4},
     8,
     8,
     7},
    {"crop",
     {CASE_BASE, .out_channels = 5, .sample_size = 16, .num_layers = 2, .pos_embed_max_size = 12,
      .dual_attention = {false, true}, .qk_norm = true},
     6,
     10,
     4},
};
enum { CASES = sizeof mmdit_cases / sizeof *mmdit_cases, SAMPLES = 3, SETS = 3 };

/* Value i of `name` in [-1, 1): as hashed() in make_mmdit.py. */
static inline uint32_t hash_name(const char *name) {
    uint32_t seed = 2166136261u;
    for (; *name; name++)
        seed = (seed ^ (unsigned char)*name) * 16777619u;
    return seed;
}
static inline double hashed(uint32_t seed, size_t i) {
    uint32_t x = (uint32_t)i * 0x9E3779B1u + seed;
    x = (x ^ x >> 16) * 0x7FEB352Du;
    x = (x ^ x >> 15) * 0x846CA68Bu;
    x ^= x >> 16;
    return (double)(x >> 8) / (1 << 23) - 1;
}

static inline void put_value(void *data, mbl_dtype_t dtype, size_t i, double value) {
    if (dtype == MBL_F64)
        ((double *)data)[i] = (float)value;
    else if (dtype == MBL_F32)
        ((float *)data)[i] = (float)value;
    else
        ((uint16_t *)data)[i] = mbl_bf16_from_f32((float)value);
}
static inline double get_value(const void *data, mbl_dtype_t dtype, size_t i) {
    if (dtype == MBL_F64)
        return ((const double *)data)[i];
    return dtype == MBL_F32 ? ((const float *)data)[i] : mbl_bf16_to_f32(((const uint16_t *)data)[i]);
}

/* What a tensor of any backend holds, on the host; free with mbl_free, or push it back, which frees it. */
static inline void *host_of(mbl_ops_t *ops, const mbl_tensor_t *t) {
    void *host = mbl_calloc(mbl_tensor_count(t), mbl_dtype_size(t->dtype));
    assert_non_null(host);
    assert_ok(mbl_tensor_download(ops, t, host));
    return host;
}
static inline void push_host(mbl_ops_t *ops, const mbl_tensor_t *t, void *host) {
    assert_ok(mbl_tensor_upload(ops, t, host));
    mbl_free(host);
}

static inline double weight_value(const mbl_param_t *param, size_t i) {
    double h = hashed(hash_name(param->name), i);
    if (strstr(param->name, "norm_") && !strstr(param->name, "linear"))
        return 1 + 0.4 * h;
    if (param->ndim == 1)
        return 0.2 * h;
    return h * sqrt(3.0 / (double)(param->count / param->dim[0]));
}

/* A tensor filled with scale * hash + shift. */
static inline mbl_tensor_t hashed_tensor(mbl_ops_t *ops, mbl_dtype_t dtype, const char *name, double scale,
                                         double shift, int ndim, const size_t *dim) {
    mbl_tensor_t t;
    assert_ok(mbl_tensor_new(ops, dtype, &t, ndim, dim[0], ndim > 1 ? dim[1] : 0, ndim > 2 ? dim[2] : 0,
                             ndim > 3 ? dim[3] : 0));
    uint32_t seed = hash_name(name);
    void *host = host_of(ops, &t);
    for (size_t i = 0; i < mbl_tensor_count(&t); i++)
        put_value(host, dtype, i, scale * hashed(seed, i) + shift);
    push_host(ops, &t, host);
    return t;
}

static inline mbl_dit_t *case_model(mbl_ops_t *ops, mbl_dtype_t dtype, const mmdit_case_t *c) {
    mbl_dit_t *model;
    mbl_tensor_t master;
    assert_ok(new_model(ops, dtype, &c->config, 7, &model));
    size_t n = mbl_dit_weights(model)->dim[0];
    assert_ok(mbl_tensor_new(ops, mbl_dtype_stat(dtype), &master, 1, n));
    assert_ok(mbl_dit_get_weights(model, &master));
    void *host = host_of(ops, &master);
    for (size_t p = 0; p < mbl_dit_param_count(model); p++) {
        const mbl_param_t *param = mbl_dit_param(model, p);
        for (size_t i = 0; param->trained && i < param->count; i++)
            put_value(host, master.dtype, param->offset + i, weight_value(param, i));
    }
    push_host(ops, &master, host);
    assert_ok(mbl_dit_set_weights(model, &master));
    mbl_tensor_free(ops, &master);
    return model;
}

/* Everything one pass works on. */
typedef struct {
    mbl_ops_t *ops;
    mbl_dtype_t dtype;
    size_t n;
    mbl_tensor_t x, t, v, dv;
    mbl_conditions_t conditions;
    mbl_dit_input_t input;
} mmdit_io_t;

static inline void case_io(mbl_ops_t *ops, mbl_dtype_t dtype, const mmdit_case_t *c, size_t n,
                           mmdit_io_t *io) {
    mbl_dtype_t st = mbl_dtype_stat(dtype);
    const mbl_mmdit_config_t *f = &c->config;
    *io = (mmdit_io_t){.ops = ops, .dtype = dtype, .n = n};
    io->x = hashed_tensor(ops, st, "x", 1, 0, 4, (size_t[]){n, f->in_channels, c->height, c->width});
    io->t = hashed_tensor(ops, st, "t", 0.5, 0.5, 1, &n);
    io->conditions.n = n;
    io->conditions.context =
        hashed_tensor(ops, dtype, "context", 1, 0, 3, (size_t[]){n, c->tokens, f->joint_attention_dim});
    io->conditions.pooled =
        hashed_tensor(ops, dtype, "pooled", 1, 0, 2, (size_t[]){n, f->pooled_projection_dim});
    io->dv = hashed_tensor(ops, st, "dv", 1, 0, 4, (size_t[]){n, f->out_channels, c->height, c->width});
    assert_ok(mbl_tensor_new(ops, st, &io->v, 4, n, f->out_channels, c->height, c->width));
}
/* Points input at the tensors where they are now. */
static inline const mbl_dit_input_t *io_input(mmdit_io_t *io) {
    io->input = (mbl_dit_input_t){.x = &io->x, .t = &io->t, .conditions = &io->conditions};
    return &io->input;
}
static inline void io_free(mmdit_io_t *io) {
    mbl_conditions_free(io->ops, &io->conditions);
    mbl_tensor_t *all[] = {&io->x, &io->t, &io->v, &io->dv};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mbl_tensor_free(io->ops, all[i]);
}

/* An adapter whose A and B are 0.5 times the hash of their names. */
static inline void case_adapter(const mbl_dit_t *model, mbl_ops_t *ops, mbl_dtype_t dtype,
                                const mbl_lora_t *lora, mbl_adapter_t *out) {
    mbl_tensor_t values;
    assert_ok(mbl_tensor_new(ops, mbl_dtype_stat(dtype), &values, 1, mbl_lora_size(lora)));
    void *host = host_of(ops, &values);
    for (size_t p = 0; p < mbl_lora_param_count(lora); p++) {
        const mbl_param_t *param = mbl_lora_param(lora, p);
        uint32_t seed = hash_name(param->name);
        for (size_t i = 0; i < param->count; i++)
            put_value(host, values.dtype, param->offset + i, 0.5 * hashed(seed, i));
    }
    push_host(ops, &values, host);
    assert_ok(mbl_adapter_new(model, lora, out));
    assert_ok(mbl_adapter_set(model, out, &values));
    mbl_tensor_free(ops, &values);
}

static inline double relative_error(const void *a, mbl_dtype_t dtype, const double *b, size_t n) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        double e = get_value(a, dtype, i) - b[i];
        difference += e * e;
        norm += b[i] * b[i];
    }
    return sqrt(difference / (norm > 0 ? norm : 1));
}

static inline double loss_of(const mmdit_io_t *io) {
    void *v = host_of(io->ops, &io->v), *dv = host_of(io->ops, &io->dv);
    double sum = 0;
    for (size_t i = 0; i < mbl_tensor_count(&io->v); i++)
        sum += get_value(v, io->v.dtype, i) * get_value(dv, io->dv.dtype, i);
    mbl_free(v);
    mbl_free(dv);
    return sum;
}

#endif
