/* A group of linears over one input, with their LoRA adapters: forward, and backward into the sink.
 *
 * With s = alpha / rank, H = X (sA)' is kept, so that y += H B', dB = dY' H, dH = dY B, dA = s dH' X and
 * dX += dH (sA): one scaled copy of A serves both ways. */
#include "model/mmdit_internal.h"

const mbl_lora_site_t *mbl_pass_site(const mbl_pass_t *p, const mbl_linear_t *linear) {
    if (!p->adapter || linear->id == MBL_NO_SITE)
        return NULL;
    const mbl_lora_site_t *site = &p->adapter->lora->site[linear->id];
    return site->m ? site : NULL;
}

static mbl_status_t lora_forward(const mbl_pass_t *p, const mbl_linear_t *linear, const mbl_lora_site_t *site,
                                 const mbl_tensor_t *y, const mbl_tensor_t *x, void *hidden) {
    size_t rank = p->adapter->lora->config.rank;
    mbl_tensor_t a = mbl_flat_matrix(&p->adapter->scaled_a, site->a, site->m * rank, linear->in);
    mbl_tensor_t h = mbl_pass_matrix(p, hidden, x->dim[0], site->m * rank);
    MBL_TRY(MBL_OP(p->ops, matmul, .y = &h, .a = x, .b = &a, .transpose_b = true));
    for (size_t j = 0; j < site->m; j++) {
        mbl_tensor_t b = mbl_flat_matrix(&p->adapter->weights, site->b[j], linear->out, rank);
        mbl_tensor_t yj = mbl_tensor_columns(y, site->which[j] * linear->out, linear->out);
        mbl_tensor_t hj = mbl_tensor_columns(&h, j * rank, rank);
        MBL_TRY(MBL_OP(p->ops, matmul, .y = &yj, .a = &hj, .b = &b, .transpose_b = true, .accumulate = true));
    }
    return MBL_OK;
}

mbl_status_t mbl_linear_forward(const mbl_pass_t *p, const mbl_linear_t *linear, void *y, void *x,
                                size_t tokens, void *hidden, mbl_act_t act) {
    const mbl_lora_site_t *site = mbl_pass_site(p, linear);
    size_t rows = p->n * tokens, out = linear->n * linear->out;
    mbl_tensor_t ym = mbl_pass_matrix(p, y, rows, out), xm = mbl_pass_matrix(p, x, rows, linear->in);
    mbl_tensor_t w = mbl_flat_matrix(&p->model->weights, linear->weight, out, linear->in);
    if (site && mbl_pass_merged(p)) {
        w = mbl_flat_matrix(&p->adapter->merged, site->merged, out, linear->in);
        site = NULL;
    }
    mbl_tensor_t bias = mbl_flat_vector(&p->model->weights, linear->bias, out);
    MBL_TRY(MBL_OP(p->ops, matmul, .y = &ym, .a = &xm, .b = &w, .bias = &bias, .transpose_b = true,
                   .act = site ? MBL_ACT_NONE : act));
    if (!site)
        return MBL_OK;
    MBL_TRY(lora_forward(p, linear, site, &ym, &xm, hidden));
    return act == MBL_ACT_NONE ? MBL_OK : MBL_OP(p->ops, act, .y = &ym, .x = &ym, .act = act);
}

/* The [K,rows,columns] part of the gradient sets that belongs to one matrix of an adapter. */
static mbl_tensor_t part_of_sets(const mbl_tensor_t *sets, size_t offset, size_t rows, size_t columns) {
    mbl_tensor_t part =
        mbl_tensor_of(mbl_element(sets, offset), sets->dtype, sets->place, 3, sets->dim[0], rows, columns);
    part.stride[0] = sets->stride[0];
    return part;
}

static mbl_status_t lora_gradient(const mbl_pass_t *p, const mbl_linear_t *linear,
                                  const mbl_lora_site_t *site, void *dy, void *x, size_t tokens,
                                  void *hidden) {
    const mbl_lora_config_t *config = &p->adapter->lora->config;
    const mbl_tensor_t *sets = p->sink->sets;
    size_t rank = config->rank, width = site->m * rank;
    mbl_tensor_t dyt = mbl_pass_rows(p, dy, tokens, linear->n * linear->out);
    mbl_tensor_t h = mbl_pass_rows(p, hidden, tokens, width), xt = mbl_pass_rows(p, x, tokens, linear->in);
    mbl_tensor_t dh = mbl_pass_rows(p, p->tape->d_lora, tokens, width);
    for (size_t j = 0; j < site->m; j++) {
        mbl_tensor_t acc = part_of_sets(sets, site->b[j], linear->out, rank);
        mbl_tensor_t dyj = mbl_tensor_columns(&dyt, site->which[j] * linear->out, linear->out);
        mbl_tensor_t hj = mbl_tensor_columns(&h, j * rank, rank);
        MBL_TRY(MBL_OP(p->ops, sample_grad, .acc = &acc, .a = &dyj, .b = &hj,
                       .coefficient = p->sink->coefficient, .factor = 1));
    }
    mbl_tensor_t acc = part_of_sets(sets, site->a, width, linear->in);
    return MBL_OP(p->ops, sample_grad, .acc = &acc, .a = &dh, .b = &xt, .coefficient = p->sink->coefficient,
                  .factor = config->alpha / (double)rank);
}

static mbl_status_t lora_backward(const mbl_pass_t *p, const mbl_linear_t *linear,
                                  const mbl_lora_site_t *site, void *dy, void *x, size_t tokens,
                                  void *hidden) {
    size_t rank = p->adapter->lora->config.rank, rows = p->n * tokens;
    mbl_tensor_t dym = mbl_pass_matrix(p, dy, rows, linear->n * linear->out);
    mbl_tensor_t dh = mbl_pass_matrix(p, p->tape->d_lora, rows, site->m * rank);
    for (size_t j = 0; j < site->m; j++) {
        mbl_tensor_t b = mbl_flat_matrix(&p->adapter->weights, site->b[j], linear->out, rank);
        mbl_tensor_t dyj = mbl_tensor_columns(&dym, site->which[j] * linear->out, linear->out);
        mbl_tensor_t dhj = mbl_tensor_columns(&dh, j * rank, rank);
        MBL_TRY(MBL_OP(p->ops, matmul, .y = &dhj, .a = &dyj, .b = &b));
    }
    return p->sink->sets ? lora_gradient(p, linear, site, dy, x, tokens, hidden) : MBL_OK;
}

static mbl_status_t weight_gradient(const mbl_pass_t *p, const mbl_linear_t *linear, const mbl_tensor_t *dy,
                                    void *x) {
    size_t out = linear->n * linear->out;
    mbl_tensor_t xm = mbl_pass_matrix(p, x, dy->dim[0], linear->in);
    mbl_tensor_t dw = mbl_flat_matrix(p->sink->full, linear->weight, out, linear->in);
    mbl_tensor_t db = mbl_flat_vector(p->sink->full, linear->bias, out);
    MBL_TRY(MBL_OP(p->ops, matmul, .y = &dw, .a = dy, .b = &xm, .transpose_a = true, .accumulate = true));
    return MBL_OP(p->ops, column_sum, .y = &db, .x = dy);
}

mbl_status_t mbl_linear_backward(const mbl_pass_t *p, const mbl_linear_t *linear, void *dx, void *dy, void *x,
                                 size_t tokens, void *hidden) {
    const mbl_lora_site_t *site = mbl_pass_site(p, linear);
    size_t rows = p->n * tokens, out = linear->n * linear->out;
    mbl_tensor_t dym = mbl_pass_matrix(p, dy, rows, out);
    if (p->sink->full)
        MBL_TRY(weight_gradient(p, linear, &dym, x));
    if (site)
        MBL_TRY(lora_backward(p, linear, site, dy, x, tokens, hidden));
    if (!dx)
        return MBL_OK;
    mbl_tensor_t dxm = mbl_pass_matrix(p, dx, rows, linear->in);
    mbl_tensor_t w = mbl_flat_matrix(&p->model->weights, linear->weight, out, linear->in);
    MBL_TRY(MBL_OP(p->ops, matmul, .y = &dxm, .a = &dym, .b = &w));
    if (!site)
        return MBL_OK;
    size_t width = site->m * p->adapter->lora->config.rank;
    mbl_tensor_t a = mbl_flat_matrix(&p->adapter->scaled_a, site->a, width, linear->in);
    mbl_tensor_t dh = mbl_pass_matrix(p, p->tape->d_lora, rows, width);
    return MBL_OP(p->ops, matmul, .y = &dxm, .a = &dh, .b = &a, .accumulate = true);
}
