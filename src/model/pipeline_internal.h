/* What the files of the pipeline share. */
#ifndef MBL_MODEL_PIPELINE_INTERNAL_H
#define MBL_MODEL_PIPELINE_INTERNAL_H

#include "model/digest.h"
#include "model/pipeline.h"
#include "model/text/prompt.h"
#include "model/vae/vae.h"

struct mbl_pipeline {
    mbl_ops_t *ops;
    mbl_dtype_t dtype;
    mbl_dit_t *model;
    mbl_text_t *text;
    size_t tokens; /* of a prompt's context */
    double shift;  /* of the scheduler */
    char digest[MBL_SHA256_HEX];
    size_t height, width; /* of latents */
    void *host;           /* latents on their way to images, where there is no vae */
    size_t host_bytes;
    /* The vae and what decodes latents of that size: one or the other. */
    mbl_vae_t *vae;
    mbl_vae_decoder_t *decoder;
    mbl_vae_tiler_t *tiler;
    size_t at_once, fitting;   /* images of a call, and how many fit into decode_bytes */
    size_t decode_bytes, tile; /* room for buffers; latents of a larger side are decoded in tiles */
};

/* Opens FOLDER/vae, whose latents must be those of the transformer. */
mbl_status_t mbl_pipeline_open_vae(mbl_pipeline_t *pipeline, const char *folder);
void mbl_pipeline_close_vae(mbl_pipeline_t *pipeline);

#endif
