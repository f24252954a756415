/* The Gram matrix in AdamW's metric. */
#include "rl/metric.h"

#include "base/mem.h"

#include <math.h>

mbl_status_t mbl_metric_new(mbl_ops_t *ops, size_t rows, size_t count, mbl_metric_t *out) {
    mbl_status_t status;
    mbl_metric_t metric = {.ops = ops};
    MBL_TRY_GOTO(mbl_tensor_new(ops, MBL_F64, &metric.rows, 2, rows, count), failed);
    MBL_TRY_GOTO(mbl_tensor_new(ops, MBL_F64, &metric.scale, 1, count), failed);
    MBL_ALLOC_GOTO(metric.direction, count, failed);
    MBL_ALLOC_GOTO(metric.v, count, failed);
    *out = metric;
    return MBL_OK;
failed:
    mbl_metric_free(&metric);
    return status;
}

void mbl_metric_free(mbl_metric_t *metric) {
    if (!metric->ops)
        return;
    mbl_tensor_free(metric->ops, &metric->rows);
    mbl_tensor_free(metric->ops, &metric->scale);
    mbl_free(metric->direction);
    mbl_free(metric->v);
}

void mbl_metric_scale(const mbl_adamw_options_t *options, uint64_t steps, const float *v, const double *d,
                      double norm, size_t n, double *scale) {
    double clip = mbl_grad_scale(options, norm), beta2 = options->beta2;
    double correction = 1 - pow(beta2, (double)(steps + 1));
    for (size_t i = 0; i < n; i++) {
        double now = clip * d[i];
        double vhat = (beta2 * (double)v[i] + (1 - beta2) * now * now) / correction;
        scale[i] = 1 / sqrt(sqrt(vhat) + options->eps);
    }
}

static bool finite_set(const double *plain, size_t m, size_t j) {
    return isfinite(plain[j * m + j]);
}

/* The mean direction, of the sets that are finite, and from it and the moments the scale. */
static mbl_status_t find_scale(const mbl_metric_t *metric, const mbl_optimizer_t *optimizer,
                               const mbl_adamw_options_t *options, const mbl_tensor_t *shard,
                               const double *plain, const double *mean, double norm) {
    size_t m = shard->dim[0];
    mbl_tensor_t rows = mbl_tensor_rows(&metric->rows, 0, m);
    MBL_TRY(MBL_OP(metric->ops, convert, .dst = &rows, .src = shard));
    for (size_t j = 0; j < m; j++) { /* 0 NaN = NaN */
        mbl_tensor_t row = mbl_tensor_rows(&rows, j, 1);
        if (!finite_set(plain, m, j))
            MBL_TRY(mbl_tensor_zero(metric->ops, &row));
    }
    MBL_TRY(MBL_OP(metric->ops, combine, .y = &metric->scale, .x = &rows, .coefficient = mean));
    MBL_TRY(mbl_tensor_download(metric->ops, &metric->scale, metric->direction));
    MBL_TRY(mbl_tensor_download(metric->ops, &optimizer->v, metric->v));
    mbl_metric_scale(options, optimizer->steps, metric->v, metric->direction, norm, optimizer->count,
                     metric->direction);
    return mbl_tensor_upload(metric->ops, &metric->scale, metric->direction);
}

/* A shard's length is a multiple of this. */
enum { PIECE = 16 };

/* The sets times the scale into the metric's rows; those that are not finite as zeros. */
static mbl_status_t scale_rows(const mbl_metric_t *metric, const mbl_tensor_t *shard, const double *plain) {
    size_t m = shard->dim[0], pieces = shard->dim[1] / PIECE;
    mbl_tensor_t scale = mbl_tensor_reshape(&metric->scale, 2, pieces, (size_t)PIECE);
    MBL_TRY(mbl_tensor_zero(metric->ops, &metric->rows));
    for (size_t j = 0; j < m; j++) { /* a product number by number: 0 + scale x */
        mbl_tensor_t set = mbl_tensor_rows(shard, j, 1), row = mbl_tensor_rows(&metric->rows, j, 1);
        mbl_tensor_t x = mbl_tensor_reshape(&set, 3, pieces, (size_t)1, (size_t)PIECE);
        mbl_tensor_t y = mbl_tensor_reshape(&row, 3, pieces, (size_t)1, (size_t)PIECE);
        if (finite_set(plain, m, j))
            MBL_TRY(MBL_OP(metric->ops, gate, .y = &y, .x = &y, .gate = &scale, .h = &x));
    }
    return MBL_OK;
}

mbl_status_t mbl_metric_gram(mbl_comm_t *comm, mbl_metric_t *metric, const mbl_optimizer_t *optimizer,
                             const mbl_adamw_options_t *options, const mbl_tensor_t *shard,
                             const double *plain, const double *mean, double norm, double *gram) {
    size_t m = shard->dim[0];
    MBL_REQUIRE(m <= metric->rows.dim[0] && shard->dim[1] == metric->rows.dim[1] &&
                    shard->dim[1] == optimizer->count && shard->dim[1] % PIECE == 0,
                "metric: shard [%zu,%zu] with room for [%zu,%zu] and %zu moments", m, shard->dim[1],
                metric->rows.dim[0], metric->rows.dim[1], optimizer->count);
    mbl_tensor_t rows = mbl_tensor_rows(&metric->rows, 0, m), host = MBL_TENSOR_2(gram, MBL_F64, m, m);
    MBL_TRY(find_scale(metric, optimizer, options, shard, plain, mean, norm));
    MBL_TRY(scale_rows(metric, shard, plain));
    MBL_TRY(MBL_OP(metric->ops, gram, .gram = &host, .x = &rows));
    MBL_TRY(mbl_comm_allreduce(comm, gram, m * m, MBL_COMM_F64, MBL_COMM_SUM));
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < m; j++)
            if (!finite_set(plain, m, i) || !finite_set(plain, m, j))
                gram[i * m + j] = NAN;
    return MBL_OK;
}
