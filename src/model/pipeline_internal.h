/* What the files of the pipeline share. */
#ifndef MBL_MODEL_PIPELINE_INTERNAL_H
#define MBL_MODEL_PIPELINE_INTERNAL_H

#include "base/sha256.h"
#include "model/clip.h"
#include "model/pipeline.h"
#include "model/tokenizer.h"

struct mbl_pipeline {
    mbl_ops_t *ops;
    mbl_dtype_t dtype;
    mbl_mmdit_t *model;
    mbl_clip_t *clip;
    mbl_tokenizer_t *tokenizer;
    size_t tokens; /* of a prompt */
    double shift;  /* of the scheduler */
    char digest[MBL_SHA256_HEX];
    void *host; /* latents on their way to pictures */
    size_t host_bytes;
};

/* SHA-256 over names, types, shapes and contents of a safetensors file, folder or index. */
mbl_status_t mbl_digest_files(const char *path, char out[MBL_SHA256_HEX]);
/* The same of the weights of a model in memory, as f32 (f64 for f64). */
mbl_status_t mbl_digest_weights(mbl_ops_t *ops, mbl_dtype_t dtype, const mbl_mmdit_t *model,
                                char out[MBL_SHA256_HEX]);

#endif
