/* T5's encoder: opening, positions, the forward pass. */
#include "model/text/t5.h"
#include "base/json.h"
#include "base/mem.h"
#include "model/text/weights.h"

#include <math.h>
#include <string.h>

/* Order within a layer. q, k, v are adjacent, so that one product computes all three. */
enum { T5_NORM1, T5_Q, T5_K, T5_V, T5_O, T5_NORM2, T5_WI_0, T5_WI_1, T5_WO, T5_LAYER_PARAMS };

enum { TOKENS_AT_ONCE = 4096 }; /* in one product: bounds the working memory */

struct mbl_t5 {
    mbl_ops_t *ops;
    mbl_dtype_t dtype;
    mbl_t5_config_t config;
    mbl_text_param_t *params;
    size_t n_params;
    mbl_text_weights_t *weights;
    const char *embedding; /* its name in the files; read row by row, on the host */
    double *bias;          /* [buckets,heads] of relative positions */
};

/* ---- config.json ---- */

static mbl_status_t read_config(const json_t *root, const char *path, mbl_t5_config_t *c) {
    const char *act = "relu";
    const struct {
        const char *key;
        size_t *out, fallback, max;
    } sizes[] = {{"vocab_size", &c->vocab_size, 32128, 1 << 24},
                 {"d_model", &c->d_model, 512, 65536},
                 {"d_kv", &c->d_kv, 64, 4096},
                 {"d_ff", &c->d_ff, 2048, 1 << 20},
                 {"num_layers", &c->num_layers, 6, 1024},
                 {"num_heads", &c->num_heads, 8, 1024},
                 {"relative_attention_num_buckets", &c->relative_attention_num_buckets, 32, 65536},
                 {"relative_attention_max_distance", &c->relative_attention_max_distance, 128, 1 << 20}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        *sizes[i].out = sizes[i].fallback;
        MBL_TRY(mbl_json_size(root, path, sizes[i].key, false, 1, sizes[i].max, sizes[i].out));
    }
    c->layer_norm_epsilon = 1e-6;
    MBL_TRY(mbl_json_real(root, path, "layer_norm_epsilon", false, 0, 1, &c->layer_norm_epsilon));
    MBL_TRY(mbl_json_string(root, path, "feed_forward_proj", false, &act));
    if (strcmp(act, "gated-gelu") != 0)
        return MBL_FAIL(MBL_ERR_UNSUPPORTED,
                        "%s: feed_forward_proj: \"%.40s\"; expected gated-gelu (T5 v1.1)", path, act);
    /* two halves for either direction, each half of it exact, the rest up to the distance */
    if (c->relative_attention_num_buckets % 4 != 0 ||
        c->relative_attention_max_distance <= c->relative_attention_num_buckets / 4)
        return MBL_FAIL(
            MBL_ERR_CONFIG,
            "%s: relative_attention_num_buckets: %zu; expected a multiple of 4 and at most 4 times "
            "less than relative_attention_max_distance %zu",
            path, c->relative_attention_num_buckets, c->relative_attention_max_distance);
    return MBL_OK;
}

mbl_status_t mbl_t5_config_read(const char *path, mbl_t5_config_t *out) {
    json_t *root = NULL;
    mbl_t5_config_t config = {0};
    MBL_TRY(mbl_json_read(path, &root));
    mbl_status_t status = read_config(root, path, &config);
    json_decref(root);
    if (status == MBL_OK)
        *out = config;
    return status;
}

/* ---- opening ---- */

static void place_layer(mbl_text_layout_t *layout, const mbl_t5_config_t *c, size_t layer) {
    size_t d = c->d_model, inner = c->num_heads * c->d_kv, m = c->d_ff;
    const struct {
        const char *name;
        size_t rows, cols;
        bool follows;
    } parts[T5_LAYER_PARAMS] = {
        {"0.layer_norm", d, 0, false},          {"0.SelfAttention.q", inner, d, false},
        {"0.SelfAttention.k", inner, d, true},  {"0.SelfAttention.v", inner, d, true},
        {"0.SelfAttention.o", d, inner, false}, {"1.layer_norm", d, 0, false},
        {"1.DenseReluDense.wi_0", m, d, false}, {"1.DenseReluDense.wi_1", m, d, false},
        {"1.DenseReluDense.wo", d, m, false}};
    layout->group = layer;
    for (size_t i = 0; i < T5_LAYER_PARAMS; i++) {
        char name[96];
        snprintf(name, sizeof name, "encoder.block.%zu.layer.%s.weight", layer, parts[i].name);
        mbl_text_place(layout, name, parts[i].rows, parts[i].cols, 0, parts[i].follows);
    }
}

#define T5_BIAS "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"

/* What is read on the host: the table of positions, and which of its two names the embedding has. */
static mbl_status_t read_tables(mbl_t5_t *t5, const char *folder) {
    static const char *const names[] = {"shared.weight", "encoder.embed_tokens.weight"};
    const mbl_st_t *st = mbl_text_weights_file(t5->weights);
    size_t entries = t5->config.relative_attention_num_buckets * t5->config.num_heads;
    MBL_ALLOC(t5->bias, entries);
    if (!st)
        return MBL_OK;
    MBL_TRY(mbl_st_read_f64(st, T5_BIAS, t5->bias, entries));
    for (int i = 0; i < 2 && !t5->embedding; i++)
        if (mbl_st_find(st, names[i]))
            t5->embedding = names[i];
    const mbl_st_entry_t *entry = t5->embedding ? mbl_st_find(st, t5->embedding) : NULL;
    if (!entry || entry->ndim != 2 || entry->dim[0] != t5->config.vocab_size ||
        entry->dim[1] != t5->config.d_model)
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %s: %s; expected %zu x %zu", folder, names[0],
                        entry ? "another shape" : "missing", t5->config.vocab_size, t5->config.d_model);
    return MBL_OK;
}

typedef enum { BLANK, WHOLE, LOW_MEMORY } how_t; /* without weights, with them, with a layer's at one time */

static mbl_status_t open_weights(mbl_t5_t *t5, const char *folder, how_t how) {
    static const char *const ignored[] = {"shared.weight", "encoder.embed_tokens.weight", T5_BIAS, NULL};
    t5->n_params = t5->config.num_layers * T5_LAYER_PARAMS + 1;
    MBL_ALLOC(t5->params, t5->n_params);
    mbl_text_layout_t layout = {.next = t5->params};
    for (size_t i = 0; i < t5->config.num_layers; i++)
        place_layer(&layout, &t5->config, i);
    layout.group = t5->config.num_layers;
    mbl_text_place(&layout, "encoder.final_layer_norm.weight", t5->config.d_model, 0, 0, false);
    const mbl_text_spec_t spec = {t5->params, t5->n_params, ignored, "look at its num_layers"};
    if (how == BLANK)
        MBL_TRY(mbl_text_weights_blank(t5->ops, t5->dtype, &spec, &t5->weights));
    else
        MBL_TRY(mbl_text_weights_open(t5->ops, t5->dtype, folder, &spec, how == LOW_MEMORY, &t5->weights));
    return read_tables(t5, folder);
}

static mbl_status_t open_as(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder, how_t how,
                            mbl_t5_t **out) {
    mbl_status_t status;
    char *path = NULL;
    mbl_t5_t *t5;
    MBL_ALLOC(t5, 1);
    t5->ops = ops;
    t5->dtype = dtype;
    if (!(path = mbl_format("%s/config.json", folder))) {
        status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a file name", folder);
        goto done;
    }
    MBL_TRY_GOTO(mbl_t5_config_read(path, &t5->config), done);
    MBL_TRY_GOTO(open_weights(t5, folder, how), done);
    *out = t5;
    t5 = NULL;
done:
    mbl_free(path);
    mbl_t5_close(t5);
    return status;
}

mbl_status_t mbl_t5_open(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder, bool low_memory,
                         mbl_t5_t **out) {
    return open_as(ops, dtype, folder, low_memory ? LOW_MEMORY : WHOLE, out);
}

mbl_status_t mbl_t5_blank(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder, mbl_t5_t **out) {
    return open_as(ops, dtype, folder, BLANK, out);
}

void mbl_t5_close(mbl_t5_t *t5) {
    if (!t5)
        return;
    mbl_text_weights_close(t5->weights);
    mbl_free(t5->params);
    mbl_free(t5->bias);
    mbl_free(t5);
}

const mbl_st_t *mbl_t5_file(const mbl_t5_t *t5) {
    return mbl_text_weights_file(t5->weights);
}

const mbl_t5_config_t *mbl_t5_config(const mbl_t5_t *t5) {
    return &t5->config;
}

/* ---- forward ---- */

/* x [N,T,D] st is the residual stream of all prompts; the others hold some prompts at a time: narrow, h
 * [n,T,D], qkv [n,T,3I], q, k [n,H,T,d], attended [n,T,I], up, gate, product [n,T,M]; bias [H,2T-1]. */
typedef struct {
    mbl_tensor_t x, narrow, h, qkv, q, k, attended, up, gate, product, bias;
} t5_work_t;

static void work_free(mbl_ops_t *ops, t5_work_t *w) {
    mbl_tensor_t *all[] = {&w->x,        &w->narrow, &w->h,    &w->qkv,     &w->q,   &w->k,
                           &w->attended, &w->up,     &w->gate, &w->product, &w->bias};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        mbl_tensor_free(ops, all[i]);
}

static mbl_status_t work_new(const mbl_t5_t *t5, size_t all, size_t n, size_t t, t5_work_t *w) {
    mbl_ops_t *ops = t5->ops;
    mbl_dtype_t ct = t5->dtype, st = mbl_dtype_stat(ct);
    size_t d = t5->config.d_model, heads = t5->config.num_heads, kv = t5->config.d_kv, m = t5->config.d_ff;
    MBL_TRY(mbl_tensor_new(ops, st, &w->x, 3, all, t, d));
    MBL_TRY(mbl_tensor_new(ops, ct, &w->narrow, 3, n, t, d));
    MBL_TRY(mbl_tensor_new(ops, ct, &w->h, 3, n, t, d));
    MBL_TRY(mbl_tensor_new(ops, ct, &w->qkv, 3, n, t, 3 * heads * kv));
    MBL_TRY(mbl_tensor_new(ops, ct, &w->q, 4, n, heads, t, kv));
    MBL_TRY(mbl_tensor_new(ops, ct, &w->k, 4, n, heads, t, kv));
    MBL_TRY(mbl_tensor_new(ops, ct, &w->attended, 3, n, t, heads * kv));
    MBL_TRY(mbl_tensor_new(ops, ct, &w->up, 3, n, t, m));
    MBL_TRY(mbl_tensor_new(ops, ct, &w->gate, 3, n, t, m));
    MBL_TRY(mbl_tensor_new(ops, ct, &w->product, 3, n, t, m));
    return mbl_tensor_new(ops, st, &w->bias, 2, heads, 2 * t - 1);
}

/* The bucket of a key `distance` tokens behind its query, as transformers computes it, in f32. */
static size_t bucket_of(const mbl_t5_config_t *c, long distance) {
    size_t half = c->relative_attention_num_buckets / 2, exact = half / 2;
    size_t way = distance > 0 ? half : 0, far = (size_t)(distance < 0 ? -distance : distance);
    if (far < exact)
        return way + far;
    float share = logf((float)far / (float)exact) /
                  (float)log((double)c->relative_attention_max_distance / (double)exact);
    size_t bucket = exact + (size_t)(share * (float)(half - exact));
    return way + (bucket < half ? bucket : half - 1);
}

/* bias [H,2T-1]: entry key - query + T - 1 is what a score between the two gets. */
static mbl_status_t upload_bias(const mbl_t5_t *t5, size_t tokens, const mbl_tensor_t *bias) {
    size_t heads = t5->config.num_heads, span = 2 * tokens - 1;
    void *host = mbl_calloc(heads * span, mbl_dtype_size(bias->dtype));
    if (!host)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for the positions of %zu tokens", tokens);
    for (size_t i = 0; i < span; i++) {
        size_t bucket = bucket_of(&t5->config, (long)i - (long)tokens + 1);
        for (size_t h = 0; h < heads; h++) {
            double value = t5->bias[bucket * heads + h];
            if (bias->dtype == MBL_F64)
                ((double *)host)[h * span + i] = value;
            else
                ((float *)host)[h * span + i] = (float)value;
        }
    }
    mbl_status_t status = mbl_tensor_upload(t5->ops, bias, host);
    mbl_free(host);
    return status;
}

/* The embeddings of all tokens, read from the file; zeros of a blank encoder. */
static mbl_status_t upload_embeddings(const mbl_t5_t *t5, const int32_t *ids, const mbl_tensor_t *x) {
    const mbl_st_t *st = mbl_text_weights_file(t5->weights);
    size_t d = t5->config.d_model, count = x->dim[0] * x->dim[1];
    mbl_status_t status = MBL_OK;
    char *host = mbl_calloc(count * d, mbl_dtype_size(x->dtype));
    if (!host)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for the embeddings of %zu tokens", count);
    for (size_t i = 0; i < count && status == MBL_OK; i++) {
        size_t row = (size_t)ids[i];
        if (ids[i] < 0 || row >= t5->config.vocab_size)
            status = MBL_FAIL(MBL_ERR_ARG,
                              "token %d in a text encoder of %zu tokens: tokenizer and encoder are not of "
                              "one model",
                              ids[i], t5->config.vocab_size);
        else if (st)
            status = x->dtype == MBL_F64
                         ? mbl_st_read_row_f64(st, t5->embedding, row, (double *)(void *)host + i * d, d)
                         : mbl_st_read_row_f32(st, t5->embedding, row, (float *)(void *)host + i * d, d);
    }
    if (status == MBL_OK)
        status = mbl_tensor_upload(t5->ops, x, host);
    mbl_free(host);
    return status;
}

/* h = the norm of x rows, in the compute type. */
static mbl_status_t norm(mbl_t5_t *t5, const mbl_tensor_t *x, size_t index, const mbl_tensor_t *narrow,
                         const mbl_tensor_t *h) {
    mbl_tensor_t weight = mbl_text_weight(t5->weights, index, 0);
    size_t d = t5->config.d_model, rows = mbl_tensor_count(x) / d;
    mbl_tensor_t in = mbl_tensor_reshape(narrow, 2, rows, d), to = mbl_tensor_reshape(h, 2, rows, d);
    MBL_TRY(MBL_OP(t5->ops, convert, .dst = narrow, .src = x));
    return MBL_OP(t5->ops, layer_norm_affine, .y = &to, .x = &in, .weight = &weight,
                  .eps = t5->config.layer_norm_epsilon);
}

/* y = act(x W'), or y + x W' where it adds to the residual stream. */
static mbl_status_t linear(mbl_t5_t *t5, const mbl_tensor_t *x, size_t index, size_t rows, mbl_act_t act,
                           bool add, const mbl_tensor_t *y) {
    mbl_tensor_t matrix = mbl_text_weight(t5->weights, index, rows);
    return mbl_text_product(
        t5->ops, &(mbl_matmul_args_t){
                     .y = y, .a = x, .b = &matrix, .transpose_b = true, .act = act, .accumulate = add});
}

/* product = gate up, number by number: the backward pass of a gate with a row for every token. */
static mbl_status_t multiply(mbl_t5_t *t5, const t5_work_t *w) {
    size_t rows = w->up.dim[0] * w->up.dim[1], m = t5->config.d_ff;
    mbl_tensor_t to = mbl_tensor_reshape(&w->product, 3, rows, (size_t)1, m),
                 up = mbl_tensor_reshape(&w->up, 3, rows, (size_t)1, m),
                 gate = mbl_tensor_reshape(&w->gate, 2, rows, m);
    return MBL_OP(t5->ops, gate_bwd, .dh = &to, .dy = &up, .gate = &gate);
}

static mbl_status_t layer(mbl_t5_t *t5, size_t index, const mbl_tensor_t *x, t5_work_t *w) {
    size_t base = index * T5_LAYER_PARAMS, inner = t5->config.num_heads * t5->config.d_kv;
    MBL_TRY(norm(t5, x, base + T5_NORM1, &w->narrow, &w->h));
    MBL_TRY(linear(t5, &w->h, base + T5_Q, 3 * inner, MBL_ACT_NONE, false, &w->qkv));
    mbl_tensor_t v = mbl_tensor_columns(&w->qkv, 2 * inner, inner);
    MBL_TRY(MBL_OP(t5->ops, qk_norm, .q = &w->q, .k = &w->k, .qkv = &w->qkv));
    MBL_TRY(MBL_OP(t5->ops, attention, .out1 = &w->attended, .q = &w->q, .k = &w->k, .v1 = &v, .scale = 1,
                   .bias = &w->bias));
    MBL_TRY(linear(t5, &w->attended, base + T5_O, 0, MBL_ACT_NONE, true, x));
    MBL_TRY(norm(t5, x, base + T5_NORM2, &w->narrow, &w->h));
    MBL_TRY(linear(t5, &w->h, base + T5_WI_0, 0, MBL_ACT_GELU_TANH, false, &w->gate));
    MBL_TRY(linear(t5, &w->h, base + T5_WI_1, 0, MBL_ACT_NONE, false, &w->up));
    MBL_TRY(multiply(t5, w));
    return linear(t5, &w->product, base + T5_WO, 0, MBL_ACT_NONE, true, x);
}

/* The final norm of some prompts, each to its place. */
static mbl_status_t finish(mbl_t5_t *t5, const mbl_tensor_t *x, t5_work_t *w, const mbl_tensor_t *out) {
    MBL_TRY(norm(t5, x, t5->n_params - 1, &w->narrow, &w->h));
    return mbl_text_store(t5->ops, &w->h, out);
}

/* A view of the first n prompts of every working tensor. */
static t5_work_t some(const t5_work_t *w, size_t n) {
    t5_work_t v = *w;
    mbl_tensor_t *all[] = {&v.narrow, &v.h, &v.qkv, &v.q, &v.k, &v.attended, &v.up, &v.gate, &v.product};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        *all[i] = mbl_tensor_rows(all[i], 0, n);
    return v;
}

/* One layer (num_layers: the final norm) of all prompts, some at a time. */
static mbl_status_t layer_of_all(mbl_t5_t *t5, size_t index, t5_work_t *w, const mbl_tensor_t *out) {
    size_t all = w->x.dim[0], at_once = w->h.dim[0];
    MBL_TRY(mbl_text_weights_need(t5->weights, index));
    for (size_t first = 0; first < all; first += at_once) {
        size_t n = all - first < at_once ? all - first : at_once;
        t5_work_t part = some(w, n);
        mbl_tensor_t x = mbl_tensor_rows(&w->x, first, n), to = mbl_tensor_rows(out, first, n);
        MBL_TRY(index < t5->config.num_layers ? layer(t5, index, &x, &part) : finish(t5, &x, &part, &to));
    }
    return MBL_OK;
}

mbl_status_t mbl_t5_forward(mbl_t5_t *t5, const int32_t *ids, size_t n, size_t tokens,
                            const mbl_tensor_t *out) {
    MBL_REQUIRE(n > 0 && tokens > 0, "%zu prompts of %zu tokens in a text encoder", n, tokens);
    mbl_status_t status;
    t5_work_t w = {0};
    size_t at_once = tokens < TOKENS_AT_ONCE ? TOKENS_AT_ONCE / tokens : 1;
    MBL_TRY_GOTO(work_new(t5, n, n < at_once ? n : at_once, tokens, &w), done);
    MBL_TRY_GOTO(upload_bias(t5, tokens, &w.bias), done);
    MBL_TRY_GOTO(upload_embeddings(t5, ids, &w.x), done);
    for (size_t i = 0; i <= t5->config.num_layers; i++)
        MBL_TRY_GOTO(layer_of_all(t5, i, &w, out), done);
    status = t5->ops->table->sync(t5->ops);
done:
    work_free(t5->ops, &w);
    return status;
}
