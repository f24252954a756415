/* Models and pipelines of tests, from the MM-DiT's configuration as a struct. */
#ifndef MBL_TESTS_MMDIT_NEW_H
#define MBL_TESTS_MMDIT_NEW_H

#include "model/mmdit/mmdit.h"
#include "model/pipeline.h"

static inline mbl_status_t new_model(mbl_ops_t *ops, mbl_dtype_t dtype, const mbl_mmdit_config_t *config,
                                     uint64_t seed, mbl_dit_t **out) {
    json_t *json = mbl_mmdit_config_json(config);
    mbl_status_t status = mbl_dit_new(ops, dtype, json, seed, out);
    json_decref(json);
    return status;
}

static inline mbl_status_t blank_model(mbl_ops_t *ops, mbl_dtype_t dtype, const mbl_mmdit_config_t *config,
                                       mbl_dit_t **out) {
    json_t *json = mbl_mmdit_config_json(config);
    mbl_status_t status = mbl_dit_blank(ops, dtype, json, out);
    json_decref(json);
    return status;
}

static inline mbl_status_t new_pipeline(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder,
                                        const mbl_mmdit_config_t *config, uint64_t seed,
                                        mbl_pipeline_t **out) {
    json_t *json = mbl_mmdit_config_json(config);
    mbl_status_t status = mbl_pipeline_new(ops, dtype, folder, json, seed, out);
    json_decref(json);
    return status;
}

#endif
