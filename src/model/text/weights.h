/* The frozen weights of a text encoder on the device: all of them, from when the first is needed, or, to save
 * memory, one group (a layer) at a time, read from the file when it is needed. And the product that encoders
 * are made of. */
#ifndef MBL_MODEL_TEXT_WEIGHTS_H
#define MBL_MODEL_TEXT_WEIGHTS_H

#include "model/safetensors.h"
#include "ops/ops.h"

typedef struct {
    char name[96];
    int ndim;
    size_t dim[2], offset; /* offset: in elements of one flat vector of all */
    size_t group;          /* what is on the device at one time: embeddings, a layer, the end; in order */
    double std;            /* of a fresh one: normal(0, std); 0 zeros, -1 ones */
} mbl_text_param_t;

/* Lays parameters out one behind the other. */
typedef struct {
    mbl_text_param_t *next;
    size_t used, group;
} mbl_text_layout_t;
/* cols 0: a vector. `follows`: lies right behind the one before, so that one product takes both. */
void mbl_text_place(mbl_text_layout_t *layout, const char *name, size_t rows, size_t cols, double std,
                    bool follows);

/* What an encoder asks its folder for; params [n] stay the caller's and must outlive the weights. */
typedef struct {
    const mbl_text_param_t *params;
    size_t n;
    const char *const *ignored; /* names that the folder may have besides, up to a NULL */
    const char *hint;           /* what in the configuration to look at where it has others */
} mbl_text_spec_t;

typedef struct mbl_text_weights mbl_text_weights_t;

/* Looks at the files alone: nothing is on the device before something is needed. Errors name folder, tensor,
 * found and expected shape. Close with mbl_text_weights_close. */
mbl_status_t mbl_text_weights_open(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder,
                                   const mbl_text_spec_t *spec, bool low_memory, mbl_text_weights_t **out);
/* The same without a folder: weights that nothing is read into, for counting (ops/cost_model.h). */
mbl_status_t mbl_text_weights_blank(mbl_ops_t *ops, mbl_dtype_t dtype, const mbl_text_spec_t *spec,
                                    mbl_text_weights_t **out);
void mbl_text_weights_close(mbl_text_weights_t *w);

/* Brings a group to the device; with low_memory in the place of the one before, else all of them. */
mbl_status_t mbl_text_weights_need(mbl_text_weights_t *w, size_t group);
/* A weight of a group that was needed, in the compute type; rows 0: as many as it has, else those of what
 * follows it, too. */
mbl_tensor_t mbl_text_weight(const mbl_text_weights_t *w, size_t index, size_t rows);
/* product->y [N,T,M] from a [N,T,D] and the rest of `product`, sample by sample: what a library makes of one
 * prompt may depend in its last bits on how many rows a product has, and must not depend on the prompts that
 * happen to be encoded with it. */
mbl_status_t mbl_text_product(mbl_ops_t *ops, const mbl_matmul_args_t *product);
/* States [N,T,D] to their place in a context: out [N,T,D], whose samples and rows may be strided. */
mbl_status_t mbl_text_store(mbl_ops_t *ops, const mbl_tensor_t *states, const mbl_tensor_t *out);
/* The open files, for what is read on the host; NULL for blank ones. */
const mbl_st_t *mbl_text_weights_file(const mbl_text_weights_t *w);

#endif
