/* Losses of a step's micro-batches: they wait on the device, and are read many at a time. */
#include "rl/gradient_internal.h"

static mbl_status_t download_real(mbl_gradient_t *g, const mbl_tensor_t *t) {
    size_t n = mbl_tensor_count(t);
    if (t->dtype == MBL_F64)
        return mbl_tensor_download(g->ops, t, g->host_f64);
    MBL_TRY(mbl_tensor_download(g->ops, t, g->host_f32));
    for (size_t i = 0; i < n; i++)
        g->host_f64[i] = (double)g->host_f32[i];
    return MBL_OK;
}

/* The mean over the rewards of a row's part of their losses, each a mean over the samples it applies to. */
static void add_losses(const mbl_micro_t *m, const double *plus, const double *minus,
                       mbl_gradient_stats_t *stats) {
    const mbl_gradient_args_t *args = m->args;
    double rewards = 0;
    for (size_t k = 0; k < args->batch->k; k++)
        rewards += !args->masks || args->masks->of[k] != MBL_NO_MASK;
    for (size_t k = 0; k < args->batch->k; k++)
        for (size_t i = 0; i < m->n; i++) {
            double weight = mbl_micro_weight(m, k, i),
                   r = (double)args->a[k * args->batch->n + m->first + i] + 0.5;
            if (weight > 0)
                stats->loss += m->scale * weight / rewards * (r * plus[i] + (1 - r) * minus[i]);
        }
}

/* numbers [LOSS_NUMBERS, g->rows] */
static void add_stats(const mbl_gradient_t *g, const mbl_micro_t *m, const double *numbers,
                      mbl_gradient_stats_t *stats) {
    const mbl_gradient_args_t *args = m->args;
    double per_row = m->scale * args->beta / args->clip * mbl_gradient_kl_scale(args);
    add_losses(m, numbers, numbers + g->rows, stats);
    stats->rows += m->n;
    for (size_t i = 0; m->kl && i < m->n; i++)
        stats->kl += per_row * numbers[2 * g->rows + i];
}

mbl_status_t mbl_gradient_read_losses(mbl_gradient_t *g, const mbl_micro_t *m, mbl_gradient_stats_t *stats) {
    const size_t n = g->n_held;
    const mbl_tensor_t waiting = mbl_tensor_rows(&g->losses, 0, n * LOSS_NUMBERS);
    g->n_held = 0;
    if (n == 0)
        return MBL_OK;
    MBL_TRY(download_real(g, &waiting));
    for (size_t i = 0; i < n; i++) {
        const mbl_micro_t one = {.args = m->args,
                                 .scale = m->scale,
                                 .first = g->held[i].first,
                                 .n = g->held[i].n,
                                 .kl = g->held[i].kl};
        add_stats(g, &one, g->host_f64 + i * LOSS_NUMBERS * g->rows, stats);
    }
    return MBL_OK;
}

mbl_status_t mbl_gradient_hold_losses(mbl_gradient_t *g, const mbl_micro_t *m, mbl_gradient_stats_t *stats) {
    const mbl_tensor_t *from[LOSS_NUMBERS] = {&m->loss_plus, &m->loss_minus, &m->kl_rows};
    if (g->n_held == HELD_LOSSES)
        MBL_TRY(mbl_gradient_read_losses(g, m, stats));
    for (size_t i = 0; i < (m->kl ? LOSS_NUMBERS : LOSS_NUMBERS - 1); i++) {
        const mbl_tensor_t row = mbl_tensor_rows(&g->losses, g->n_held * LOSS_NUMBERS + i, 1),
                           flat = mbl_tensor_reshape(&row, 1, g->rows), to = mbl_tensor_rows(&flat, 0, m->n);
        MBL_TRY(mbl_tensor_copy(g->ops, &to, from[i]));
    }
    g->held[g->n_held++] = (held_losses_t){m->first, m->n, m->kl};
    return MBL_OK;
}
