/* What an epoch costs on a GPU, counted without one: the model code runs on the cost model (ops/cost_model.h)
 * with the run's shapes. Counts the transformer's passes, the loss, Gram matrix, optimizer and adapters of
 * one rank, and a step's messages to the others, the decoding of its images; and, apart from epochs, the
 * encoding of its prompts. The time of reading files and of scoring is not in it, nor are the buffers of
 * balance.alpha_halves. */
#ifndef MBL_TRAIN_PLAN_H
#define MBL_TRAIN_PLAN_H

#include "model/sampler.h"
#include "ops/cost_model.h"
#include "config/config.h"

/* One rank's share of a run. */
typedef struct {
    json_t *model;         /* config.json of the transformer, for latents of the side that is made */
    mbl_dit_sizes_t sizes; /* of that */
    mbl_dtype_t dtype;
    mbl_lora_config_t lora;
    size_t tokens, prompts; /* of the context; encoded prompts on the device at one time */
    size_t rewards;         /* K */
    size_t images, ranks;   /* per rank and epoch */
    size_t all_images;      /* of all ranks; 0: not known */
    size_t rollout_batch, rollout_steps;
    size_t evaluated,
        eval_batch; /* images of an evaluation: of this rank; at once (0: as many as rollout_batch) */
    mbl_guidance_t guidance; /* of evaluations; without its negative prompt */
    mbl_solver_t solver;
    size_t train_batch, timesteps; /* trained on, of every image */
    size_t again;                  /* blocks made again in backward passes (model/dit.h) */
    size_t decoder, text; /* bytes of the image decoder, and of the text encoders while prompts are encoded */
    mbl_vae_config_t vae; /* blocks 0: none; and how it decodes (model/pipeline.h) */
    size_t decode_bytes, decode_tile;
    char *folder; /* with the configurations of the text encoders, */
    mbl_text_options_t text_options;
    size_t encoded;               /* and prompts of a rank that they encode (0: none) */
    size_t inner_epochs, updates; /* passes over an epoch, optimizer steps in each */
    bool kl, kl_apart;            /* a reference pass too; and a backward pass of the KL term's own */
    bool merge, merged; /* there is room to merge the rollout policy for the rollout; which runs so */
} mbl_plan_shape_t;

/* The transformer of a config.json, for latents of another side (0: its own). */
mbl_status_t mbl_plan_read_model(const char *path, size_t side, mbl_plan_shape_t *out);
/* The shape of a configuration on `ranks` ranks, from the files of its model that hold sizes (transformer/
 * and tokenizer/), with micro-batches that fit into `memory` bytes of a device. Free with
 * mbl_plan_shape_free. */
mbl_status_t mbl_plan_shape(const mbl_config_t *config, size_t ranks, double memory, mbl_plan_shape_t *out);
void mbl_plan_shape_free(mbl_plan_shape_t *shape);

/* Unit by unit: merging the rollout policy and measuring what that does; all solver steps of a rollout
 * micro-batch; a training micro-batch (forward passes of old, reference and current adapter, loss, backward
 * passes of reward and common part, and of the KL term); an optimizer step beside them; a rollout
 * micro-batch's images decoded. `times` of it make an epoch, of which the last may not be full. Before all
 * epochs, prompts that are encoded at once. */
typedef enum {
    MBL_PLAN_MERGE,
    MBL_PLAN_ROLLOUT,
    MBL_PLAN_TRAIN,
    MBL_PLAN_UPDATE,
    MBL_PLAN_METHOD, /* those before are run by plan/setup.h, */
    MBL_PLAN_DECODE = MBL_PLAN_METHOD,
    MBL_PLAN_PHASES, /* those before are of an epoch */
    MBL_PLAN_TEXT = MBL_PLAN_PHASES,
    MBL_PLAN_COUNTS
} mbl_plan_phase_t;
extern const char *const mbl_plan_phase_names[MBL_PLAN_COUNTS];
typedef struct {
    mbl_cost_item_t *item;
    size_t n, times;
    double share; /* of the images in `times` full micro-batches, that there are */
} mbl_plan_count_t;

/* Bytes on the device. */
typedef struct {
    size_t weights, prompts, adapters, gradients, rollout, train, evaluation;
    size_t scratch; /* shared by all operations, and cublasLt's workspace */
    size_t decoder; /* of images */
    size_t peak;    /* all of it */
    size_t text;    /* text encoders, beside the weights alone: prompts are encoded before the rest is made */
} mbl_plan_memory_t;

/* Launches of one block of a kind (mbl_dit_block_kind) in a forward pass without gradients. */
typedef struct {
    const mbl_dit_block_kind_t *kind;
    size_t merged, apart; /* without an adapter or with one in the weights; with one beside them */
} mbl_plan_launches_t;

/* A collective of an optimizer step, as its own code asks for it. */
typedef struct {
    size_t bytes; /* what this rank puts in, or (of gathering) what comes out */
    bool large;   /* a vector on the device; else a few numbers */
    bool hidden;  /* begun before the last backward pass */
} mbl_plan_message_t;
enum { MBL_PLAN_MESSAGES = 32 };

typedef struct {
    mbl_plan_message_t message[MBL_PLAN_MESSAGES];
    size_t messages;
    mbl_plan_count_t phase[MBL_PLAN_COUNTS];
    mbl_plan_memory_t memory;
    mbl_plan_launches_t block[MBL_DIT_BLOCK_KINDS];
    size_t block_kinds;
} mbl_plan_t;

/* Free with mbl_plan_free. */
mbl_status_t mbl_plan(const mbl_plan_shape_t *shape, mbl_plan_t *out);
void mbl_plan_free(mbl_plan_t *plan);

#endif
