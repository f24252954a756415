/* The CLIP text encoder: opening and the forward pass. */
#include "base/mem.h"
#include "model/text/clip_internal.h"

#include <math.h>
#include <string.h>

struct mbl_clip {
    mbl_ops_t *ops;
    mbl_dtype_t dtype;
    mbl_clip_config_t config;
    mbl_text_param_t *params;
    mbl_text_weights_t *weights;
};

/* ---- opening ---- */

typedef enum { BLANK, WHOLE, LOW_MEMORY } how_t; /* without weights, with them, with a layer's at one time */

/* Older files hold the numbers of the positions as well. */
static mbl_status_t load(mbl_clip_t *clip, const char *folder, how_t how) {
    static const char *const ignored[] = {"text_model.embeddings.position_ids", NULL};
    size_t n = mbl_clip_param_count(&clip->config), total;
    MBL_ALLOC(clip->params, n);
    mbl_clip_layout(&clip->config, clip->params, &total);
    const mbl_text_spec_t spec = {clip->params, n, ignored, "look at its num_hidden_layers"};
    if (how == BLANK)
        return mbl_text_weights_blank(clip->ops, clip->dtype, &spec, &clip->weights);
    return mbl_text_weights_open(clip->ops, clip->dtype, folder, &spec, how == LOW_MEMORY, &clip->weights);
}

static mbl_status_t open_as(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder, how_t how,
                            mbl_clip_t **out) {
    mbl_status_t status;
    char *path = NULL;
    mbl_clip_t *clip;
    MBL_ALLOC(clip, 1);
    clip->ops = ops;
    clip->dtype = dtype;
    if (!(path = mbl_format("%s/config.json", folder))) {
        status = MBL_FAIL(MBL_ERR_MEM, "no memory for a file name");
        goto failed;
    }
    MBL_TRY_GOTO(mbl_clip_config_read(path, &clip->config), failed);
    MBL_TRY_GOTO(load(clip, folder, how), failed);
    *out = clip;
    clip = NULL;
failed:
    mbl_free(path);
    mbl_clip_close(clip);
    return status;
}

mbl_status_t mbl_clip_open(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder, bool low_memory,
                           mbl_clip_t **out) {
    return open_as(ops, dtype, folder, low_memory ? LOW_MEMORY : WHOLE, out);
}

mbl_status_t mbl_clip_blank(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder, mbl_clip_t **out) {
    return open_as(ops, dtype, folder, BLANK, out);
}

void mbl_clip_close(mbl_clip_t *clip) {
    if (!clip)
        return;
    mbl_text_weights_close(clip->weights);
    mbl_free(clip->params);
    mbl_free(clip);
}

const mbl_st_t *mbl_clip_file(const mbl_clip_t *clip) {
    return mbl_text_weights_file(clip->weights);
}

const mbl_clip_config_t *mbl_clip_config(const mbl_clip_t *clip) {
    return &clip->config;
}

/* ---- forward ---- */

/* Working memory of one pass: x, h [N,T,D]; qkv [N,T,3D]; q, k [N,H,T,d]; m [N,T,M]; ids. */
typedef struct {
    mbl_tensor_t x, h, qkv, q, k, m, ids, rows, last, normed;
} clip_work_t;

static void work_free(mbl_ops_t *ops, clip_work_t *w) {
    mbl_tensor_t *all[] = {&w->x, &w->h,   &w->qkv,  &w->q,    &w->k,
                           &w->m, &w->ids, &w->rows, &w->last, &w->normed};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        mbl_tensor_free(ops, all[i]);
}

static mbl_status_t work_new(mbl_clip_t *clip, size_t n, size_t t, clip_work_t *w) {
    mbl_ops_t *ops = clip->ops;
    mbl_dtype_t ct = clip->dtype;
    size_t d = clip->config.hidden_size, heads = clip->config.num_attention_heads;
    MBL_TRY(mbl_tensor_new(ops, ct, &w->x, 3, n, t, d));
    MBL_TRY(mbl_tensor_new(ops, ct, &w->h, 3, n, t, d));
    MBL_TRY(mbl_tensor_new(ops, ct, &w->qkv, 3, n, t, 3 * d));
    MBL_TRY(mbl_tensor_new(ops, ct, &w->q, 4, n, heads, t, d / heads));
    MBL_TRY(mbl_tensor_new(ops, ct, &w->k, 4, n, heads, t, d / heads));
    MBL_TRY(mbl_tensor_new(ops, ct, &w->m, 3, n, t, clip->config.intermediate_size));
    MBL_TRY(mbl_tensor_new(ops, MBL_I32, &w->ids, 2, n, t));
    MBL_TRY(mbl_tensor_new(ops, MBL_I32, &w->rows, 2, n, (size_t)1));
    MBL_TRY(mbl_tensor_new(ops, ct, &w->last, 3, n, (size_t)1, d));
    return mbl_tensor_new(ops, ct, &w->normed, 2, n, d);
}

/* A weight as a tensor; rows 0: as many as it has (3 times that for the joined q, k, v). */
static mbl_tensor_t weight(const mbl_clip_t *clip, size_t index, size_t rows) {
    return mbl_text_weight(clip->weights, index, rows);
}

/* y = act(x W' + b) over tokens; `rows` as above. */
static mbl_status_t linear(mbl_clip_t *clip, const mbl_tensor_t *x, size_t w, size_t b, size_t rows,
                           mbl_act_t act, const mbl_tensor_t *y) {
    mbl_tensor_t matrix = weight(clip, w, rows), bias = weight(clip, b, rows);
    return mbl_text_product(
        clip->ops,
        &(mbl_matmul_args_t){.y = y, .a = x, .b = &matrix, .bias = &bias, .transpose_b = true, .act = act});
}

static mbl_status_t norm(mbl_clip_t *clip, const mbl_tensor_t *x, size_t w, size_t b, const mbl_tensor_t *y) {
    mbl_tensor_t scale = weight(clip, w, 0), shift = weight(clip, b, 0);
    size_t d = clip->config.hidden_size, n = mbl_tensor_count(x) / d;
    mbl_tensor_t in = mbl_tensor_reshape(x, 2, n, d), to = mbl_tensor_reshape(y, 2, n, d);
    return MBL_OP(clip->ops, layer_norm_affine, .y = &to, .x = &in, .weight = &scale, .bias = &shift,
                  .eps = clip->config.layer_norm_eps);
}

static mbl_status_t layer(mbl_clip_t *clip, size_t index, clip_work_t *w) {
    mbl_ops_t *ops = clip->ops;
    size_t base = CLIP_LAYERS + index * CLIP_LAYER_PARAMS, d = clip->config.hidden_size;
    MBL_TRY(mbl_text_weights_need(clip->weights, 1 + index));
    MBL_TRY(norm(clip, &w->x, base + CLIP_LN1_W, base + CLIP_LN1_B, &w->h));
    MBL_TRY(linear(clip, &w->h, base + CLIP_Q_W, base + CLIP_Q_B, 3 * d, MBL_ACT_NONE, &w->qkv));
    mbl_tensor_t v = mbl_tensor_columns(&w->qkv, 2 * d, d);
    MBL_TRY(MBL_OP(ops, qk_norm, .q = &w->q, .k = &w->k, .qkv = &w->qkv));
    MBL_TRY(MBL_OP(ops, attention, .out1 = &w->h, .q = &w->q, .k = &w->k, .v1 = &v,
                   .scale = 1 / sqrt((double)w->q.dim[3]), .causal = true));
    mbl_tensor_t projected = mbl_tensor_reshape(&w->q, 3, w->x.dim[0], w->x.dim[1], d); /* q is free again */
    MBL_TRY(linear(clip, &w->h, base + CLIP_OUT_W, base + CLIP_OUT_B, 0, MBL_ACT_NONE, &projected));
    MBL_TRY(MBL_OP(ops, axpby, .y = &w->x, .x = &projected, .a = 1, .b = 1));
    MBL_TRY(norm(clip, &w->x, base + CLIP_LN2_W, base + CLIP_LN2_B, &w->h));
    MBL_TRY(linear(clip, &w->h, base + CLIP_FC1_W, base + CLIP_FC1_B, 0, clip->config.act, &w->m));
    MBL_TRY(linear(clip, &w->m, base + CLIP_FC2_W, base + CLIP_FC2_B, 0, MBL_ACT_NONE, &w->h));
    return MBL_OP(ops, axpby, .y = &w->x, .x = &w->h, .a = 1, .b = 1);
}

/* The final-norm state at the end tokens, projected. */
static mbl_status_t pool(mbl_clip_t *clip, clip_work_t *w, const mbl_tensor_t *pooled) {
    size_t tail = CLIP_LAYERS + clip->config.num_hidden_layers * CLIP_LAYER_PARAMS,
           d = clip->config.hidden_size;
    mbl_tensor_t table = mbl_tensor_reshape(&w->x, 2, w->x.dim[0] * w->x.dim[1], d);
    mbl_tensor_t projection = weight(clip, tail + CLIP_PROJECTION, 0);
    MBL_TRY(mbl_text_weights_need(clip->weights, 1 + clip->config.num_hidden_layers));
    MBL_TRY(MBL_OP(clip->ops, embed, .y = &w->last, .table = &table, .ids = &w->rows));
    MBL_TRY(norm(clip, &w->last, tail + CLIP_FINAL_W, tail + CLIP_FINAL_B, &w->normed));
    for (size_t i = 0; i < w->normed.dim[0]; i++) { /* as mbl_text_product does */
        mbl_tensor_t from = mbl_tensor_rows(&w->normed, i, 1), to = mbl_tensor_rows(pooled, i, 1);
        MBL_TRY(MBL_OP(clip->ops, matmul, .y = &to, .a = &from, .b = &projection, .transpose_b = true));
    }
    return MBL_OK;
}

static mbl_status_t upload_ids(mbl_clip_t *clip, const int32_t *ids, const size_t *end, size_t n,
                               size_t tokens, clip_work_t *w) {
    int32_t *rows;
    for (size_t i = 0; i < n * tokens; i++)
        MBL_REQUIRE(ids[i] >= 0 && (size_t)ids[i] < clip->config.vocab_size,
                    "token %d in a text encoder of %zu tokens: tokenizer and encoder are not of one model",
                    ids[i], clip->config.vocab_size);
    MBL_ALLOC(rows, n);
    mbl_status_t status = MBL_OK;
    for (size_t i = 0; i < n && status == MBL_OK; i++) {
        rows[i] = (int32_t)(i * tokens + end[i]);
        if (end[i] >= tokens)
            status = MBL_FAIL(MBL_ERR_ARG, "end token at %zu of %zu tokens", end[i], tokens);
    }
    if (status == MBL_OK)
        status = mbl_tensor_upload(clip->ops, &w->ids, ids);
    if (status == MBL_OK)
        status = mbl_tensor_upload(clip->ops, &w->rows, rows);
    mbl_free(rows);
    return status;
}

mbl_status_t mbl_clip_forward(mbl_clip_t *clip, const int32_t *ids, const size_t *end, size_t n,
                              size_t tokens, const mbl_tensor_t *hidden, const mbl_tensor_t *pooled) {
    MBL_REQUIRE(n > 0 && tokens > 0 && tokens <= clip->config.max_position_embeddings,
                "%zu prompts of %zu tokens in a text encoder of %zu positions", n, tokens,
                clip->config.max_position_embeddings);
    mbl_status_t status;
    clip_work_t w = {0};
    mbl_tensor_t table, position;
    MBL_TRY_GOTO(work_new(clip, n, tokens, &w), done);
    MBL_TRY_GOTO(upload_ids(clip, ids, end, n, tokens, &w), done);
    MBL_TRY_GOTO(mbl_text_weights_need(clip->weights, 0), done);
    table = weight(clip, CLIP_TOKEN, 0), position = weight(clip, CLIP_POSITION, 0);
    MBL_TRY_GOTO(MBL_OP(clip->ops, embed, .y = &w.x, .table = &table, .ids = &w.ids, .position = &position),
                 done);
    for (size_t i = 0; i < clip->config.num_hidden_layers; i++) {
        if (i + 1 == clip->config.num_hidden_layers)
            MBL_TRY_GOTO(mbl_text_store(clip->ops, &w.x, hidden), done);
        MBL_TRY_GOTO(layer(clip, i, &w), done);
    }
    MBL_TRY_GOTO(pool(clip, &w, pooled), done);
    status = clip->ops->table->sync(clip->ops);
done:
    work_free(clip->ops, &w);
    return status;
}
