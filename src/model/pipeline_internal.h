/* What the files of the pipeline share. */
#ifndef MBL_MODEL_PIPELINE_INTERNAL_H
#define MBL_MODEL_PIPELINE_INTERNAL_H

#include "model/digest.h"
#include "model/pipeline.h"
#include "model/text/prompt.h"

struct mbl_pipeline {
    mbl_ops_t *ops;
    mbl_dtype_t dtype;
    mbl_dit_t *model;
    mbl_text_t *text;
    size_t tokens; /* of a prompt's context */
    double shift;  /* of the scheduler */
    char digest[MBL_SHA256_HEX];
    void *host; /* latents on their way to images */
    size_t host_bytes;
};

#endif
