/* The MM-DiT of Stable Diffusion 3 and 3.5 (diffusers' SD3Transformer2DModel): weights, LoRA adapters,
 * forward, backward.
 *
 * All weights lie in one flat vector in the order of mbl_mmdit_param, so that optimizers, averages and
 * checkpoints see a vector; to_q, to_k, to_v (and add_*_proj) of a block are adjacent, so that one product
 * computes all three. */
#ifndef MBL_MODEL_MMDIT_H
#define MBL_MODEL_MMDIT_H

#include "ops/ops.h"

enum { MBL_MMDIT_MAX_LAYERS = 64, MBL_LORA_MAX_TARGETS = 64, MBL_LORA_TARGET_SIZE = 64 };

/* config.json of the transformer folder. */
typedef struct {
    size_t sample_size, patch_size, in_channels, out_channels, num_layers, attention_head_dim,
        num_attention_heads;
    size_t joint_attention_dim, caption_projection_dim, pooled_projection_dim, pos_embed_max_size;
    bool dual_attention[MBL_MMDIT_MAX_LAYERS]; /* dual_attention_layers */
    bool qk_norm;                              /* "rms_norm" or null */
} mbl_mmdit_config_t;

/* Reads and checks config.json (ERR_CONFIG: file, key, found, right), and writes one that diffusers reads. */
mbl_status_t mbl_mmdit_config_read(const char *path, mbl_mmdit_config_t *out);
mbl_status_t mbl_mmdit_config_write(const char *path, const mbl_mmdit_config_t *config);

/* One tensor of the flat vector: diffusers' name, shape, place. */
typedef struct {
    char name[96];
    int ndim;
    size_t dim[4], offset, count;
    bool trained; /* false for buffers (pos_embed.pos_embed) */
} mbl_param_t;

typedef struct mbl_mmdit mbl_mmdit_t;

/* A model whose weights come from `folder` (config.json and safetensors, sharded or not), held in dtype (f32,
 * bf16, f64). A missing tensor or wrong shape is ERR_FORMAT with file, tensor, found, wanted. */
mbl_status_t mbl_mmdit_open(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder, mbl_mmdit_t **out);
/* A fresh model, initialised as diffusers does for SD3 training from scratch: Xavier for linears, zeros for
 * adaLN (norm*.linear) and proj_out, sin-cos positions; seeded. */
mbl_status_t mbl_mmdit_new(mbl_ops_t *ops, mbl_dtype_t dtype, const mbl_mmdit_config_t *config, uint64_t seed,
                           mbl_mmdit_t **out);
/* A model whose weights are all zero: for counting with shapes alone (ops/cost_model.h). */
mbl_status_t mbl_mmdit_blank(mbl_ops_t *ops, mbl_dtype_t dtype, const mbl_mmdit_config_t *config,
                             mbl_mmdit_t **out);
void mbl_mmdit_close(mbl_mmdit_t *model);

const mbl_mmdit_config_t *mbl_mmdit_config(const mbl_mmdit_t *model);
size_t mbl_mmdit_param_count(const mbl_mmdit_t *model); /* tensors */
const mbl_param_t *mbl_mmdit_param(const mbl_mmdit_t *model, size_t i);
const mbl_tensor_t *mbl_mmdit_weights(const mbl_mmdit_t *model); /* flat [P] in the compute type */
/* Sets the compute-type weights from a flat f32 (or f64) vector [P] in the backend's memory space:
 * pretraining's master copy. */
mbl_status_t mbl_mmdit_set_weights(mbl_mmdit_t *model, const mbl_tensor_t *master);
/* Initial flat master vector [P] f32 (f64 for f64) of this model's weights. */
mbl_status_t mbl_mmdit_get_weights(const mbl_mmdit_t *model, const mbl_tensor_t *master);
/* Writes config.json and diffusion_pytorch_model.safetensors in `dtype` (f32 or bf16) from a flat f32 host
 * vector [P]. */
mbl_status_t mbl_mmdit_save(const mbl_mmdit_t *model, const float *weights, mbl_dtype_t dtype,
                            const char *folder);

/* ---- LoRA: y = W x + b + (alpha / rank) B A x on the named linears ---- */

typedef struct {
    size_t rank;
    double alpha;
    size_t
        n_targets; /* 0: all of attn.{to_q,to_k,to_v,to_out.0,add_q_proj,add_k_proj,add_v_proj,to_add_out} */
    char targets[MBL_LORA_MAX_TARGETS][MBL_LORA_TARGET_SIZE];
} mbl_lora_config_t;

/* The layout of adapters for a model: which linears, where A [rank,in] and B [out,rank] of each lie in a flat
 * vector. The two of a site have the names PEFT gives them ("transformer_blocks.0.attn.to_q.lora_A.weight").
 */
typedef struct mbl_lora mbl_lora_t;
mbl_status_t mbl_lora_new(const mbl_mmdit_t *model, const mbl_lora_config_t *config, mbl_lora_t **out);
void mbl_lora_free(mbl_lora_t *lora);
size_t mbl_lora_size(const mbl_lora_t *lora); /* length P of the flat vector */
size_t mbl_lora_param_count(const mbl_lora_t *lora);
const mbl_param_t *mbl_lora_param(const mbl_lora_t *lora, size_t i);
const mbl_lora_config_t *mbl_lora_config(const mbl_lora_t *lora);
/* Fresh values into a host vector [P]: A normal(0, 1/rank) ("gaussian"), B zero. Seeded. */
void mbl_lora_init(const mbl_lora_t *lora, uint64_t seed, float *out);

/* One adapter's values ready for computing: current, old, EMA are three of these; the reference is NULL. */
typedef struct {
    const mbl_lora_t *lora;
    mbl_tensor_t weights;  /* flat [P] in the compute type, as given: not times alpha / rank */
    mbl_tensor_t scaled_a; /* the A of all sites (they come first in the vector) times alpha / rank */
    mbl_tensor_t merged;   /* W + (alpha / rank) B A of every linear beside an adapted one; empty: none */
} mbl_adapter_t;
mbl_status_t mbl_adapter_new(const mbl_mmdit_t *model, const mbl_lora_t *lora, mbl_adapter_t *out);
void mbl_adapter_free(const mbl_mmdit_t *model, mbl_adapter_t *adapter);
/* From a flat f32 (f64) vector [P] in the backend's memory space. */
mbl_status_t mbl_adapter_set(const mbl_mmdit_t *model, mbl_adapter_t *adapter, const mbl_tensor_t *values);

/* The values of `of`, shared with it, and room for the weights of its linears with the adapter in them:
 * passes without gradient multiply by those alone, other passes as with `of`. Fill with mbl_adapter_merge;
 * free with mbl_adapter_free before `of`. */
mbl_status_t mbl_adapter_merged_new(const mbl_mmdit_t *model, const mbl_adapter_t *of, mbl_adapter_t *out);
/* After `of` or the model's weights have changed. Sums are rounded once, to the compute type: in bf16 an
 * adapter that is small beside its weights is lost in part. */
mbl_status_t mbl_adapter_merge(const mbl_mmdit_t *model, mbl_adapter_t *merged);

/* ---- forward and backward ---- */

typedef struct {
    const mbl_tensor_t *x;       /* [N,C,H,W] f32 (f64): noisy latents or images */
    const mbl_tensor_t *t;       /* [N] f32 (f64): time (= sigma) in [0,1]; the model sees 1000 t */
    const mbl_tensor_t *context; /* [N,Tc,joint_attention_dim] ct */
    const mbl_tensor_t *pooled;  /* [N,pooled_projection_dim] ct */
} mbl_mmdit_input_t;

/* What backward needs, for up to max_n samples of one image size and token count. `full`: for the gradient
 * of all weights, else for LoRA. A pass without gradient takes one made with `keep` false (much smaller:
 * buffers are reused between layers). */
typedef struct mbl_tape mbl_tape_t;
typedef enum { MBL_TAPE_NONE, MBL_TAPE_LORA, MBL_TAPE_FULL } mbl_tape_kind_t;
mbl_status_t mbl_tape_new(const mbl_mmdit_t *model, const mbl_lora_t *lora, mbl_tape_kind_t kind,
                          size_t max_n, size_t height, size_t width, size_t context_tokens, mbl_tape_t **out);
void mbl_tape_free(mbl_tape_t *tape);
size_t mbl_tape_bytes(const mbl_tape_t *tape);
/* mbl_tape_bytes of the tape that mbl_tape_new would make. */
mbl_status_t mbl_tape_count(const mbl_mmdit_t *model, const mbl_lora_t *lora, mbl_tape_kind_t kind,
                            size_t max_n, size_t height, size_t width, size_t context_tokens, size_t *bytes);

/* v [N,C_out,H,W] f32 (f64) = velocity. adapter NULL: the base alone. Local; allocates nothing. */
mbl_status_t mbl_mmdit_forward(mbl_mmdit_t *model, const mbl_adapter_t *adapter,
                               const mbl_mmdit_input_t *input, mbl_tape_t *tape, const mbl_tensor_t *v);

/* Back-propagates dv [N,C_out,H,W] f32 (f64) through the last forward of `tape` (which keeps its activations:
 * several backward passes may follow one forward). `model`, `adapter` and `input` as in that forward. */
typedef struct {
    /* LoRA: sets[k,:] (f64 [K,P], rows may be strided) += sum_i coefficient[k,i] dL_i/d(adapter), coefficient
     * [K,N] f32 on the backend. */
    const mbl_tensor_t *sets, *coefficient;
    /* all weights: grad [P] st += (NULL in LoRA passes) */
    const mbl_tensor_t *full;
} mbl_gradient_sink_t;
mbl_status_t mbl_mmdit_backward(mbl_mmdit_t *model, const mbl_adapter_t *adapter,
                                const mbl_mmdit_input_t *input, mbl_tape_t *tape, const mbl_tensor_t *dv,
                                const mbl_gradient_sink_t *sink);

#endif
