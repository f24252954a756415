/* LoRA: y = W x + b + (alpha / rank) B A x on linears of a transformer, chosen from its list (dit.h) by their
 * names. */
#ifndef MBL_MODEL_LORA_H
#define MBL_MODEL_LORA_H

#include "model/dit.h"

enum { MBL_LORA_MAX_TARGETS = 64, MBL_LORA_TARGET_SIZE = 64 };

typedef struct {
    size_t rank;
    double alpha;
    size_t n_targets; /* 0: those that the model's family adapts where nothing is said */
    char targets[MBL_LORA_MAX_TARGETS][MBL_LORA_TARGET_SIZE]; /* names of linears, or the ends of names after
                                                                 a dot, as PEFT matches them */
} mbl_lora_config_t;

/* The layout of adapters for a model: which linears, where A [rank,in] and B [out,rank] of each lie in a flat
 * vector: the A of all first, then the B, in the order of the model's list. The two of a linear have the
 * names PEFT gives them
 * ("transformer_blocks.0.attn.to_q.lora_A.weight"). The model outlives it. */
mbl_status_t mbl_lora_new(const mbl_dit_t *model, const mbl_lora_config_t *config, mbl_lora_t **out);
/* The same for vectors that `ranks` ranks share in shards of one length: every matrix lies in one shard
 * whole, so that there are holes (zeros) behind some. Only vectors on devices have them: parameters' offsets,
 * values in files and those of mbl_lora_init are without. */
mbl_status_t mbl_lora_new_sharded(const mbl_dit_t *model, const mbl_lora_config_t *config, size_t ranks,
                                  mbl_lora_t **out);
void mbl_lora_free(mbl_lora_t *lora);
size_t mbl_lora_ranks(const mbl_lora_t *lora);
size_t
mbl_lora_room(const mbl_lora_t *lora); /* length of a vector with holes, ranks * shard; P for one rank */
/* Which numbers of a vector without holes are in a rank's shard, from its beginning on: [first, last). */
void mbl_lora_range(const mbl_lora_t *lora, size_t rank, size_t *first, size_t *last);
/* A host vector [mbl_lora_room]: out of holes, to its beginning [P]; and back, with zeros in the holes. */
void mbl_lora_pack(const mbl_lora_t *lora, float *vector);
void mbl_lora_spread(const mbl_lora_t *lora, float *vector);
size_t mbl_lora_size(const mbl_lora_t *lora); /* length P of the flat vector */
size_t mbl_lora_param_count(const mbl_lora_t *lora);
const mbl_param_t *mbl_lora_param(const mbl_lora_t *lora, size_t i);
const mbl_lora_config_t *mbl_lora_config(const mbl_lora_t *lora);
/* An adapted linear: where it is in the model's list, and its A and B among the parameters. */
typedef struct {
    const mbl_dit_linear_t *linear;
    const mbl_param_t *a, *b;
} mbl_lora_pair_t;
size_t mbl_lora_pair_count(const mbl_lora_t *lora);
mbl_lora_pair_t mbl_lora_pair(const mbl_lora_t *lora, size_t i);
/* Fresh values into a host vector [P]: A normal(0, 1/rank) ("gaussian"), B zero. Seeded. */
void mbl_lora_init(const mbl_lora_t *lora, uint64_t seed, float *out);

/* One adapter's values ready for computing: current, old, EMA are three of these; the reference is NULL. */
struct mbl_adapter {
    const mbl_lora_t *lora;
    mbl_tensor_t weights;  /* flat [mbl_lora_room] in the compute type, as given: not times alpha / rank */
    mbl_tensor_t scaled_a; /* the A of all sites (they come first in the vector) times alpha / rank */
    mbl_tensor_t merged;   /* W + (alpha / rank) B A of every linear beside an adapted one; empty: none */
};
mbl_status_t mbl_adapter_new(const mbl_dit_t *model, const mbl_lora_t *lora, mbl_adapter_t *out);
void mbl_adapter_free(const mbl_dit_t *model, mbl_adapter_t *adapter);
/* From a flat f32 (f64) vector [mbl_lora_room] in the backend's memory space. */
mbl_status_t mbl_adapter_set(const mbl_dit_t *model, mbl_adapter_t *adapter, const mbl_tensor_t *values);

/* The values of `of`, shared with it, and room for the weights of its linears with the adapter in them:
 * passes without gradient multiply by those alone, other passes as with `of`. Fill with mbl_adapter_merge;
 * free with mbl_adapter_free before `of`. */
mbl_status_t mbl_adapter_merged_new(const mbl_dit_t *model, const mbl_adapter_t *of, mbl_adapter_t *out);
/* After `of` or the model's weights have changed. Sums are rounded once, to the compute type: in bf16 an
 * adapter that is small beside its weights is lost in part. */
mbl_status_t mbl_adapter_merge(const mbl_dit_t *model, mbl_adapter_t *merged);

#endif
