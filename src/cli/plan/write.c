/* A plan as JSON. */
#include "cli/plan/plan.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

static json_t *seconds_of(const mbl_plan_view_t *view, const double *seconds) {
    json_t *out = json_object();
    for (size_t i = 0; out && i < view->gpus; i++)
        if (json_object_set_new(out, view->gpu[i]->name, json_real(seconds[i])) != 0) {
            json_decref(out);
            return NULL;
        }
    return out;
}

static json_t *row_of(const mbl_plan_view_t *view, const char *name, const mbl_plan_sum_t *sum) {
    const mbl_cost_t *c = &sum->cost;
    return json_pack("{s:s, s:I, s:I, s:{s:f, s:f, s:f}, s:f, s:f, s:o}", "op", name, "calls",
                     (json_int_t)sum->calls, "launches", (json_int_t)c->launches, "flops", "tensor",
                     c->flops[MBL_UNIT_TENSOR], "f32", c->flops[MBL_UNIT_F32], "f64", c->flops[MBL_UNIT_F64],
                     "bytes", c->bytes, "bytes_least", c->least, "seconds", seconds_of(view, sum->seconds));
}

static json_t *phase_of(const mbl_plan_view_t *view, mbl_plan_phase_t phase) {
    mbl_plan_sum_t sum[MBL_COST_ROWS + 1];
    json_t *rows = json_array();
    mbl_plan_sums(view, phase, sum);
    bool failed = !rows;
    for (int row = 0; row < MBL_COST_ROWS && !failed; row++)
        if (sum[row].calls)
            failed = json_array_append_new(rows, row_of(view, mbl_cost_row_name(row), &sum[row])) != 0;
    if (failed) {
        json_decref(rows);
        return NULL;
    }
    return json_pack("{s:s, s:I, s:f, s:o, s:o}", "phase", mbl_plan_phase_names[phase], "times",
                     (json_int_t)view->plan->phase[phase].times, "share", view->plan->phase[phase].share,
                     "ops", rows, "all", row_of(view, "all", &sum[MBL_COST_ROWS]));
}

static json_t *memory_of(const mbl_plan_memory_t *m) {
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "weights",
                     (json_int_t)m->weights, "prompts", (json_int_t)m->prompts, "adapters",
                     (json_int_t)m->adapters, "gradients", (json_int_t)m->gradients, "rollout",
                     (json_int_t)m->rollout, "train", (json_int_t)m->train, "evaluation",
                     (json_int_t)m->evaluation, "scratch", (json_int_t)m->scratch, "decoder",
                     (json_int_t)m->decoder, "text", (json_int_t)m->text, "all", (json_int_t)m->peak);
}

/* By kind of block; NULL without memory. */
static json_t *launches_of(const mbl_plan_t *plan) {
    json_t *all = json_object();
    for (size_t i = 0; i < plan->block_kinds; i++) {
        const mbl_plan_launches_t *l = &plan->block[i];
        json_t *one = json_pack("{s:I, s:I}", "merged", (json_int_t)l->merged, "apart", (json_int_t)l->apart);
        if (json_object_set_new(all, l->kind->name, one) != 0) {
            json_decref(all);
            return NULL;
        }
    }
    return all;
}

/* By GPU. */
static json_t *estimates_of(const mbl_plan_view_t *view) {
    json_t *all = json_object();
    for (size_t i = 0; all && i < view->gpus; i++) {
        mbl_plan_estimate_t e;
        mbl_plan_estimate(view->gpu[i], view->shape, view->plan, &e);
        json_t *one = json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "bound", e.bound, "seconds", e.seconds,
                                "kernels", e.kernels, "tails", e.tails, "gaps", e.gaps, "messages",
                                e.messages, "exposed", e.exposed);
        if (json_object_set_new(all, view->gpu[i]->name, one) != 0) {
            json_decref(all);
            return NULL;
        }
    }
    return all;
}

/* By GPU, of all of a rank's prompts; `once` is what is run as often as "times" says. */
static json_t *text_of(const mbl_plan_view_t *view) {
    double bound[MBL_PLAN_GPUS], estimate[MBL_PLAN_GPUS];
    for (size_t i = 0; i < view->gpus; i++) {
        mbl_plan_estimate_t e;
        mbl_plan_estimate_text(view->gpu[i], view->plan, &e);
        bound[i] = mbl_plan_phase(view, MBL_PLAN_TEXT, i);
        estimate[i] = e.seconds;
    }
    return json_pack("{s:I, s:o, s:o, s:o}", "prompts", (json_int_t)view->shape->encoded, "bound",
                     seconds_of(view, bound), "estimate", seconds_of(view, estimate), "once",
                     phase_of(view, MBL_PLAN_TEXT));
}

static json_t *plan_of(const mbl_plan_view_t *view) {
    double epoch[MBL_PLAN_GPUS];
    json_t *phases = json_array();
    for (size_t i = 0; i < view->gpus; i++)
        epoch[i] = mbl_plan_epoch(view, i);
    for (mbl_plan_phase_t phase = 0; phases && phase < MBL_PLAN_PHASES; phase++)
        if (json_array_append_new(phases, phase_of(view, phase)) != 0) {
            json_decref(phases);
            return NULL;
        }
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "memory_bytes", memory_of(&view->plan->memory),
                     "block_launches", launches_of(view->plan), "phases", phases, "epoch_seconds",
                     seconds_of(view, epoch), "epoch_estimate", estimates_of(view), "text_encoding",
                     text_of(view));
}

mbl_status_t mbl_plan_write(const mbl_plan_view_t *view, const char *path) {
    json_t *plan = plan_of(view);
    bool standard = strcmp(path, "-") == 0;
    if (!plan)
        return MBL_FAIL(MBL_ERR_MEM, "no memory for a plan in JSON");
    FILE *file = standard ? stdout : fopen(path, "w");
    bool written = file && json_dumpf(plan, file, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) == 0 &&
                   fputc('\n', file) != EOF && fflush(file) == 0;
    int error = errno;
    if (file && !standard)
        written &= fclose(file) == 0;
    json_decref(plan);
    return written ? MBL_OK : MBL_FAIL(MBL_ERR_IO, "%s: cannot be written: %s", path, strerror(error));
}
