/* Weights of text encoders: from the file to the device in the compute type, all at once or a group at a
 * time. */
#include "model/text/weights.h"
#include "base/mem.h"
#include "model/st_check.h"
#include "model/staging.h"

#include <stdio.h>
#include <string.h>

enum { ALIGNMENT = 32 }; /* elements between the beginnings of parameters: at least 64 bytes */

struct mbl_text_weights {
    mbl_ops_t *ops;
    mbl_dtype_t dtype;
    mbl_st_t *st; /* NULL: blank, nothing is read */
    char *folder;
    mbl_text_spec_t spec;
    size_t n_groups;
    bool low_memory, ready; /* ready: the buffers are there, and without low_memory the weights */
    size_t here;            /* low_memory: the group that is on the device; n_groups: none */
    mbl_tensor_t *groups;   /* [n_groups]; low_memory: one for all */
};

/* ---- layout ---- */

void mbl_text_place(mbl_text_layout_t *layout, const char *name, size_t rows, size_t cols, double std,
                    bool follows) {
    mbl_text_param_t *p = layout->next++;
    if (!follows)
        layout->used = (layout->used + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    *p = (mbl_text_param_t){.ndim = cols ? 2 : 1,
                            .dim = {rows, cols},
                            .offset = layout->used,
                            .group = layout->group,
                            .std = std};
    snprintf(p->name, sizeof p->name, "%s", name);
    layout->used += rows * (cols ? cols : 1);
}

static size_t count_of(const mbl_text_param_t *p) {
    return p->dim[0] * (p->ndim == 2 ? p->dim[1] : 1);
}

/* First and last + 1 of a group's parameters. */
static void group_range(const mbl_text_weights_t *w, size_t group, size_t *first, size_t *last) {
    size_t i = 0;
    while (i < w->spec.n && w->spec.params[i].group < group)
        i++;
    *first = i;
    while (i < w->spec.n && w->spec.params[i].group == group)
        i++;
    *last = i;
}

/* Elements from a group's first to its last. */
static size_t group_size(const mbl_text_weights_t *w, size_t group) {
    size_t first, last;
    group_range(w, group, &first, &last);
    return w->spec.params[last - 1].offset + count_of(&w->spec.params[last - 1]) -
           w->spec.params[first].offset;
}

/* ---- reading ---- */

static mbl_status_t check_param(const mbl_text_weights_t *w, const mbl_text_param_t *p) {
    const mbl_st_entry_t *entry = mbl_st_find(w->st, p->name);
    if (entry && !mbl_st_has_shape(entry, p->ndim, p->dim))
        return MBL_FAIL(MBL_ERR_FORMAT, "%s: tensor %s: %d dimensions %zu x %zu; expected %zu x %zu",
                        w->folder, p->name, entry->ndim, entry->ndim > 0 ? entry->dim[0] : 1,
                        entry->ndim > 1 ? entry->dim[1] : 1, p->dim[0], p->ndim == 2 ? p->dim[1] : 1);
    return mbl_st_check_shape(w->st, w->folder, p->name, p->ndim, p->dim);
}

static bool is_wanted(const void *context, const char *name) {
    const mbl_text_weights_t *w = context;
    for (size_t i = 0; w->spec.ignored && w->spec.ignored[i]; i++)
        if (strcmp(w->spec.ignored[i], name) == 0)
            return true;
    for (size_t i = 0; i < w->spec.n; i++)
        if (strcmp(w->spec.params[i].name, name) == 0)
            return true;
    return false;
}

static mbl_status_t read_group(mbl_text_weights_t *w, size_t group, const mbl_tensor_t *to) {
    size_t first, last;
    group_range(w, group, &first, &last);
    for (size_t i = first; i < last; i++)
        MBL_TRY(mbl_staging_load(w->ops, w->st, w->spec.params[i].name, to,
                                 w->spec.params[i].offset - w->spec.params[first].offset));
    return MBL_OK;
}

static mbl_status_t make_buffers(mbl_text_weights_t *w) {
    size_t widest = 0;
    for (size_t g = 0; g < w->n_groups; g++) {
        widest = group_size(w, g) > widest ? group_size(w, g) : widest;
        if (!w->low_memory)
            MBL_TRY(mbl_tensor_new(w->ops, w->dtype, &w->groups[g], 1, group_size(w, g)));
    }
    return w->low_memory ? mbl_tensor_new(w->ops, w->dtype, &w->groups[0], 1, widest) : MBL_OK;
}

static void free_buffers(mbl_text_weights_t *w) {
    for (size_t g = 0; w->groups && g < w->n_groups; g++)
        mbl_tensor_free(w->ops, &w->groups[g]);
}

static mbl_status_t check_file(mbl_text_weights_t *w) {
    for (size_t i = 0; i < w->spec.n; i++)
        MBL_TRY(check_param(w, &w->spec.params[i]));
    MBL_TRY(mbl_st_check_unused(w->st, w->folder, is_wanted, w, w->spec.hint));
    mbl_st_log_choice(w->st);
    return MBL_OK;
}

/* A failure leaves nothing. */
static mbl_status_t load(mbl_text_weights_t *w) {
    mbl_ops_part(w->ops, "a text encoder's weights",
                 w->low_memory ? "precision: bf16" : "model.low_memory: on");
    mbl_status_t status = make_buffers(w);
    mbl_ops_part(w->ops, "a text encoder's activations", "a smaller prompts.max_tokens");
    for (size_t g = 0; status == MBL_OK && w->st && !w->low_memory && g < w->n_groups; g++)
        status = read_group(w, g, &w->groups[g]);
    if (status != MBL_OK)
        free_buffers(w);
    w->ready = status == MBL_OK;
    return status;
}

mbl_status_t mbl_text_weights_blank(mbl_ops_t *ops, mbl_dtype_t dtype, const mbl_text_spec_t *spec,
                                    mbl_text_weights_t **out) {
    mbl_status_t status;
    mbl_text_weights_t *w;
    MBL_ALLOC(w, 1);
    w->ops = ops;
    w->dtype = dtype;
    w->spec = *spec;
    w->here = w->n_groups = spec->params[spec->n - 1].group + 1;
    MBL_ALLOC_GOTO(w->groups, w->n_groups, failed);
    *out = w;
    return MBL_OK;
failed:
    mbl_text_weights_close(w);
    return status;
}

mbl_status_t mbl_text_weights_open(mbl_ops_t *ops, mbl_dtype_t dtype, const char *folder,
                                   const mbl_text_spec_t *spec, bool low_memory, mbl_text_weights_t **out) {
    mbl_status_t status;
    mbl_text_weights_t *w;
    MBL_TRY(mbl_text_weights_blank(ops, dtype, spec, &w));
    w->low_memory = low_memory;
    if (!(w->folder = mbl_strdup(folder))) {
        status = MBL_FAIL(MBL_ERR_MEM, "%s: no memory for its name", folder);
        goto done;
    }
    MBL_TRY_GOTO(mbl_st_open(folder, &w->st), done);
    MBL_TRY_GOTO(check_file(w), done);
    *out = w;
    w = NULL;
done:
    mbl_text_weights_close(w);
    return status;
}

void mbl_text_weights_close(mbl_text_weights_t *w) {
    if (!w)
        return;
    free_buffers(w);
    mbl_free(w->groups);
    mbl_st_close(w->st);
    mbl_free(w->folder);
    mbl_free(w);
}

/* ---- use ---- */

mbl_status_t mbl_text_weights_need(mbl_text_weights_t *w, size_t group) {
    if (!w->ready)
        MBL_TRY(load(w));
    if (!w->low_memory || w->here == group)
        return MBL_OK;
    w->here = w->n_groups; /* a failure leaves none */
    MBL_TRY(read_group(w, group, &w->groups[0]));
    w->here = group;
    return MBL_OK;
}

mbl_tensor_t mbl_text_weight(const mbl_text_weights_t *w, size_t index, size_t rows) {
    const mbl_text_param_t *p = &w->spec.params[index];
    const mbl_tensor_t *group = &w->groups[w->low_memory ? 0 : p->group];
    size_t first, last;
    group_range(w, p->group, &first, &last);
    char *data = (char *)group->data + (p->offset - w->spec.params[first].offset) * mbl_dtype_size(w->dtype);
    rows = rows ? rows : p->dim[0];
    return p->ndim == 1 ? mbl_tensor_of(data, w->dtype, group->space, 1, rows)
                        : mbl_tensor_of(data, w->dtype, group->space, 2, rows, p->dim[1]);
}

const mbl_st_t *mbl_text_weights_file(const mbl_text_weights_t *w) {
    return w->st;
}

static mbl_tensor_t sample_of(const mbl_tensor_t *t, size_t i) {
    mbl_tensor_t one = mbl_tensor_rows(t, i, 1);
    one.ndim = 2;
    one.dim[0] = t->dim[1], one.dim[1] = t->dim[2];
    one.stride[0] = t->stride[1], one.stride[1] = t->stride[2];
    return one;
}

mbl_status_t mbl_text_product(mbl_ops_t *ops, const mbl_matmul_args_t *product) {
    for (size_t i = 0; i < product->y->dim[0]; i++) {
        mbl_tensor_t from = sample_of(product->a, i), to = sample_of(product->y, i);
        mbl_matmul_args_t one = *product;
        one.a = &from;
        one.y = &to;
        MBL_TRY(mbl_op_matmul(ops, &one));
    }
    return MBL_OK;
}

mbl_status_t mbl_text_store(mbl_ops_t *ops, const mbl_tensor_t *states, const mbl_tensor_t *out) {
    for (size_t i = 0; i < states->dim[0]; i++) {
        mbl_tensor_t from = sample_of(states, i), to = sample_of(out, i);
        MBL_TRY(MBL_OP(ops, convert, .dst = &to, .src = &from));
    }
    return MBL_OK;
}
