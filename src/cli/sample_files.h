/* What marble sample writes and reads: images that say how they were made, their sheet, noise and latents. */
#ifndef MBL_CLI_SAMPLE_FILES_H
#define MBL_CLI_SAMPLE_FILES_H

#include "data/image.h"
#include "ops/ops.h"

typedef struct {
    const mbl_image_t *images;   /* [n] */
    const char *const *captions; /* [n], their prompts */
    const int64_t *sample;       /* [n], their numbers */
    size_t n;
    const char *const *prompts; /* [n_prompts], each once */
    size_t n_prompts;
    const mbl_image_text_t *how; /* [n_how], the text chunks that all have */
    size_t n_how;
} mbl_sample_files_t;

/* FOLDER/000.png, ... and FOLDER/sheet.png; the folder is made. */
mbl_status_t mbl_sample_files_write(const mbl_sample_files_t *files, const char *folder);

/* The tensor "noise" of a safetensors file, of shape dim [n, C, H, W], into out. */
mbl_status_t mbl_noise_read(const char *path, const size_t dim[4], float *out);
/* A safetensors file with `noise` and the latents x0, of one shape. */
mbl_status_t mbl_latents_write(const char *path, const mbl_tensor_t *x0, const float *noise, mbl_ops_t *ops);

#endif
