/* The MM-DiT as a family of transformers: its table, what a model holds, and fresh weights. */
#include "model/mmdit/mmdit.h"

#include "base/mem.h"
#include "base/rng.h"
#include "model/mmdit/internal.h"

#include <math.h>
#include <string.h>

static mbl_status_t create(mbl_ops_t *ops, mbl_dtype_t dtype, const char *where, const json_t *config,
                           mbl_dit_t **out) {
    mbl_mmdit_config_t parsed;
    mbl_mmdit_t *model;
    MBL_TRY(mbl_mmdit_config_parse(where, config, &parsed));
    MBL_ALLOC(model, 1);
    model->base.table = &mbl_dit_mmdit;
    model->base.ops = ops;
    model->base.dtype = dtype;
    model->base.sizes = mbl_mmdit_sizes(&parsed);
    model->config = parsed;
    mbl_status_t status = mbl_mmdit_layout(model);
    if (status != MBL_OK) {
        mbl_dit_close(&model->base);
        return status;
    }
    *out = &model->base;
    return MBL_OK;
}

static void clear(mbl_dit_t *model) {
    mbl_free(mbl_mmdit_of(model)->blocks);
}

/* ---- fresh ---- */

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), k = strlen(end);
    return n >= k && strcmp(text + n - k, end) == 0;
}

/* diffusers' get_2d_sincos_pos_embed for a square grid: the first half of D encodes the column, the second
 * the row, each as sines then cosines, in units of the grid the model was trained on. */
static double position_value(const mbl_mmdit_t *m, size_t index) {
    size_t width = m->width, max = m->config.pos_embed_max_size, quarter = width / 4;
    size_t j = index % width, place = index / width;
    size_t at = j < width / 2 ? place % max : place / max;
    size_t base = m->config.sample_size / m->config.patch_size;
    float position = (float)at / (float)((double)max / (double)base);
    size_t within = j % (width / 2);
    double omega = 1.0 / pow(10000.0, (double)(within % quarter) / (double)quarter);
    double angle = (double)position * omega;
    return within < quarter ? sin(angle) : cos(angle);
}

/* Uniform within +-bound (Xavier), a constant, or the positions. */
static double fresh_value(const mbl_mmdit_t *m, const mbl_param_t *param, size_t i, double bound,
                          mbl_rng_t *rng) {
    if (!param->trained)
        return position_value(m, i);
    if (param->ndim == 1)
        return ends_with(param->name, ".weight") ? 1 : 0;
    return bound * (2 * (double)mbl_rng_uniform(rng) - 1);
}

/* As diffusers does for SD3 training from scratch: Xavier for linears, zeros for adaLN (norm*.linear) and
 * proj_out, sin-cos positions. */
static void fresh(const mbl_dit_t *model, size_t index, uint64_t seed, void *values) {
    const mbl_mmdit_t *m = mbl_mmdit_of(model);
    const mbl_param_t *param = &m->base.params[index];
    mbl_rng_t rng = mbl_rng(seed, MBL_RNG_INIT, 0, index);
    bool zero = strstr(param->name, ".linear.") || strncmp(param->name, "proj_out", 8) == 0;
    size_t in = param->ndim > 1 ? param->count / param->dim[0] : 1;
    double bound = zero ? 0 : sqrt(6.0 / (double)(in + param->dim[0]));
    for (size_t i = 0; i < param->count; i++) {
        double value = fresh_value(m, param, i, bound, &rng);
        if (m->base.dtype == MBL_F64)
            ((double *)values)[i] = (float)value; /* the model of a seed is one model, whatever its type */
        else
            ((float *)values)[i] = (float)value;
    }
}

/* ---- the table ---- */

/* What the publisher calls a model of these sizes. */
static const char *title(const json_t *config) {
    static const struct {
        const char *name;
        size_t layers, heads, dual; /* the first `dual` blocks have two attentions */
        bool qk_norm;
    } published[] = {{"Stable Diffusion 3.5 Medium", 24, 24, 13, true},
                     {"Stable Diffusion 3.5 Large", 38, 38, 0, true},
                     {"Stable Diffusion 3 Medium", 24, 24, 0, false}};
    mbl_mmdit_config_t c;
    size_t dual = 0;
    if (mbl_mmdit_config_parse("a configuration", config, &c) != MBL_OK || c.attention_head_dim != 64 ||
        c.in_channels != 16 || c.joint_attention_dim != 4096 || c.pooled_projection_dim != 2048)
        return NULL;
    while (dual < c.num_layers && c.dual_attention[dual])
        dual++;
    for (size_t i = 0; i < sizeof published / sizeof *published; i++)
        if (c.num_layers == published[i].layers && c.num_attention_heads == published[i].heads &&
            dual == published[i].dual && c.qk_norm == published[i].qk_norm)
            return published[i].name;
    return NULL;
}

static mbl_status_t sizes(const char *where, const json_t *config, mbl_dit_sizes_t *out) {
    mbl_mmdit_config_t parsed;
    MBL_TRY(mbl_mmdit_config_parse(where, config, &parsed));
    *out = mbl_mmdit_sizes(&parsed);
    return MBL_OK;
}

static json_t *config(const mbl_dit_t *model) {
    return mbl_mmdit_config_json(&mbl_mmdit_of(model)->config);
}

/* The first block has two attentions, and so a linear of every kind. */
static mbl_status_t of_kind(json_t *out, size_t kind, size_t blocks) {
    json_t *dual = json_array();
    int bad = json_object_set_new(out, "num_layers", json_integer((json_int_t)blocks));
    for (size_t i = 0; i + 1 < blocks; i++)
        if (kind == MBL_MMDIT_DUAL || i == 0)
            bad |= json_array_append_new(dual, json_integer((json_int_t)i));
    bad |= json_object_set_new(out, "dual_attention_layers", dual);
    return bad ? MBL_FAIL(MBL_ERR_MEM, "no memory for a configuration") : MBL_OK;
}

static const mbl_dit_block_kind_t block_kinds[MBL_DIT_BLOCK_KINDS + 1] = {
    [MBL_MMDIT_DUAL] = {"dual", "two attentions"}, [MBL_MMDIT_PLAIN] = {"plain", "one"}};
static const char *const targets[] = {"attn.to_q",       "attn.to_k",       "attn.to_v",
                                      "attn.to_out.0",   "attn.add_q_proj", "attn.add_k_proj",
                                      "attn.add_v_proj", "attn.to_add_out", NULL};

const mbl_dit_table_t mbl_dit_mmdit = {.class_name = MBL_MMDIT_CLASS,
                                       .block_kind = block_kinds,
                                       .prefix = "transformer_blocks.",
                                       .targets = targets,
                                       .sizes = sizes,
                                       .of_kind = of_kind,
                                       .title = title,
                                       .create = create,
                                       .clear = clear,
                                       .config = config,
                                       .fresh = fresh,
                                       .tape_new = mbl_mmdit_tape_new,
                                       .tape_free = mbl_mmdit_tape_free,
                                       .tape_count = mbl_mmdit_tape_count,
                                       .forward = mbl_mmdit_forward,
                                       .backward = mbl_mmdit_backward};
