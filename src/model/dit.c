/* Transformers of all families: found by the class of their configuration, made, given weights, run. */
#include "base/json.h"
#include "base/mem.h"
#include "model/dit_family.h"

#include <stdlib.h>
#include <string.h>

#define TABLE(name) &mbl_dit_##name,
static const mbl_dit_table_t *const families[] = {MBL_DIT_LIST(TABLE)};
#undef TABLE
enum { FAMILIES = sizeof families / sizeof *families };

/* ---- configurations ---- */

static mbl_status_t unknown_class(const char *where, const json_t *found) {
    char names[256] = "", *text = json_dumps(found, JSON_ENCODE_ANY | JSON_COMPACT);
    size_t at = 0;
    for (size_t i = 0; i < FAMILIES && at < sizeof names; i++)
        at += (size_t)snprintf(names + at, sizeof names - at, "%s\"%s\"", i ? " or " : "",
                               families[i]->class_name);
    mbl_status_t status = MBL_FAIL(MBL_ERR_CONFIG, "%s: _class_name: found %.200s; expected %s", where,
                                   text ? text : "?", names);
    free(text); /* jansson's own allocation */
    return status;
}

static mbl_status_t find_family(const char *where, const json_t *config, const mbl_dit_table_t **out) {
    const json_t *found = json_object_get(config, "_class_name");
    const char *name = json_string_value(found);
    *out = found ? NULL : families[0];
    for (size_t i = 0; i < FAMILIES && name; i++)
        if (strcmp(families[i]->class_name, name) == 0)
            *out = families[i];
    return *out ? MBL_OK : unknown_class(where, found);
}

mbl_status_t mbl_dit_config_sizes(const char *where, const json_t *config, mbl_dit_sizes_t *out) {
    const mbl_dit_table_t *table;
    MBL_REQUIRE(where && config && out, "dit_config_sizes: where, config and out must be given");
    MBL_TRY(find_family(where, config, &table));
    return table->sizes(where, config, out);
}

mbl_status_t mbl_dit_config_read(const char *path, json_t **out) {
    json_t *config;
    mbl_dit_sizes_t sizes;
    MBL_REQUIRE(path && out, "dit_config_read: path and out must be given");
    MBL_TRY(mbl_json_read(path, &config));
    mbl_status_t status = mbl_dit_config_sizes(path, config, &sizes);
    if (status == MBL_OK)
        *out = config;
    else
        json_decref(config);
    return status;
}

mbl_status_t mbl_dit_config_resize(json_t *config, size_t side) {
    return json_object_set_new(config, "sample_size", json_integer((json_int_t)side)) == 0
               ? MBL_OK
               : MBL_FAIL(MBL_ERR_MEM, "no memory for a configuration");
}

const char *mbl_dit_title(const json_t *config) {
    const mbl_dit_table_t *table;
    mbl_dit_sizes_t checked;
    if (find_family("a configuration", config, &table) != MBL_OK ||
        table->sizes("a configuration", config, &checked) != MBL_OK)
        return NULL;
    return table->title(config);
}

const mbl_dit_block_kind_t *mbl_dit_block_kind(const json_t *config, size_t i) {
    const mbl_dit_table_t *table;
    if (find_family("a configuration", config, &table) != MBL_OK)
        return NULL;
    for (size_t k = 0; k <= i; k++)
        if (k == MBL_DIT_BLOCK_KINDS || !table->block_kind[k].name)
            return NULL;
    return &table->block_kind[i];
}

mbl_status_t mbl_dit_config_of_kind(const json_t *config, size_t kind, size_t blocks, json_t **out) {
    const mbl_dit_table_t *table;
    MBL_TRY(find_family("a configuration", config, &table));
    json_t *copy = json_deep_copy(config);
    mbl_status_t status =
        copy ? table->of_kind(copy, kind, blocks) : MBL_FAIL(MBL_ERR_MEM, "no memory for a configuration");
    if (status == MBL_OK)
        *out = copy;
    else
        json_decref(copy);
    return status;
}

/* ---- models ---- */

/* A model without weights yet; `where` is what config came from, for messages. */
mbl_status_t mbl_dit_create(mbl_ops_t *ops, mbl_dtype_t dtype, const char *where, const json_t *config,
                            mbl_dit_t **out) {
    const mbl_dit_table_t *table;
    mbl_dit_t *model;
    MBL_REQUIRE(ops && config && out, "dit: ops, config and out must be given");
    MBL_REQUIRE(dtype == MBL_F32 || dtype == MBL_BF16 || dtype == MBL_F64,
                "the compute type must be f32, bf16 or f64, found %s", mbl_dtype_name(dtype));
    MBL_TRY(find_family(where, config, &table));
    MBL_TRY(table->create(ops, dtype, where, config, &model));
    mbl_status_t status = mbl_tensor_new(ops, dtype, &model->weights, 1, model->n_weights);
    if (status != MBL_OK) {
        mbl_dit_close(model);
        return status;
    }
    *out = model;
    return MBL_OK;
}

mbl_status_t mbl_dit_blank(mbl_ops_t *ops, mbl_dtype_t dtype, const json_t *config, mbl_dit_t **out) {
    return mbl_dit_create(ops, dtype, "config of a blank model", config, out);
}

void mbl_dit_close(mbl_dit_t *model) {
    if (!model)
        return;
    mbl_tensor_free(model->ops, &model->weights);
    model->table->clear(model);
    mbl_free(model->params);
    mbl_free(model->linears);
    mbl_free(model);
}

const mbl_dit_sizes_t *mbl_dit_sizes(const mbl_dit_t *model) {
    return &model->sizes;
}

const char *mbl_dit_class(const mbl_dit_t *model) {
    return model->table->class_name;
}

mbl_dtype_t mbl_dit_dtype(const mbl_dit_t *model) {
    return model->dtype;
}

size_t mbl_dit_param_count(const mbl_dit_t *model) {
    return model->n_params;
}

const mbl_param_t *mbl_dit_param(const mbl_dit_t *model, size_t i) {
    return i < model->n_params ? &model->params[i] : NULL;
}

size_t mbl_dit_linear_count(const mbl_dit_t *model) {
    return model->n_linears;
}

const mbl_dit_linear_t *mbl_dit_linear(const mbl_dit_t *model, size_t i) {
    return i < model->n_linears ? &model->linears[i] : NULL;
}

const mbl_tensor_t *mbl_dit_weights(const mbl_dit_t *model) {
    return &model->weights;
}

static mbl_status_t transfer(mbl_ops_t *ops, const mbl_tensor_t *dst, const mbl_tensor_t *src) {
    return dst->dtype == src->dtype ? mbl_tensor_copy(ops, dst, src)
                                    : MBL_OP(ops, convert, .dst = dst, .src = src);
}

mbl_status_t mbl_dit_set_weights(mbl_dit_t *model, const mbl_tensor_t *master) {
    MBL_REQUIRE(model && master, "set_weights: model and master must be given");
    MBL_REQUIRE(master->ndim == 1 && master->dim[0] == model->n_weights,
                "set_weights: master has %zu values, the model %zu", mbl_tensor_count(master),
                model->n_weights);
    MBL_TRY(transfer(model->ops, &model->weights, master));
    model->version++;
    return MBL_OK;
}

mbl_status_t mbl_dit_get_weights(const mbl_dit_t *model, const mbl_tensor_t *master) {
    MBL_REQUIRE(model && master, "get_weights: model and master must be given");
    MBL_REQUIRE(master->ndim == 1 && master->dim[0] == model->n_weights,
                "get_weights: master has %zu values, the model %zu", mbl_tensor_count(master),
                model->n_weights);
    return transfer(model->ops, master, &model->weights);
}

/* ---- conditions ---- */

mbl_status_t mbl_conditions_sized(mbl_ops_t *ops, mbl_dtype_t dtype, size_t n, size_t tokens, size_t width,
                                  size_t pooled, mbl_conditions_t *out) {
    mbl_conditions_t made = {.n = n};
    mbl_status_t status = mbl_tensor_new(ops, dtype, &made.context, 3, n, tokens, width);
    if (status == MBL_OK)
        status = mbl_tensor_new(ops, dtype, &made.pooled, 2, n, pooled);
    if (status != MBL_OK)
        mbl_conditions_free(ops, &made);
    *out = made;
    return status;
}

mbl_status_t mbl_conditions_new(const mbl_dit_t *model, size_t n, size_t tokens, mbl_conditions_t *out) {
    return mbl_conditions_sized(model->ops, model->dtype, n, tokens, model->sizes.context_width,
                                model->sizes.pooled_width, out);
}

void mbl_conditions_free(mbl_ops_t *ops, mbl_conditions_t *conditions) {
    mbl_tensor_free(ops, &conditions->context);
    mbl_tensor_free(ops, &conditions->pooled);
    conditions->n = 0;
}

mbl_conditions_t mbl_conditions_rows(const mbl_conditions_t *conditions, size_t first, size_t n) {
    return (mbl_conditions_t){n, mbl_tensor_rows(&conditions->context, first, n),
                              mbl_tensor_rows(&conditions->pooled, first, n), NULL};
}

mbl_status_t mbl_conditions_gather(mbl_ops_t *ops, const mbl_conditions_t *all, const uint32_t *index,
                                   const mbl_conditions_t *out) {
    for (size_t i = 0; i < out->n; i++) {
        MBL_REQUIRE(index[i] < all->n, "prompt %u of %zu", index[i], all->n);
        uint32_t row = all->row ? all->row[index[i]] : index[i];
        MBL_REQUIRE(row != MBL_CONDITIONS_NONE, "prompt %u is not on the device", index[i]);
        mbl_conditions_t to = mbl_conditions_rows(out, i, 1), from = mbl_conditions_rows(all, row, 1);
        MBL_TRY(mbl_tensor_copy(ops, &to.context, &from.context));
        MBL_TRY(mbl_tensor_copy(ops, &to.pooled, &from.pooled));
    }
    return MBL_OK;
}

/* ---- passes ---- */

mbl_status_t mbl_tape_new_of(const mbl_dit_t *model, const mbl_lora_t *lora, const mbl_tape_shape_t *shape,
                             mbl_tape_t **out) {
    MBL_REQUIRE(model && shape && out, "tape_new: model, shape and out must be given");
    MBL_REQUIRE(lora || shape->kind != MBL_TAPE_LORA, "tape_new: a LoRA tape needs the adapters' layout");
    return model->table->tape_new(model, lora, shape, out);
}

mbl_status_t mbl_tape_new(const mbl_dit_t *model, const mbl_lora_t *lora, mbl_tape_kind_t kind, size_t max_n,
                          size_t height, size_t width, size_t context_tokens, mbl_tape_t **out) {
    const mbl_tape_shape_t shape = {kind, max_n, height, width, context_tokens, 0};
    return mbl_tape_new_of(model, lora, &shape, out);
}

void mbl_tape_free(mbl_tape_t *tape) {
    if (tape)
        tape->model->table->tape_free(tape);
}

size_t mbl_tape_bytes(const mbl_tape_t *tape) {
    return tape->bytes;
}

mbl_status_t mbl_tape_count(const mbl_dit_t *model, const mbl_lora_t *lora, const mbl_tape_shape_t *shape,
                            size_t *bytes) {
    MBL_REQUIRE(model && shape && bytes && (lora || shape->kind != MBL_TAPE_LORA),
                "tape_count: model, shape, layout, or a result");
    return model->table->tape_count(model, lora, shape, bytes);
}

mbl_status_t mbl_dit_forward(mbl_dit_t *model, const mbl_adapter_t *adapter, const mbl_dit_input_t *input,
                             mbl_tape_t *tape, const mbl_tensor_t *v) {
    MBL_REQUIRE(model && tape && tape->model == model, "dit_forward: the tape is another model's");
    return model->table->forward(model, adapter, input, tape, v);
}

mbl_status_t mbl_dit_backward(mbl_dit_t *model, const mbl_adapter_t *adapter, const mbl_dit_input_t *input,
                              mbl_tape_t *tape, const mbl_tensor_t *dv, const mbl_gradient_sink_t *sink) {
    MBL_REQUIRE(model && tape && tape->model == model, "dit_backward: the tape is another model's");
    return model->table->backward(model, adapter, input, tape, dv, sink);
}
