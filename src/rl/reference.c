/* The released code's micro-batches, means and advantages. */
#include "rl/reference.h"

#include "base/mem.h"
#include "base/rng.h"

#include <math.h>
#include <string.h>

mbl_status_t mbl_reference_new(const mbl_batch_t *batch, size_t elements, mbl_reference_t *out) {
    mbl_status_t status;
    mbl_reference_t r = {.elements = elements};
    MBL_ALLOC_GOTO(r.raw, batch->k * batch->n, failed);
    MBL_ALLOC_GOTO(r.share, batch->k * batch->n, failed);
    MBL_ALLOC_GOTO(r.micro, batch->n, failed);
    MBL_ALLOC_GOTO(r.latents, 2 * batch->n * elements, failed);
    MBL_ALLOC_GOTO(r.from, 2 * batch->n, failed);
    MBL_ALLOC_GOTO(r.order, batch->n_global, failed);
    MBL_ALLOC_GOTO(r.column, batch->n, failed);
    *out = r;
    return MBL_OK;
failed:
    mbl_reference_free(&r);
    return status;
}

void mbl_reference_free(mbl_reference_t *reference) {
    mbl_free(reference->raw);
    mbl_free(reference->share);
    mbl_free(reference->micro);
    mbl_free(reference->latents);
    mbl_free(reference->from);
    mbl_free(reference->order);
    mbl_free(reference->column);
    *reference = (mbl_reference_t){0};
}

static void mix_columns(mbl_reference_t *r, float *rows, size_t n, size_t count) {
    for (size_t c = 0; c < count; c++) {
        float *row = rows + c * n;
        memcpy(r->column, row, n * sizeof *row);
        for (size_t i = 0; i < n; i++)
            row[i] = r->column[r->from[i]];
    }
}

static mbl_status_t mix_latents(mbl_reference_t *r, mbl_ops_t *ops, const mbl_batch_t *batch) {
    size_t size = r->elements;
    float *mixed = r->latents + batch->n * size;
    MBL_TRY(mbl_tensor_download(ops, &batch->x0, r->latents));
    for (size_t i = 0; i < batch->n; i++)
        memcpy(mixed + i * size, r->latents + r->from[i] * size, size * sizeof *mixed);
    return mbl_tensor_upload(ops, &batch->x0, mixed);
}

mbl_status_t mbl_reference_mix(mbl_reference_t *r, mbl_ops_t *ops, const mbl_batch_t *batch, uint32_t *prompt,
                               int64_t *sample, float *a, size_t parts, uint64_t seed, uint32_t step,
                               size_t micro_batch) {
    size_t n = batch->n, done = 0, *row_of = r->from + n;
    int64_t first = sample[0];
    mbl_rng_t rng = mbl_rng(seed, MBL_RNG_GRAM, step, UINT64_MAX);
    for (size_t i = 1; i < n; i++)
        first = sample[i] < first ? sample[i] : first;
    for (size_t i = 0; i < n; i++)
        row_of[sample[i] - first] = i;
    mbl_rng_permutation(&rng, r->order, (uint32_t)batch->n_global);
    for (size_t p = 0; p < batch->n_global; p++) {
        int64_t at = (int64_t)r->order[p] - first;
        if (at < 0 || at >= (int64_t)n)
            continue;
        r->micro[done] = p / micro_batch;
        r->from[done++] = row_of[at];
    }
    r->n_micro = (batch->n_global + micro_batch - 1) / micro_batch;
    for (size_t i = 0; i < n; i++) /* sample and prompt by way of the staging behind `from` */
        row_of[i] = prompt[r->from[i]];
    for (size_t i = 0; i < n; i++)
        prompt[i] = (uint32_t)row_of[i];
    for (size_t i = 0; i < n; i++)
        row_of[i] = (size_t)sample[r->from[i]];
    for (size_t i = 0; i < n; i++)
        sample[i] = (int64_t)row_of[i];
    mix_columns(r, a, n, parts);
    mix_columns(r, r->raw, n, batch->k);
    return mix_latents(r, ops, batch);
}

mbl_status_t mbl_reference_share(mbl_comm_t *comm, mbl_reference_t *r, size_t n, size_t k, size_t micro) {
    double count[MBL_MAX_REWARDS + 1] = {0};
    for (size_t i = 0; i < n; i++) {
        if (r->micro[i] != micro)
            continue;
        count[k]++;
        for (size_t j = 0; j < k; j++)
            count[j] += !isnan(r->raw[j * n + i]);
    }
    MBL_TRY(mbl_comm_allreduce(comm, count, k + 1, MBL_COMM_F64, MBL_COMM_SUM));
    for (size_t j = 0; j < k; j++)
        for (size_t i = 0; i < n; i++) {
            bool counts = r->micro[i] == micro && !isnan(r->raw[j * n + i]);
            r->share[j * n + i] = counts ? (float)(count[k] / count[j]) : 0;
        }
    return MBL_OK;
}

void mbl_reference_factors(const float *raw, size_t n, size_t k, const double *alpha_mean, double clip,
                           float *factors) {
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (size_t j = 0; j < k; j++)
            sum += isnan(raw[j * n + i]) ? 0 : alpha_mean[j] * (double)raw[j * n + i];
        factors[i] = (float)(fmax(-1, fmin(1, sum / clip)) / 2);
    }
}

void mbl_reference_smooth(double rho, const double *alpha, size_t k, mbl_balance_state_t *state) {
    for (size_t i = 0; i < k; i++) {
        state->alpha_mean[i] = state->seen[i] ? rho * state->alpha_mean[i] + (1 - rho) * alpha[i] : alpha[i];
        state->seen[i] = true;
    }
}

void mbl_reference_kept(const mbl_balance_state_t *state, const mbl_reward_stats_t *stats, size_t k,
                        mbl_balance_step_t *out) {
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < k; i++) {
        out->alpha[i] = out->alpha_mean[i] = state->alpha_mean[i];
        out->used[i] = stats[i].valid > 0;
        out->n_used += out->used[i];
    }
}
