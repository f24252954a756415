/* What the files of marble sample share: what is asked for, and what is drawn. */
#ifndef MBL_CLI_SAMPLE_H
#define MBL_CLI_SAMPLE_H

#include "cli/args.h"
#include "data/image.h"
#include "run/engine.h"
#include "run/state.h"

typedef struct {
    const char *model, *prompts_file, *out, *checkpoint, *config, *lora, *solver, *schedule, *precision,
        *negative, *layers, *noise, *latents;
    mbl_arg_texts_t prompts, sets;
    size_t steps, seed, per_prompt, threads, batch, height, width; /* 0 by 0: the run's, or the model's */
    double shift, guidance, skip_scale, skip_start, skip_stop;
    uint64_t skip; /* bit i: block i, of --skip-layers */
    bool low_memory;
} mbl_sample_options_t;

typedef struct {
    mbl_engine_t engine;  /* ops, pipeline; with a checkpoint also config and comm */
    mbl_config_t *config; /* of the checkpoint */
    mbl_state_t state;
    mbl_lora_t *lora; /* of --lora, with its values */
    mbl_adapter_t adapter;
    mbl_prompts_t from_file;
    const char **prompt;
    size_t n_prompts, n; /* n = prompts x per_prompt */
    mbl_conditions_t conditions, negative;
    mbl_sampler_t *sampler;
    mbl_tensor_t x0;
    float *noise; /* [n, C, H, W], where it is read or written */
    uint8_t *rgb;
    mbl_image_t *images;
    const char **captions;
    uint32_t *index;
    int64_t *sample;
    mbl_sigma_schedule_t schedule; /* that they are drawn by */
} mbl_sample_t;

/* Prompts, model and adapter, room for the images; *s is zero before. Close it whether that succeeds or not.
 */
mbl_status_t mbl_sample_open(const mbl_sample_options_t *options, mbl_comm_t *comm, mbl_sample_t *s);
void mbl_sample_close(mbl_sample_t *s);
/* Draws them all: s->images, s->x0 and, where it is kept, s->noise. */
mbl_status_t mbl_sample_draw(const mbl_sample_options_t *options, mbl_sample_t *s);

#endif
