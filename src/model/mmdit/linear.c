/* A group of linears over one input, with their LoRA adapters: forward, and backward into the sink.
 *
 * With s = alpha / rank, H = X (sA)' is kept, so that y += H B', dB = dY' H, dH = dY B, dA = s dH' X and
 * dX += dH (sA): one scaled copy of A serves both ways. Beside a gelu the adapter's product comes first and
 * the other is added to it, so that the gelu is the last product's own. */
#include "model/mmdit/internal.h"

const mbl_lora_site_t *mbl_pass_site(const mbl_pass_t *p, const mbl_linear_t *linear) {
    if (!p->adapter || linear->id == MBL_NO_SITE)
        return NULL;
    const mbl_lora_site_t *site = &p->adapter->lora->site[linear->id];
    return site->m ? site : NULL;
}

/* How many A from j on lie side by side: all that are left, but where a shard ends (lora_layout.h). */
static size_t side_by_side(const mbl_lora_site_t *site, size_t j, size_t rank, const mbl_linear_t *linear) {
    size_t n = 1;
    while (j + n < site->m && site->a[j + n] == site->a[j] + n * rank * linear->in)
        n++;
    return n;
}

static mbl_status_t lora_forward(const mbl_pass_t *p, const mbl_linear_t *linear, const mbl_lora_site_t *site,
                                 const mbl_tensor_t *y, const mbl_tensor_t *x, void *hidden,
                                 bool accumulate) {
    size_t rank = p->adapter->lora->config.rank;
    mbl_tensor_t h = mbl_pass_matrix(p, hidden, x->dim[0], site->m * rank);
    for (size_t j = 0, n; j < site->m; j += n) {
        n = side_by_side(site, j, rank, linear);
        mbl_tensor_t a = mbl_flat_matrix(&p->adapter->scaled_a, site->a[j], n * rank, linear->in);
        mbl_tensor_t hj = mbl_tensor_columns(&h, j * rank, n * rank);
        MBL_TRY(MBL_OP(p->ops, matmul, .y = &hj, .a = x, .b = &a, .transpose_b = true));
    }
    for (size_t j = 0; j < site->m; j++) {
        mbl_tensor_t b = mbl_flat_matrix(&p->adapter->weights, site->b[j], linear->out, rank);
        mbl_tensor_t yj = mbl_tensor_columns(y, site->which[j] * linear->out, linear->out);
        mbl_tensor_t hj = mbl_tensor_columns(&h, j * rank, rank);
        MBL_TRY(MBL_OP(p->ops, matmul, .y = &yj, .a = &hj, .b = &b, .transpose_b = true,
                       .accumulate = accumulate));
    }
    return MBL_OK;
}

/* The weights that the pass multiplies by, and the adapter's site where it comes apart. */
static mbl_tensor_t forward_weights(const mbl_pass_t *p, const mbl_linear_t *linear,
                                    const mbl_lora_site_t **site) {
    size_t out = linear->n * linear->out;
    *site = mbl_pass_site(p, linear);
    if (!*site || !mbl_pass_merged(p))
        return mbl_flat_matrix(&p->model->base.weights, linear->weight, out, linear->in);
    size_t merged = (*site)->merged;
    *site = NULL;
    return mbl_flat_matrix(&p->adapter->merged, merged, out, linear->in);
}

mbl_status_t mbl_linear_forward(const mbl_pass_t *p, const mbl_linear_t *linear, void *y, void *x,
                                size_t tokens, void *hidden) {
    const mbl_lora_site_t *site;
    size_t rows = p->n * tokens, out = linear->n * linear->out;
    mbl_tensor_t ym = mbl_pass_matrix(p, y, rows, out), xm = mbl_pass_matrix(p, x, rows, linear->in);
    mbl_tensor_t w = forward_weights(p, linear, &site);
    mbl_tensor_t bias = mbl_flat_vector(&p->model->base.weights, linear->bias, out);
    MBL_TRY(MBL_OP(p->ops, matmul, .y = &ym, .a = &xm, .b = &w, .bias = &bias, .transpose_b = true));
    return site ? lora_forward(p, linear, site, &ym, &xm, hidden, true) : MBL_OK;
}

mbl_status_t mbl_linear_forward_gelu(const mbl_pass_t *p, const mbl_linear_t *linear, void *y, void *pre,
                                     void *x, size_t tokens, void *hidden) {
    const mbl_lora_site_t *site;
    size_t rows = p->n * tokens;
    MBL_REQUIRE(linear->n == 1, "gelu behind %zu linears at once", linear->n);
    mbl_tensor_t ym = mbl_pass_matrix(p, y, rows, linear->out), xm = mbl_pass_matrix(p, x, rows, linear->in);
    mbl_tensor_t prem = mbl_pass_matrix(p, pre, rows, linear->out), w = forward_weights(p, linear, &site);
    mbl_tensor_t bias = mbl_flat_vector(&p->model->base.weights, linear->bias, linear->out);
    if (site)
        MBL_TRY(lora_forward(p, linear, site, &ym, &xm, hidden, false));
    return MBL_OP(p->ops, matmul, .y = &ym, .a = &xm, .b = &w, .bias = &bias, .pre = pre == y ? NULL : &prem,
                  .transpose_b = true, .accumulate = site != NULL, .act = MBL_ACT_GELU_TANH);
}

/* The [K,rows,columns] part of the gradient sets that belongs to one matrix of an adapter. */
static mbl_tensor_t part_of_sets(const mbl_tensor_t *sets, size_t offset, size_t rows, size_t columns) {
    mbl_tensor_t part =
        mbl_tensor_of(mbl_element(sets, offset), sets->dtype, sets->space, 3, sets->dim[0], rows, columns);
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
    for (size_t j = 0, n; j < site->m; j += n) {
        n = side_by_side(site, j, rank, linear);
        mbl_tensor_t acc = part_of_sets(sets, site->a[j], n * rank, linear->in);
        mbl_tensor_t dhj = mbl_tensor_columns(&dh, j * rank, n * rank);
        MBL_TRY(MBL_OP(p->ops, sample_grad, .acc = &acc, .a = &dhj, .b = &xt,
                       .coefficient = p->sink->coefficient, .factor = config->alpha / (double)rank));
    }
    return MBL_OK;
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

/* dx = dy W, on top of what it holds where `accumulate`, and gelu'(pre) times that. */
static mbl_status_t weights_backward(const mbl_pass_t *p, const mbl_linear_t *linear, const mbl_tensor_t *dx,
                                     const mbl_tensor_t *dy, void *pre, bool accumulate) {
    mbl_tensor_t w =
        mbl_flat_matrix(&p->model->base.weights, linear->weight, linear->n * linear->out, linear->in);
    mbl_tensor_t through = mbl_pass_matrix(p, pre, dx->dim[0], linear->in);
    return MBL_OP(p->ops, matmul, .y = dx, .a = dy, .b = &w, .through = pre ? &through : NULL,
                  .accumulate = accumulate, .act = pre ? MBL_ACT_GELU_TANH : MBL_ACT_NONE);
}

mbl_status_t mbl_linear_backward(const mbl_pass_t *p, const mbl_linear_t *linear, void *dx, void *dy, void *x,
                                 size_t tokens, void *hidden, void *pre) {
    const mbl_lora_site_t *site = mbl_pass_site(p, linear);
    size_t rows = p->n * tokens;
    mbl_tensor_t dym = mbl_pass_matrix(p, dy, rows, linear->n * linear->out);
    if (p->sink->full)
        MBL_TRY(weight_gradient(p, linear, &dym, x));
    if (site)
        MBL_TRY(lora_backward(p, linear, site, dy, x, tokens, hidden));
    if (!dx)
        return MBL_OK;
    mbl_tensor_t dxm = mbl_pass_matrix(p, dx, rows, linear->in);
    if (!site)
        return weights_backward(p, linear, &dxm, &dym, pre, false);
    const size_t rank = p->adapter->lora->config.rank;
    mbl_tensor_t dh = mbl_pass_matrix(p, p->tape->d_lora, rows, site->m * rank);
    if (!pre)
        MBL_TRY(weights_backward(p, linear, &dxm, &dym, NULL, false));
    for (size_t j = 0, n; j < site->m; j += n) {
        n = side_by_side(site, j, rank, linear);
        mbl_tensor_t a = mbl_flat_matrix(&p->adapter->scaled_a, site->a[j], n * rank, linear->in);
        mbl_tensor_t dhj = mbl_tensor_columns(&dh, j * rank, n * rank);
        MBL_TRY(MBL_OP(p->ops, matmul, .y = &dxm, .a = &dhj, .b = &a, .accumulate = !pre || j > 0));
    }
    return pre ? weights_backward(p, linear, &dxm, &dym, pre, true) : MBL_OK;
}
