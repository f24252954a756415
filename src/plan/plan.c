/* Counting an epoch with the model code on the cost model. */
#include "plan/plan.h"

#include "base/mem.h"
#include "plan/passes.h"
#include "plan/setup.h"

#include <string.h>

const char *const mbl_plan_phase_names[MBL_PLAN_COUNTS] = {"merging the rollout policy",
                                                           "rollout micro-batch",
                                                           "training micro-batch",
                                                           "optimizer step",
                                                           "decoding images",
                                                           "encoding prompts"};

static size_t ceil_div(size_t a, size_t b) {
    return (a + b - 1) / b;
}

/* Runs a phase and takes its counts. */
static mbl_status_t count_phase(mbl_plan_setup_t *w, mbl_plan_phase_t phase, size_t times,
                                mbl_plan_count_t *out) {
    MBL_TRY(mbl_plan_setup_run(w, phase));
    return mbl_plan_take(w->ops, times, out);
}

/* The messages of the step that ran last, from the communicator's record. The first sum of sets began while
 * there was a backward pass to come. */
static mbl_status_t take_messages(const mbl_plan_setup_t *w, uint64_t before, mbl_plan_t *out) {
    const mbl_comm_t *comm = &w->comm.host;
    const uint64_t calls = comm->calls - before;
    bool sums = false;
    MBL_REQUIRE(calls <= MBL_PLAN_MESSAGES, "plan: %llu messages of a step, room for %d",
                (unsigned long long)calls, MBL_PLAN_MESSAGES);
    for (uint64_t i = 0; i < calls; i++) {
        const mbl_comm_event_t *e = &comm->record[(before + i) % MBL_COMM_RECORD];
        const bool scatter = strcmp(e->op, "reduce_scatter") == 0, gather = strcmp(e->op, "allgather") == 0;
        out->message[i] = (mbl_plan_message_t){.bytes = e->bytes * (gather ? w->shape->ranks : 1),
                                               .large = e->space == MBL_DEVICE,
                                               .hidden = scatter && !sums};
        sums |= scatter;
    }
    out->messages = (size_t)calls;
    return MBL_OK;
}

static mbl_status_t count_setup(mbl_plan_setup_t *w, mbl_plan_t *out) {
    const mbl_plan_shape_t *s = w->shape;
    size_t n, batches = ceil_div(s->images, s->train_batch);
    const size_t times[MBL_PLAN_METHOD] = {s->merge, ceil_div(s->images, s->rollout_batch),
                                           batches * s->timesteps * s->inner_epochs,
                                           s->inner_epochs * s->updates};
    const double all = (double)s->images,
                 share[MBL_PLAN_METHOD] = {1, all / (double)(times[MBL_PLAN_ROLLOUT] * s->rollout_batch),
                                           all / (double)(batches * s->train_batch), 1};
    (void)mbl_cost_model_take(w->ops, &n); /* making the setup is not of an epoch */
    for (mbl_plan_phase_t phase = 0; phase < MBL_PLAN_METHOD; phase++) {
        const uint64_t messages = w->comm.host.calls;
        MBL_TRY(count_phase(w, phase, times[phase], &out->phase[phase]));
        out->phase[phase].share = share[phase];
        if (phase == MBL_PLAN_UPDATE)
            MBL_TRY(take_messages(w, messages, out));
    }
    out->memory.peak = mbl_cost_model_peak(w->ops);
    out->memory.scratch = out->memory.peak - mbl_cost_model_live(w->ops);
    out->memory.decoder = s->decoder;
    out->memory.peak += s->decoder;
    out->memory.text = s->text;
    if (out->memory.peak < out->memory.weights + s->text)
        out->memory.peak = out->memory.weights + s->text;
    return MBL_OK;
}

static mbl_status_t count_all(const mbl_plan_shape_t *shape, mbl_plan_t *out) {
    mbl_plan_setup_t w = {.shape = shape, .live = mbl_cost_model_live};
    MBL_TRY(mbl_cost_model_open(&w.ops));
    mbl_ops_t *ops = w.ops;
    mbl_status_t status = mbl_plan_setup_open(&w, &out->memory);
    if (status == MBL_OK) {
        status = count_setup(&w, out);
        mbl_plan_setup_close(&w);
    }
    mbl_ops_close(ops);
    return status;
}

/* ---- launches of a block ---- */

/* Launches of a rollout of one step through `blocks` blocks of a kind. */
static mbl_status_t launches_of(const mbl_plan_shape_t *shape, size_t kind, size_t blocks, size_t *out) {
    mbl_plan_shape_t s = *shape;
    mbl_plan_t plan = {0};
    MBL_TRY(mbl_dit_config_of_kind(shape->model, kind, blocks, &s.model));
    s.prompts = s.rollout_steps = s.timesteps = 1;
    s.solver = MBL_SOLVER_EULER;
    mbl_status_t status = count_all(&s, &plan);
    const mbl_plan_count_t *count = &plan.phase[MBL_PLAN_ROLLOUT];
    *out = 0;
    for (size_t i = 0; i < count->n; i++)
        *out += count->item[i].cost.launches * (size_t)count->item[i].calls;
    mbl_plan_free(&plan);
    json_decref(s.model);
    return status;
}

/* A block more makes so many launches more. */
static mbl_status_t launches_of_block(const mbl_plan_shape_t *shape, size_t kind, mbl_plan_launches_t *out) {
    size_t *each[2] = {&out->merged, &out->apart};
    for (int apart = 0; apart < 2; apart++) {
        size_t two = 0, three = 0;
        mbl_plan_shape_t s = *shape;
        s.merge = s.merged = !apart;
        MBL_TRY(launches_of(&s, kind, 2, &two));
        MBL_TRY(launches_of(&s, kind, 3, &three));
        *each[apart] = three - two;
    }
    out->kind = mbl_dit_block_kind(shape->model, kind);
    return MBL_OK;
}

/* ---- a plan ---- */

mbl_status_t mbl_plan(const mbl_plan_shape_t *shape, mbl_plan_t *out) {
    mbl_plan_t plan = {0};
    MBL_REQUIRE(shape->rewards >= 1 && shape->rewards <= MBL_MAX_REWARDS,
                "plan: %zu rewards; expected 1 to %d", shape->rewards, MBL_MAX_REWARDS);
    mbl_status_t status = count_all(shape, &plan);
    if (status == MBL_OK)
        status = mbl_plan_count_decoder(shape, &plan.phase[MBL_PLAN_DECODE]);
    if (status == MBL_OK)
        status = mbl_plan_count_text(shape, &plan.phase[MBL_PLAN_TEXT]);
    for (; status == MBL_OK && mbl_dit_block_kind(shape->model, plan.block_kinds); plan.block_kinds++)
        status = launches_of_block(shape, plan.block_kinds, &plan.block[plan.block_kinds]);
    if (status != MBL_OK) {
        mbl_plan_free(&plan);
        return status;
    }
    *out = plan;
    return MBL_OK;
}

void mbl_plan_free(mbl_plan_t *plan) {
    for (int i = 0; i < MBL_PLAN_COUNTS; i++)
        mbl_free(plan->phase[i].item);
    memset(plan, 0, sizeof *plan);
}
