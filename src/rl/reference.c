/* The released code's micro-batches, means and advantages. */
#include "rl/reference.h"

#include "base/mem.h"
#include "base/rng.h"

#include <math.h>
#include <string.h>

mbl_status_t mbl_reference_new(mbl_ops_t *ops, const mbl_batch_t *batch, mbl_reference_t *out) {
    mbl_status_t status;
    const size_t *dim = batch->x0.dim;
    size_t n = batch->n, k = batch->k;
    mbl_reference_t r = {.elements = dim[1] * dim[2] * dim[3], .batch = *batch};
    r.batch.x0 = (mbl_tensor_t){.data = NULL};
    MBL_TRY_GOTO(mbl_tensor_new(ops, MBL_F32, &r.batch.x0, 4, n, dim[1], dim[2], dim[3]), failed);
    MBL_ALLOC_GOTO(r.unclipped, k * n, failed);
    MBL_ALLOC_GOTO(r.a, (k + 1) * n, failed);
    MBL_ALLOC_GOTO(r.raw, k * n, failed);
    MBL_ALLOC_GOTO(r.valid, (k + 1) * n, failed);
    MBL_ALLOC_GOTO(r.micro, n, failed);
    MBL_ALLOC_GOTO(r.latents, 2 * n * r.elements, failed);
    MBL_ALLOC_GOTO(r.from, 2 * n, failed);
    MBL_ALLOC_GOTO(r.order, batch->n_global, failed);
    MBL_ALLOC_GOTO(r.prompt, n, failed);
    MBL_ALLOC_GOTO(r.sample, n, failed);
    r.batch.prompt = r.prompt;
    r.batch.sample = r.sample;
    *out = r;
    return MBL_OK;
failed:
    mbl_reference_free(&r, ops);
    return status;
}

void mbl_reference_free(mbl_reference_t *reference, mbl_ops_t *ops) {
    mbl_tensor_free(ops, &reference->batch.x0);
    mbl_free(reference->unclipped);
    mbl_free(reference->a);
    mbl_free(reference->raw);
    mbl_free(reference->valid);
    mbl_free(reference->micro);
    mbl_free(reference->latents);
    mbl_free(reference->from);
    mbl_free(reference->order);
    mbl_free(reference->prompt);
    mbl_free(reference->sample);
    *reference = (mbl_reference_t){0};
}

static void mix_columns(const mbl_reference_t *r, const float *rows, size_t n, size_t count, float *out) {
    for (size_t c = 0; c < count; c++)
        for (size_t i = 0; i < n; i++)
            out[c * n + i] = rows[c * n + r->from[i]];
}

static mbl_status_t mix_latents(const mbl_reference_t *r, mbl_ops_t *ops, const mbl_batch_t *batch) {
    size_t size = r->elements;
    float *mixed = r->latents + batch->n * size;
    MBL_TRY(mbl_tensor_download(ops, &batch->x0, r->latents));
    for (size_t i = 0; i < batch->n; i++)
        memcpy(mixed + i * size, r->latents + r->from[i] * size, size * sizeof *mixed);
    return mbl_tensor_upload(ops, &r->batch.x0, mixed);
}

mbl_status_t mbl_reference_mix(mbl_reference_t *r, mbl_ops_t *ops, const mbl_batch_t *batch, const float *a,
                               uint64_t seed, uint32_t step, size_t micro_batch) {
    size_t n = batch->n, done = 0, *row_of = r->from + n;
    int64_t first = batch->sample[0];
    mbl_rng_t rng = mbl_rng(seed, MBL_RNG_GRAM, step, UINT64_MAX);
    for (size_t i = 1; i < n; i++)
        first = batch->sample[i] < first ? batch->sample[i] : first;
    for (size_t i = 0; i < n; i++)
        row_of[batch->sample[i] - first] = i;
    mbl_rng_permutation(&rng, r->order, (uint32_t)batch->n_global);
    for (size_t p = 0; p < batch->n_global; p++) {
        int64_t at = (int64_t)r->order[p] - first;
        if (at < 0 || at >= (int64_t)n)
            continue;
        r->micro[done] = p / micro_batch;
        r->from[done++] = row_of[at];
    }
    r->n_micro = (batch->n_global + micro_batch - 1) / micro_batch;
    for (size_t i = 0; i < n; i++) {
        r->prompt[i] = batch->prompt[r->from[i]];
        r->sample[i] = batch->sample[r->from[i]];
    }
    mix_columns(r, a, n, batch->k, r->a);
    mix_columns(r, r->unclipped, n, batch->k, r->raw);
    return mix_latents(r, ops, batch);
}

mbl_status_t mbl_reference_masks(mbl_comm_t *comm, mbl_reference_t *r, size_t n, size_t k, size_t micro,
                                 mbl_masks_t *out) {
    double rows = 0;
    for (size_t i = 0; i < n; i++) {
        bool here = micro == MBL_REFERENCE_ALL || r->micro[i] == micro;
        rows += here;
        for (size_t j = 0; j < k; j++)
            r->valid[j * n + i] = here && !isnan(r->raw[j * n + i]);
        r->valid[k * n + i] = here;
    }
    MBL_TRY(mbl_comm_allreduce(comm, &rows, 1, MBL_COMM_F64, MBL_COMM_SUM));
    return mbl_masks(comm, r->valid, k + (micro == MBL_REFERENCE_ALL), n, (size_t)rows, out);
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
