/* What a family of transformers provides, and what models and tapes of all families begin with. For files of
 * src/model only. */
#ifndef MBL_MODEL_DIT_FAMILY_H
#define MBL_MODEL_DIT_FAMILY_H

#include "model/dit.h"
#include "model/dit_list.h"

typedef struct {
    const char *class_name;                 /* _class_name of its config.json */
    const mbl_dit_block_kind_t *block_kind; /* [MBL_DIT_BLOCK_KINDS] at most, then one without a name */
    const char *prefix;                     /* with which the names of all linears of blocks begin */
    const char *const *targets; /* the kinds of linear that are adapted where nothing is said; NULL ends */

    /* mbl_dit_config_sizes and mbl_dit_config_of_kind, of which `out` is a copy to change. */
    mbl_status_t (*sizes)(const char *where, const json_t *config, mbl_dit_sizes_t *out);
    mbl_status_t (*of_kind)(json_t *out, size_t kind, size_t blocks);
    /* mbl_dit_title of a configuration that was checked. */
    const char *(*title)(const json_t *config);

    /* A model with table, params and linears filled in, but no weights; ops and dtype are those given. */
    mbl_status_t (*create)(mbl_ops_t *ops, mbl_dtype_t dtype, const char *where, const json_t *config,
                           mbl_dit_t **out);
    /* Frees what create made beyond params, linears and the model itself. */
    void (*clear)(mbl_dit_t *model);
    /* The config.json of a model, in diffusers' words; NULL without memory. */
    json_t *(*config)(const mbl_dit_t *model);
    /* Fresh values of parameter i, f32 (f64 in f64 models). */
    void (*fresh)(const mbl_dit_t *model, size_t i, uint64_t seed, void *values);

    /* As in dit.h. */
    mbl_status_t (*tape_new)(const mbl_dit_t *model, const mbl_lora_t *lora, const mbl_tape_shape_t *shape,
                             mbl_tape_t **out);
    void (*tape_free)(mbl_tape_t *tape);
    mbl_status_t (*tape_count)(const mbl_dit_t *model, const mbl_lora_t *lora, const mbl_tape_shape_t *shape,
                               size_t *bytes);
    mbl_status_t (*forward)(mbl_dit_t *model, const mbl_adapter_t *adapter, const mbl_dit_input_t *input,
                            mbl_tape_t *tape, const mbl_tensor_t *v);
    mbl_status_t (*backward)(mbl_dit_t *model, const mbl_adapter_t *adapter, const mbl_dit_input_t *input,
                             mbl_tape_t *tape, const mbl_tensor_t *dv, const mbl_gradient_sink_t *sink);
} mbl_dit_table_t;

/* A model with its weights still zero; `where` is what config came from, for messages (dit.c). */
mbl_status_t mbl_dit_create(mbl_ops_t *ops, mbl_dtype_t dtype, const char *where, const json_t *config,
                            mbl_dit_t **out);

#define MBL_DIT_DECLARE(name) extern const mbl_dit_table_t mbl_dit_##name;
MBL_DIT_LIST(MBL_DIT_DECLARE)
#undef MBL_DIT_DECLARE

/* A family's model begins with this one. */
struct mbl_dit {
    const mbl_dit_table_t *table;
    mbl_ops_t *ops;
    mbl_dtype_t dtype;
    mbl_dit_sizes_t sizes;
    mbl_param_t *params;
    size_t n_params, n_weights;
    mbl_dit_linear_t *linears;
    size_t n_linears, n_groups;
    mbl_tensor_t weights;
    uint64_t version; /* counts mbl_dit_set_weights, for what tapes keep of the weights */
};

/* And its tape with this one. */
struct mbl_tape {
    const mbl_dit_t *model;
    size_t bytes;
};

static inline void *mbl_element(const mbl_tensor_t *t, size_t offset) {
    return (char *)t->data + offset * mbl_dtype_size(t->dtype);
}
/* A vector and a matrix inside a flat vector. */
static inline mbl_tensor_t mbl_flat_vector(const mbl_tensor_t *flat, size_t offset, size_t n) {
    return mbl_tensor_of(mbl_element(flat, offset), flat->dtype, flat->space, 1, n);
}
static inline mbl_tensor_t mbl_flat_matrix(const mbl_tensor_t *flat, size_t offset, size_t rows,
                                           size_t columns) {
    return mbl_tensor_of(mbl_element(flat, offset), flat->dtype, flat->space, 2, rows, columns);
}

#endif
