/* LoRA adapters written as files, and merged. */
#include "model/lora_file.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "model/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char diffusers_prefix[] = "transformer.", peft_prefix[] = "base_model.model.";

static double scale_of(const mbl_lora_t *lora) {
    return mbl_lora_config(lora)->alpha / (double)mbl_lora_config(lora)->rank;
}

/* ---- writing ---- */

/* Every matrix under `prefix`, B times `scale`. */
static mbl_status_t write_tensors(const mbl_lora_t *lora, const float *values, const char *prefix,
                                  double scale, const char *path) {
    size_t n = mbl_lora_param_count(lora), first_b = mbl_lora_pair_count(lora);
    mbl_status_t status;
    mbl_st_tensor_t *tensors;
    char(*names)[128] = NULL;
    float *scaled = NULL;
    MBL_ALLOC(tensors, n);
    MBL_ALLOC_GOTO(names, n, done);
    MBL_ALLOC_GOTO(scaled, mbl_lora_size(lora), done);
    for (size_t i = 0; i < n; i++) {
        const mbl_param_t *param = mbl_lora_param(lora, i);
        double factor = i >= first_b ? scale : 1;
        for (size_t j = param->offset; j < param->offset + param->count; j++)
            scaled[j] = (float)(factor * (double)values[j]);
        snprintf(names[i], sizeof names[i], "%s%s", prefix, param->name);
        tensors[i] = (mbl_st_tensor_t){.name = names[i],
                                       .dtype = MBL_F32,
                                       .ndim = param->ndim,
                                       .dim = {param->dim[0], param->dim[1]},
                                       .data = scaled + param->offset};
    }
    status = mbl_st_write(path, tensors, n, (const char *const[]){"format", "pt", NULL});
done:
    mbl_free(scaled);
    mbl_free(names);
    mbl_free(tensors);
    return status;
}

mbl_status_t mbl_lora_write(const mbl_lora_t *lora, const float *values, const char *path) {
    MBL_REQUIRE(lora && values && path, "lora_write: adapter, values and path must be given");
    return write_tensors(lora, values, diffusers_prefix, scale_of(lora), path);
}

static mbl_status_t write_peft_config(const mbl_lora_t *lora, const char *base, const char *path) {
    const mbl_lora_config_t *config = mbl_lora_config(lora);
    double alpha = config->alpha;
    json_t *targets = json_array();
    for (size_t i = 0; i < config->n_targets; i++)
        json_array_append_new(targets, json_string(config->targets[i]));
    json_t *object =
        json_pack("{s:s, s:s, s:I, s:o, s:o, s:f, s:s, s:b, s:b, s:b, s:n, s:b, s:b}", "peft_type", "LORA",
                  "base_model_name_or_path", base, "r", (json_int_t)config->rank, "lora_alpha",
                  alpha == floor(alpha) ? json_integer((json_int_t)alpha) : json_real(alpha),
                  "target_modules", targets, "lora_dropout", 0.0, "bias", "none", "fan_in_fan_out", 0,
                  "inference_mode", 1, "init_lora_weights", 1, "task_type", "use_rslora", 0, "use_dora", 0);
    if (!object)
        return MBL_FAIL(MBL_ERR_MEM, "%s: no memory for it, or a name that is not UTF-8", path);
    mbl_status_t status = mbl_json_write(path, object);
    json_decref(object);
    return status;
}

mbl_status_t mbl_lora_write_peft(const mbl_lora_t *lora, const float *values, const char *base,
                                 const char *folder) {
    MBL_REQUIRE(lora && values && base && folder,
                "lora_write_peft: adapter, values, base and folder must be given");
    MBL_TRY(mbl_folder_make(folder));
    char *config = mbl_format("%s/adapter_config.json", folder);
    char *model = mbl_format("%s/adapter_model.safetensors", folder);
    mbl_status_t status = MBL_OK;
    if (!config || !model)
        status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory for a path", folder);
    if (status == MBL_OK)
        status = write_tensors(lora, values, peft_prefix, 1, model);
    if (status == MBL_OK)
        status = write_peft_config(lora, base, config);
    mbl_free(config);
    mbl_free(model);
    return status;
}

/* ---- merging ---- */

/* w [rows, columns] += scale B A; `row` is room for `columns` numbers. */
static void add_product(const float *a, const float *b, size_t rank, size_t rows, size_t columns,
                        double scale, double *row, float *w) {
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < columns; j++)
            row[j] = (double)w[i * columns + j];
        for (size_t r = 0; r < rank; r++) {
            double factor = scale * (double)b[i * rank + r];
            for (size_t j = 0; j < columns; j++)
                row[j] += factor * (double)a[r * columns + j];
        }
        for (size_t j = 0; j < columns; j++)
            w[i * columns + j] = (float)row[j];
    }
}

mbl_status_t mbl_lora_merge(const mbl_lora_t *lora, const float *values, float *weights) {
    MBL_REQUIRE(lora && values && weights, "lora_merge: adapter, values and weights must be given");
    for (size_t i = 0; i < mbl_lora_pair_count(lora); i++) {
        const mbl_lora_pair_t pair = mbl_lora_pair(lora, i);
        double *row;
        MBL_ALLOC(row, pair.linear->in);
        add_product(values + pair.a->offset, values + pair.b->offset, pair.a->dim[0], pair.linear->out,
                    pair.linear->in, scale_of(lora), row, weights + pair.linear->weight);
        mbl_free(row);
    }
    return MBL_OK;
}
