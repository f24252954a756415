/* Gradient sets of an optimizer step: forward passes, NFT seeds, one or two backward passes a micro-batch. */
#include "rl/gradient_internal.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"

static size_t buffers(mbl_gradient_t *g, mbl_tensor_t **out) {
    mbl_tensor_t *all[] = {&g->x0,
                           &g->noise,
                           &g->xt,
                           &g->v,
                           &g->v_old,
                           &g->v_ref,
                           &g->u,
                           &g->h,
                           &g->dkl,
                           &g->seed,
                           &g->t,
                           &g->loss_plus,
                           &g->loss_minus,
                           &g->kl,
                           &g->mix,
                           &g->coefficient,
                           &g->sample,
                           &g->losses,
                           &g->conditions.context,
                           &g->conditions.pooled};
    size_t n = sizeof all / sizeof *all;
    for (size_t i = 0; i < n; i++)
        out[i] = all[i];
    return n;
}

static mbl_status_t make_buffers(mbl_gradient_t *g) {
    size_t c, height, width, rows = g->rows;
    mbl_dtype_t st = mbl_dtype_stat(mbl_dit_dtype(g->model));
    mbl_pipeline_latent(g->pipeline, &c, &height, &width);
    g->elements = c * height * width;
    mbl_tensor_t *images[] = {&g->x0,    &g->noise, &g->xt, &g->v,   &g->v_old,
                              &g->v_ref, &g->u,     &g->h,  &g->dkl, &g->seed};
    for (size_t i = 0; i < sizeof images / sizeof *images; i++)
        MBL_TRY(mbl_tensor_new(g->ops, st, images[i], 4, rows, c, height, width));
    mbl_tensor_t *numbers[] = {&g->t, &g->loss_plus, &g->loss_minus, &g->kl};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        MBL_TRY(mbl_tensor_new(g->ops, st, numbers[i], 1, rows));
    MBL_TRY(mbl_tensor_new(g->ops, st, &g->mix, 2, (size_t)MBL_ROWS_TERMS, rows));
    MBL_TRY(mbl_tensor_new(g->ops, MBL_F32, &g->coefficient, 2, g->parts, rows));
    MBL_TRY(mbl_tensor_new(g->ops, MBL_I64, &g->sample, 1, rows));
    MBL_TRY(mbl_pipeline_conditions(g->pipeline, rows, &g->conditions));
    MBL_TRY(mbl_tensor_new(g->ops, st, &g->losses, 2, (size_t)(HELD_LOSSES * LOSS_NUMBERS), rows));
    const size_t terms = g->parts > MBL_ROWS_TERMS ? g->parts : MBL_ROWS_TERMS;
    const size_t staged = rows * (terms > HELD_LOSSES * LOSS_NUMBERS ? terms : HELD_LOSSES * LOSS_NUMBERS);
    MBL_ALLOC(g->host_f32, staged);
    MBL_ALLOC(g->host_f64, staged);
    MBL_ALLOC(g->host_i64, rows);
    MBL_ALLOC(g->order, MBL_SAMPLER_MAX_STEPS);
    return MBL_OK;
}

mbl_status_t mbl_gradient_new(mbl_pipeline_t *pipeline, const mbl_lora_t *lora, size_t micro_batch,
                              size_t parts, size_t again, mbl_gradient_t **out) {
    mbl_status_t status;
    mbl_gradient_t *g;
    size_t c, height, width;
    MBL_ALLOC(g, 1);
    g->pipeline = pipeline;
    g->model = mbl_pipeline_model(pipeline);
    g->ops = mbl_pipeline_ops(pipeline);
    g->rows = micro_batch;
    g->parts = parts;
    g->size = mbl_lora_room(lora);
    mbl_pipeline_latent(pipeline, &c, &height, &width);
    MBL_TRY_GOTO(make_buffers(g), failed);
    mbl_tape_shape_t shape = {
        MBL_TAPE_LORA, micro_batch, height, width, mbl_pipeline_context_tokens(pipeline), again};
    MBL_TRY_GOTO(mbl_tape_new_of(g->model, lora, &shape, &g->keep), failed);
    shape.kind = MBL_TAPE_NONE;
    MBL_TRY_GOTO(mbl_tape_new_of(g->model, lora, &shape, &g->none), failed);
    *out = g;
    return MBL_OK;
failed:
    mbl_gradient_free(g);
    return status;
}

void mbl_gradient_free(mbl_gradient_t *g) {
    mbl_tensor_t *all[32];
    if (!g)
        return;
    for (size_t i = 0, n = buffers(g, all); i < n; i++)
        mbl_tensor_free(g->ops, all[i]);
    mbl_tape_free(g->keep);
    mbl_tape_free(g->none);
    mbl_free(g->host_f32);
    mbl_free(g->host_f64);
    mbl_free(g->host_i64);
    mbl_free(g->order);
    mbl_free(g);
}

size_t mbl_gradient_bytes(const mbl_gradient_t *g) {
    mbl_tensor_t *all[32];
    size_t bytes = mbl_tape_bytes(g->keep) + mbl_tape_bytes(g->none);
    for (size_t i = 0, n = buffers((mbl_gradient_t *)(uintptr_t)g, all); i < n; i++)
        bytes += mbl_tensor_count(all[i]) * mbl_dtype_size(all[i]->dtype);
    return bytes;
}

/* Numbers from host_f64 to a tensor of f32 or f64. */
static mbl_status_t upload_real(mbl_gradient_t *g, const mbl_tensor_t *t) {
    size_t n = mbl_tensor_count(t);
    if (t->dtype == MBL_F64)
        return mbl_tensor_upload(g->ops, t, g->host_f64);
    for (size_t i = 0; i < n; i++)
        g->host_f32[i] = (float)g->host_f64[i];
    return mbl_tensor_upload(g->ops, t, g->host_f32);
}

/* y = sum_j mix_j x_j per row; mix [terms * n] stands in host_f64. */
static mbl_status_t combine_rows(mbl_gradient_t *g, const mbl_micro_t *m, const mbl_tensor_t *y, size_t terms,
                                 const mbl_tensor_t *const *x) {
    mbl_tensor_t mix = mbl_tensor_of(g->mix.data, g->mix.dtype, g->mix.space, 2, terms, m->n);
    mbl_tensor_t flat = mbl_tensor_reshape(y, 2, m->n, g->elements), flat_x[MBL_ROWS_TERMS];
    mbl_rows_combine_args_t args = {.y = &flat, .coefficient = &mix};
    for (size_t j = 0; j < terms; j++) {
        flat_x[j] = mbl_tensor_reshape(x[j], 2, m->n, g->elements);
        args.x[j] = &flat_x[j];
    }
    MBL_TRY(upload_real(g, &mix));
    return mbl_op_rows_combine(g->ops, &args);
}

static void cut_views(mbl_gradient_t *g, mbl_micro_t *m) {
    mbl_tensor_t *from[] = {&g->x0, &g->noise, &g->xt,   &g->v, &g->v_old,     &g->v_ref,      &g->u,
                            &g->h,  &g->dkl,   &g->seed, &g->t, &g->loss_plus, &g->loss_minus, &g->kl};
    mbl_tensor_t *to[] = {&m->x0, &m->noise, &m->xt,   &m->v, &m->v_old,     &m->v_ref,      &m->u,
                          &m->h,  &m->dkl,   &m->seed, &m->t, &m->loss_plus, &m->loss_minus, &m->kl_rows};
    for (size_t i = 0; i < sizeof from / sizeof *from; i++)
        *to[i] = mbl_tensor_rows(from[i], 0, m->n);
    m->conditions = mbl_conditions_rows(&g->conditions, 0, m->n);
    if (m->args->old_is_current)
        m->v_old = m->v;
}

/* x0 to where all micro-batches have it: its address is part of what a recorded part is known by. */
static mbl_status_t copy_x0(mbl_gradient_t *g, const mbl_micro_t *m) {
    const mbl_tensor_t rows = mbl_tensor_rows(&m->args->batch->x0, m->first, m->n);
    return mbl_tensor_copy(g->ops, &m->x0, &rows);
}

/* The row's own timestep, noise and xt = (1 - t) x0 + t noise; the encoding of its prompt. */
static mbl_status_t noise_rows(mbl_gradient_t *g, mbl_micro_t *m) {
    const mbl_gradient_args_t *args = m->args;
    mbl_tensor_t sample = mbl_tensor_rows(&g->sample, 0, m->n);
    mbl_tensor_t flat = mbl_tensor_reshape(&m->noise, 2, m->n, g->elements);
    for (size_t i = 0; i < m->n; i++) {
        int64_t id = args->batch->sample[m->first + i];
        mbl_rng_t rng = mbl_rng(args->seed, MBL_RNG_TIMESTEPS, args->step, (uint64_t)id);
        mbl_rng_permutation(&rng, g->order, (uint32_t)args->plan->steps);
        g->host_f64[i] = args->plan->sigma[g->order[m->slot]];
        g->host_i64[i] = id | (int64_t)m->slot << 40;
    }
    MBL_TRY(upload_real(g, &m->t));
    MBL_TRY(mbl_tensor_upload(g->ops, &sample, g->host_i64));
    MBL_TRY(MBL_OP(g->ops, normal, .y = &flat, .sample = &sample, .seed = args->seed,
                   .purpose = MBL_RNG_TRAIN, .step = args->step));
    for (size_t i = 0; i < m->n; i++) {
        double t = g->host_f64[i];
        g->host_f64[m->n + i] = t;
        g->host_f64[i] = 1 - t;
    }
    MBL_TRY(combine_rows(g, m, &m->xt, 2, (const mbl_tensor_t *[]){&m->x0, &m->noise}));
    return mbl_conditions_gather(g->ops, args->conditions, args->batch->prompt + m->first, &m->conditions);
}

static mbl_status_t forward(mbl_gradient_t *g, const mbl_micro_t *m) {
    mbl_dit_input_t input = {.x = &m->xt, .t = &m->t, .conditions = &m->conditions};
    if (!m->args->old_is_current)
        MBL_TRY(mbl_dit_forward(g->model, m->args->old, &input, g->none, &m->v_old));
    if (m->kl)
        MBL_TRY(mbl_dit_forward(g->model, NULL, &input, g->none, &m->v_ref));
    return mbl_dit_forward(g->model, m->args->current, &input, g->keep, &m->v);
}

static mbl_status_t seeds(mbl_gradient_t *g, const mbl_micro_t *m) {
    bool kl = m->kl, h = !m->args->old_is_current;
    const mbl_tensor_t *all[] = {&m->u, &m->h, &m->dkl, &m->v, &m->v_old, &m->v_ref, &m->xt, &m->x0};
    mbl_tensor_t flat[8];
    for (int i = 0; i < 8; i++)
        flat[i] = mbl_tensor_reshape(all[i], 2, m->n, g->elements);
    return MBL_OP(g->ops, nft, .u = &flat[0], .h = h ? &flat[1] : NULL, .dkl = kl ? &flat[2] : NULL,
                  .loss_plus = &m->loss_plus, .loss_minus = &m->loss_minus, .kl = kl ? &m->kl_rows : NULL,
                  .v = &flat[3], .v_old = &flat[4], .v_ref = kl ? &flat[5] : NULL, .xt = &flat[6],
                  .x0 = &flat[7], .t = &m->t, .beta = m->args->beta);
}

/* Recorded: the same for every micro-batch but for what is in the tensors. */
static mbl_status_t forward_and_seeds(mbl_gradient_t *g, const mbl_micro_t *m) {
    MBL_TRY(mbl_ops_record_begin(g->ops));
    mbl_status_t status = forward(g, m);
    return mbl_ops_record_end(g->ops, status == MBL_OK ? seeds(g, m) : status);
}

/* The weight of a row's KL seed where its policy seeds have m->scale. */
static double kl_factor(const mbl_gradient_args_t *args) {
    return args->kl * args->beta / args->clip * mbl_gradient_kl_scale(args);
}

static mbl_status_t backward(mbl_gradient_t *g, const mbl_micro_t *m, const mbl_tensor_t *dv,
                             const mbl_tensor_t *sets, size_t rows) {
    mbl_dit_input_t input = {.x = &m->xt, .t = &m->t, .conditions = &m->conditions};
    mbl_tensor_t coefficient =
        mbl_tensor_of(g->coefficient.data, MBL_F32, g->coefficient.space, 2, rows, m->n);
    mbl_gradient_sink_t sink = {.sets = sets, .coefficient = &coefficient};
    MBL_TRY(mbl_tensor_upload(g->ops, &coefficient, g->host_f32));
    MBL_TRY(mbl_ops_record_begin(g->ops));
    return mbl_ops_record_end(g->ops,
                              mbl_dit_backward(g->model, m->args->current, &input, g->keep, dv, &sink));
}

/* The reward parts: u, by every part's weight and factor of a row. */
static mbl_status_t backward_parts(mbl_gradient_t *g, const mbl_micro_t *m, const mbl_tensor_t *sets) {
    const mbl_gradient_args_t *args = m->args;
    mbl_tensor_t parts = mbl_tensor_rows(sets, 0, args->parts);
    for (size_t r = 0; r < args->parts; r++)
        for (size_t i = 0; i < m->n; i++) {
            double a = (double)args->a[r * args->batch->n + m->first + i];
            g->host_f32[r * m->n + i] = (float)(m->scale * mbl_micro_weight(m, r, i) * a);
        }
    return backward(g, m, &m->u, &parts, args->parts);
}

/* The common parts: h, and the KL seed where it rides along, by every mask's weight of a row. */
static mbl_status_t backward_common(mbl_gradient_t *g, const mbl_micro_t *m, const mbl_tensor_t *sets) {
    const mbl_gradient_args_t *args = m->args;
    bool h = !args->old_is_current, kl = m->kl && !args->kl_apart;
    size_t masks = args->masks ? args->masks->count : 1;
    if (masks == 0 || (!h && !kl))
        return MBL_OK;
    mbl_tensor_t common = mbl_tensor_rows(sets, args->parts, masks);
    for (size_t i = 0; i < m->n; i++) {
        g->host_f64[i] = h ? 1 : kl_factor(args);
        g->host_f64[m->n + i] = kl_factor(args);
    }
    const mbl_tensor_t *terms[2] = {h ? &m->h : &m->dkl, &m->dkl};
    MBL_TRY(combine_rows(g, m, &m->seed, h && kl ? 2 : 1, terms));
    for (size_t mask = 0; mask < masks; mask++)
        for (size_t i = 0; i < m->n; i++) {
            double weight = mbl_micro_weight(m, args->masks ? args->masks->first[mask] : 0, i);
            g->host_f32[mask * m->n + i] = (float)(m->scale * weight);
        }
    return backward(g, m, &m->seed, &common, masks);
}

/* The KL term as a set of its own. */
static mbl_status_t backward_kl(mbl_gradient_t *g, const mbl_micro_t *m, const mbl_tensor_t *sets) {
    mbl_tensor_t last = mbl_tensor_rows(sets, sets->dim[0] - 1, 1);
    if (!m->kl || !m->args->kl_apart)
        return MBL_OK;
    for (size_t i = 0; i < m->n; i++)
        g->host_f32[i] = (float)(m->scale * kl_factor(m->args));
    return backward(g, m, &m->dkl, &last, 1);
}

/* What a listener does is for all ranks: a stop waits until it is done. */
static mbl_status_t call_ready(mbl_gradient_t *g, const mbl_gradient_args_t *args) {
    mbl_ops_stop(g->ops, NULL);
    mbl_status_t status = args->ready(args->context, args->parts);
    mbl_ops_stop(g->ops, args->stop);
    return status;
}

static mbl_status_t backward_all(mbl_gradient_t *g, const mbl_micro_t *m, const mbl_tensor_t *sets) {
    const mbl_gradient_args_t *args = m->args;
    MBL_TRY(backward_parts(g, m, sets));
    if (m->last && args->ready)
        MBL_TRY(call_ready(g, args));
    MBL_TRY(backward_common(g, m, sets));
    return backward_kl(g, m, sets);
}

/* What the common part of a row weighs where the masks' weights are given. */
static double common_of(const mbl_micro_t *m, size_t i) {
    const mbl_gradient_args_t *args = m->args;
    size_t masks = args->masks ? args->masks->count : 1;
    double sum = 0;
    for (size_t mask = 0; mask < masks; mask++)
        if (args->common[mask] != 0)
            sum += args->common[mask] * mbl_micro_weight(m, args->masks ? args->masks->first[mask] : 0, i);
    return sum;
}

/* sum_r c_r g_r, or sum_r c_r a_r and the common parts with weights of their own, plus the KL term where it
 * is apart, at once: the loss is affine in r, so the weighted factors can be summed before the backward
 * pass. */
static mbl_status_t backward_one(mbl_gradient_t *g, const mbl_micro_t *m, const mbl_tensor_t *sets) {
    const mbl_gradient_args_t *args = m->args;
    const mbl_tensor_t *terms[3] = {&m->u};
    size_t n_terms = 1, n = m->n;
    bool h = !args->old_is_current;
    if (h)
        terms[n_terms++] = &m->h;
    if (m->kl)
        terms[n_terms++] = &m->dkl;
    for (size_t i = 0; i < n; i++) {
        double factor = 0, sum = 0;
        for (size_t r = 0; r < args->parts; r++) {
            double c = args->c[r] != 0 ? args->c[r] * mbl_micro_weight(m, r, i) : 0;
            factor += c * (double)args->a[r * args->batch->n + m->first + i];
            sum += c;
        }
        if (args->common)
            sum = common_of(m, i);
        g->host_f64[i] = factor;
        g->host_f64[n + i] = sum;
        if (m->kl)
            g->host_f64[(n_terms - 1) * n + i] = (args->kl_apart ? 1 : sum) * kl_factor(args);
    }
    MBL_TRY(combine_rows(g, m, &m->seed, n_terms, terms));
    for (size_t i = 0; i < n; i++) /* combine_rows stages there too */
        g->host_f32[i] = (float)m->scale;
    return backward(g, m, &m->seed, sets, 1);
}

static mbl_status_t run_micro_batch(mbl_gradient_t *g, mbl_micro_t *m, const mbl_tensor_t *sets,
                                    mbl_gradient_stats_t *stats) {
    cut_views(g, m);
    MBL_TRY(copy_x0(g, m));
    MBL_TRY(noise_rows(g, m));
    MBL_TRY(forward_and_seeds(g, m));
    MBL_TRY(mbl_gradient_hold_losses(g, m, stats));
    return m->args->c ? backward_one(g, m, sets) : backward_all(g, m, sets);
}

/* How many rows from m->first on are one micro-batch: at most `rows`, all of one part, and with the KL term
 * of all or of none. */
static size_t rows_alike(const mbl_micro_t *m, size_t rows) {
    const mbl_gradient_args_t *args = m->args;
    size_t left = args->batch->n - m->first, n = 1, at = m->slot * args->batch->n + m->first;
    const uint8_t *part = args->part_of ? args->part_of + at : NULL;
    const uint8_t *kl = args->kl_rows && args->kl > 0 ? args->kl_rows + at : NULL;
    while (n < left && n < rows && (!part || part[n] == part[0]) && (!kl || kl[n] == kl[0]))
        n++;
    return n;
}

static bool is_asked_for(const mbl_micro_t *m) {
    const mbl_gradient_args_t *args = m->args;
    return !args->part_of || args->part_of[m->slot * args->batch->n + m->first] == args->part;
}

/* Moves on to the next micro-batch that is asked for (to the first from where slot is args->slice and n is
 * 0); false when there is none. */
static bool next_micro_batch(const mbl_gradient_t *g, mbl_micro_t *m) {
    const mbl_gradient_args_t *args = m->args;
    for (m->first += m->n; m->slot < args->timesteps; m->slot += args->slices, m->first = 0)
        for (; m->first < args->batch->n; m->first += m->n) {
            m->n = rows_alike(m, g->rows);
            m->kl = args->kl > 0 && (!args->kl_rows || args->kl_rows[m->slot * args->batch->n + m->first]);
            if (is_asked_for(m))
                return true;
        }
    return false;
}

size_t mbl_gradient_sets(const mbl_gradient_args_t *args) {
    mbl_sets_t sets = mbl_sets(args->parts, args->masks, args->kl_apart && args->kl > 0);
    return args->c ? 1 : mbl_sets_count(&sets);
}

/* From the micro-batch that *m stands before; of `slots` timesteps. */
static mbl_status_t run_all(mbl_gradient_t *g, mbl_micro_t *m, size_t slots, const mbl_tensor_t *sets,
                            mbl_gradient_stats_t *sum) {
    const mbl_gradient_args_t *args = m->args;
    bool more = next_micro_batch(g, m), none = !more;
    while (more) {
        mbl_micro_t next = *m;
        MBL_TRY(mbl_ops_go_on(g->ops));
        more = next_micro_batch(g, &next);
        m->last = !more;
        mbl_log_progress("training", (m->slot - args->slice) / args->slices * args->batch->n + m->first,
                         slots * args->batch->n);
        MBL_TRY(run_micro_batch(g, m, sets, sum));
        *m = next;
    }
    MBL_TRY(mbl_gradient_read_losses(g, m, sum));
    return none && args->ready && !args->c ? call_ready(g, args) : MBL_OK;
}

mbl_status_t mbl_gradient_run(mbl_gradient_t *g, const mbl_gradient_args_t *args, const mbl_tensor_t *sets,
                              mbl_gradient_stats_t *stats) {
    size_t slots = 0;
    MBL_REQUIRE(args->parts <= g->parts && args->parts >= args->batch->k,
                "gradient: %zu parts for %zu rewards, room for %zu", args->parts, args->batch->k, g->parts);
    MBL_REQUIRE(args->timesteps >= 1 && args->timesteps <= args->plan->steps,
                "gradient: %zu timesteps of %zu", args->timesteps, args->plan->steps);
    for (size_t slot = args->slice; slot < args->timesteps; slot += args->slices)
        slots++;
    MBL_REQUIRE(slots > 0, "gradient: %zu updates for %zu timesteps", args->slices, args->timesteps);
    size_t rows = mbl_gradient_sets(args);
    MBL_REQUIRE(sets->ndim == 2 && sets->dim[0] == rows && sets->dim[1] >= g->size,
                "gradient: sets [%zu,%zu]; expected %zu of %zu numbers", sets->dim[0], sets->dim[1], rows,
                g->size);
    mbl_gradient_stats_t sum = {0};
    mbl_tensor_t own = mbl_tensor_columns(sets, 0, g->size); /* what is behind them is padding */
    mbl_micro_t m = {.args = args,
                     .slot = args->slice,
                     .scale = args->clip / args->beta / (double)(args->batch->n_global * slots)};
    g->n_held = 0; /* of a run that failed */
    if (!args->add)
        MBL_TRY(mbl_tensor_zero(g->ops, sets));
    mbl_ops_stop(g->ops, args->stop);
    mbl_status_t status = run_all(g, &m, slots, &own, &sum);
    mbl_ops_stop(g->ops, NULL);
    mbl_log_progress(NULL, 0, 0);
    MBL_TRY(status);
    *stats = sum;
    return MBL_OK;
}
