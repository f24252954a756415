/* A diffusion transformer of whichever family: all that the rest of the code knows of one. Which families
 * there are is in dit_list.h, what a family provides in dit_family.h.
 *
 * All weights lie in one flat vector in the order of mbl_dit_param, so that optimizers, averages and
 * checkpoints see a vector. A configuration is what diffusers' config.json holds, as a JSON object. */
#ifndef MBL_MODEL_DIT_H
#define MBL_MODEL_DIT_H

#include "ops/ops.h"

#include <jansson.h>

typedef struct mbl_dit mbl_dit_t;
typedef struct mbl_lora mbl_lora_t;       /* lora.h */
typedef struct mbl_adapter mbl_adapter_t; /* lora.h */

enum { MBL_DIT_MAX_BLOCKS = 64, MBL_DIT_BLOCK_KINDS = 2 };

/* ---- configurations ---- */

/* What a configuration says of sizes. */
typedef struct {
    size_t channels, out_channels, side; /* of latents in, of the velocity; height and width of both */
    size_t patch, most_side;             /* other heights and widths are multiples of patch up to most_side */
    size_t tokens;                       /* of an image */
    size_t context_width, pooled_width;  /* of the conditions */
    size_t blocks, width, heads;
} mbl_dit_sizes_t;

/* Checks a configuration; `where` is its file, for messages: ERR_CONFIG with file, key, found, expected. */
mbl_status_t mbl_dit_config_sizes(const char *where, const json_t *config, mbl_dit_sizes_t *out);
/* Reads a config.json and checks it. Free with json_decref. */
mbl_status_t mbl_dit_config_read(const char *path, json_t **out);
/* For latents of another side. */
mbl_status_t mbl_dit_config_resize(json_t *config, size_t side);
/* The published model that has this configuration, for people to read; NULL: none that is known. */
const char *mbl_dit_title(const json_t *config);
/* The blocks of a family are of a few kinds. Name and title ("two attentions") of kind i, NULL past the last
 * (at most MBL_DIT_BLOCK_KINDS), and the same model with `blocks` blocks: the first has every linear that
 * adapters may name, the others but the last are of that kind. Free with json_decref. */
typedef struct {
    const char *name, *title;
} mbl_dit_block_kind_t;
const mbl_dit_block_kind_t *mbl_dit_block_kind(const json_t *config, size_t i);
mbl_status_t mbl_dit_config_of_kind(const json_t *config, size_t kind, size_t blocks, json_t **out);

/* ---- models ---- */

/* A model whose weights come from `folder` (config.json and safetensors, sharded or not), held in dtype (f32,
 * bf16, f64). A missing tensor or wrong shape is ERR_FORMAT with file, tensor, found, wanted. */
mbl_status_t mbl_dit_open(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder, mbl_dit_t **out);
/* A fresh model, initialised as its family is for training from scratch; seeded, and the same for every
 * dtype. */
mbl_status_t mbl_dit_new(mbl_ops_t *ops, mbl_dtype_t dtype, const json_t *config, uint64_t seed,
                         mbl_dit_t **out);
/* A model whose weights are all zero: for counting with shapes alone (ops/cost_model.h). */
mbl_status_t mbl_dit_blank(mbl_ops_t *ops, mbl_dtype_t dtype, const json_t *config, mbl_dit_t **out);
void mbl_dit_close(mbl_dit_t *model);

const mbl_dit_sizes_t *mbl_dit_sizes(const mbl_dit_t *model);
const char *mbl_dit_class(const mbl_dit_t *model); /* of diffusers */
mbl_dtype_t mbl_dit_dtype(const mbl_dit_t *model); /* the compute type */

/* One tensor of the flat vector: diffusers' name, shape, where it lies. */
typedef struct {
    char name[96];
    int ndim;
    size_t dim[4], offset, count;
    bool trained; /* false for buffers, such as tables of positions */
} mbl_param_t;
size_t mbl_dit_param_count(const mbl_dit_t *model); /* tensors */
const mbl_param_t *mbl_dit_param(const mbl_dit_t *model, size_t i);

const mbl_tensor_t *mbl_dit_weights(const mbl_dit_t *model); /* flat [P] in the compute type */
/* Sets the compute-type weights from a flat f32 (or f64) vector [P] in the backend's memory space:
 * pretraining's master copy. */
mbl_status_t mbl_dit_set_weights(mbl_dit_t *model, const mbl_tensor_t *master);
/* Initial flat master vector [P] f32 (f64 for f64) of this model's weights. */
mbl_status_t mbl_dit_get_weights(const mbl_dit_t *model, const mbl_tensor_t *master);
/* Writes config.json and diffusion_pytorch_model.safetensors in `dtype` (f32 or bf16) from a flat f32 host
 * vector [P]. */
mbl_status_t mbl_dit_save(const mbl_dit_t *model, const float *weights, mbl_dtype_t dtype,
                          const char *folder);

/* A linear of the blocks, y = W x + b: what an adapter may sit on. Linears of one group have one input, and
 * their W lie side by side in the flat vector, so that one product computes them all. Groups count up along
 * the list. */
enum { MBL_DIT_GROUP = 3 };
typedef struct {
    char name[96];    /* "transformer_blocks.0.attn.to_q"; its weight is the parameter NAME.weight */
    size_t kind;      /* where in the name the kind of linear begins: "attn.to_q" */
    size_t in, out;   /* W [out, in] */
    size_t weight;    /* where W lies in the flat vector */
    size_t block;     /* where in the model: a gradient comes from the last block down to this one */
    size_t group, of; /* and how many linears the group has, at most MBL_DIT_GROUP */
    size_t at;        /* which of them this is */
} mbl_dit_linear_t;
size_t mbl_dit_linear_count(const mbl_dit_t *model);
const mbl_dit_linear_t *mbl_dit_linear(const mbl_dit_t *model, size_t i);

/* ---- forward and backward ---- */

/* What a transformer is given of n prompts, in the compute type: context [n,Tc,context_width], pooled
 * [n,pooled_width]. Where only some of them are on the device, `row` [n] says in which row of the tensors a
 * prompt is (MBL_CONDITIONS_NONE: not there), and mbl_conditions_gather alone may be given them. */
typedef struct {
    size_t n;
    mbl_tensor_t context, pooled;
    const uint32_t *row; /* NULL: prompt i is row i */
} mbl_conditions_t;
#define MBL_CONDITIONS_NONE UINT32_MAX
/* Room for n prompts of `tokens` tokens. Free with mbl_conditions_free, also after a failure. */
mbl_status_t mbl_conditions_new(const mbl_dit_t *model, size_t n, size_t tokens, mbl_conditions_t *out);
/* The same for any model that takes them so wide, in the compute type dtype. */
mbl_status_t mbl_conditions_sized(mbl_ops_t *ops, mbl_dtype_t dtype, size_t n, size_t tokens, size_t width,
                                  size_t pooled, mbl_conditions_t *out);
void mbl_conditions_free(mbl_ops_t *ops, mbl_conditions_t *conditions);
/* A view of n of the prompts from `first` on. */
mbl_conditions_t mbl_conditions_rows(const mbl_conditions_t *conditions, size_t first, size_t n);
/* Rows index[0..out->n-1] of `all` into `out`. */
mbl_status_t mbl_conditions_gather(mbl_ops_t *ops, const mbl_conditions_t *all, const uint32_t *index,
                                   const mbl_conditions_t *out);

typedef struct {
    const mbl_tensor_t *x;              /* [N,C,H,W] f32 (f64): noisy latents or images */
    const mbl_tensor_t *t;              /* [N] f32 (f64): time (= sigma) in [0,1]; the model sees 1000 t */
    const mbl_conditions_t *conditions; /* of N prompts */
    uint64_t skip; /* bit i: block i is left out (skip-layer guidance); on tapes without gradient alone */
} mbl_dit_input_t;

/* What backward needs, for up to max_n samples of one image size and token count. FULL: for the gradient
 * of all weights, LORA: for that of adapters. A pass without gradient takes NONE (much smaller: buffers are
 * reused between blocks). */
typedef struct mbl_tape mbl_tape_t;
typedef enum { MBL_TAPE_NONE, MBL_TAPE_LORA, MBL_TAPE_FULL } mbl_tape_kind_t;
mbl_status_t mbl_tape_new(const mbl_dit_t *model, const mbl_lora_t *lora, mbl_tape_kind_t kind, size_t max_n,
                          size_t height, size_t width, size_t context_tokens, mbl_tape_t **out);
void mbl_tape_free(mbl_tape_t *tape);
size_t mbl_tape_bytes(const mbl_tape_t *tape);
/* The same by a struct, with activation checkpointing: of the first `again` blocks (all, where there are
 * fewer) only the inputs are kept, and every backward pass makes the rest again. The same numbers to the
 * bit, in less memory and more time. */
typedef struct {
    mbl_tape_kind_t kind;
    size_t max_n, height, width, context_tokens, again;
} mbl_tape_shape_t;
mbl_status_t mbl_tape_new_of(const mbl_dit_t *model, const mbl_lora_t *lora, const mbl_tape_shape_t *shape,
                             mbl_tape_t **out);
/* mbl_tape_bytes of the tape that mbl_tape_new_of would make. */
mbl_status_t mbl_tape_count(const mbl_dit_t *model, const mbl_lora_t *lora, const mbl_tape_shape_t *shape,
                            size_t *bytes);

/* v [N,C_out,H,W] f32 (f64) = velocity. adapter NULL: the base alone. Local; allocates nothing. */
mbl_status_t mbl_dit_forward(mbl_dit_t *model, const mbl_adapter_t *adapter, const mbl_dit_input_t *input,
                             mbl_tape_t *tape, const mbl_tensor_t *v);

/* Back-propagates dv [N,C_out,H,W] f32 (f64) through the last forward of `tape` (which keeps its activations:
 * several backward passes may follow one forward). `model`, `adapter` and `input` as in that forward. */
typedef struct {
    /* LoRA: sets[k,:] (f64 [K,P], rows may be strided) += sum_i coefficient[k,i] dL_i/d(adapter), coefficient
     * [K,N] f32 on the backend. */
    const mbl_tensor_t *sets, *coefficient;
    /* all weights: grad [P] st += (NULL in LoRA passes) */
    const mbl_tensor_t *full;
} mbl_gradient_sink_t;
mbl_status_t mbl_dit_backward(mbl_dit_t *model, const mbl_adapter_t *adapter, const mbl_dit_input_t *input,
                              mbl_tape_t *tape, const mbl_tensor_t *dv, const mbl_gradient_sink_t *sink);

#endif
