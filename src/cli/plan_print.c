/* A plan as tables. */
#include "cli/plan.h"

#include <stdio.h>
#include <string.h>

static void add(mbl_plan_sum_t *sum, const mbl_plan_view_t *view, const mbl_dry_item_t *item) {
    double calls = (double)item->calls;
    sum->calls += item->calls;
    sum->cost.launches += item->cost.launches * (size_t)item->calls;
    sum->cost.bytes += calls * item->cost.bytes;
    sum->cost.least += calls * item->cost.least;
    for (int unit = 0; unit < MBL_UNITS; unit++)
        sum->cost.flops[unit] += calls * item->cost.flops[unit];
    for (size_t i = 0; i < view->gpus; i++)
        sum->seconds[i] += calls * mbl_roofline(view->gpu[i], &item->cost, view->launch);
}

void mbl_plan_sums(const mbl_plan_view_t *view, mbl_plan_phase_t phase, mbl_plan_sum_t *sum) {
    const mbl_plan_count_t *count = &view->plan->phase[phase];
    memset(sum, 0, (MBL_DRY_ROWS + 1) * sizeof *sum);
    for (size_t i = 0; i < count->n; i++) {
        add(&sum[count->item[i].row], view, &count->item[i]);
        add(&sum[MBL_DRY_ROWS], view, &count->item[i]);
    }
}

double mbl_plan_epoch(const mbl_plan_view_t *view, size_t i) {
    double seconds = 0;
    for (mbl_plan_phase_t phase = 0; phase < MBL_PLAN_PHASES; phase++) {
        mbl_plan_sum_t sum[MBL_DRY_ROWS + 1];
        mbl_plan_sums(view, phase, sum);
        seconds += (double)view->plan->phase[phase].times * sum[MBL_DRY_ROWS].seconds[i];
    }
    return seconds;
}

static double all_flops(const mbl_cost_t *cost) {
    return cost->flops[MBL_UNIT_TENSOR] + cost->flops[MBL_UNIT_F32] + cost->flops[MBL_UNIT_F64];
}

static void print_row(const mbl_plan_view_t *view, const char *name, const mbl_plan_sum_t *sum) {
    printf("| %-18s | %6llu | %8zu | %9.1f | %9.3f | %9.3f | %6.2f |", name, (unsigned long long)sum->calls,
           sum->cost.launches, all_flops(&sum->cost) / 1e9, sum->cost.bytes / 1e9, sum->cost.least / 1e9,
           sum->cost.least > 0 ? sum->cost.bytes / sum->cost.least : 1);
    for (size_t i = 0; i < view->gpus; i++)
        printf(" %7.3f |", 1e3 * sum->seconds[i]);
    printf("\n");
}

static void print_phase(const mbl_plan_view_t *view, mbl_plan_phase_t phase) {
    mbl_plan_sum_t sum[MBL_DRY_ROWS + 1];
    mbl_plan_sums(view, phase, sum);
    printf("\n%s, %zu in an epoch:\n\n| operation          |  calls | launches |    GFLOP  |  GB moved |  GB "
           "least | moved/ |",
           mbl_plan_phase_names[phase], view->plan->phase[phase].times);
    for (size_t i = 0; i < view->gpus; i++)
        printf(" %4s ms |", view->gpu[i]->name);
    printf("\n|---|---:|---:|---:|---:|---:|---:|");
    for (size_t i = 0; i < view->gpus; i++)
        printf("---:|");
    printf("\n");
    for (int row = 0; row < MBL_DRY_ROWS; row++)
        if (sum[row].calls)
            print_row(view, mbl_dry_name(row), &sum[row]);
    print_row(view, "all", &sum[MBL_DRY_ROWS]);
}

static void print_memory(const mbl_plan_memory_t *m) {
    const struct {
        const char *name;
        size_t bytes;
    } rows[] = {
        {"weights", m->weights},         {"encoded prompts", m->prompts}, {"adapters, moments", m->adapters},
        {"gradient sets", m->gradients}, {"rollout", m->rollout},         {"training", m->train},
        {"evaluation", m->evaluation},   {"scratch", m->scratch},         {"all", m->peak}};
    printf("\ndevice memory of a rank:\n\n| part              |      GB |\n|---|---:|\n");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        printf("| %-17s | %7.3f |\n", rows[i].name, (double)rows[i].bytes / 1e9);
}

static void print_epoch(const mbl_plan_view_t *view) {
    printf("\nan epoch of %zu pictures on a rank, at the least:\n\n| GPU            | seconds | memory "
           "GB | of GB |\n|---|---:|---:|---:|\n",
           view->shape->pictures);
    for (size_t i = 0; i < view->gpus; i++) {
        double memory = (double)view->plan->memory.peak;
        printf("| %-14s | %7.1f | %9.1f | %5.0f |%s\n", view->gpu[i]->title, mbl_plan_epoch(view, i),
               memory / 1e9, view->gpu[i]->memory / 1e9,
               memory > view->gpu[i]->memory ? " does not fit: lower train.micro_batch" : "");
    }
}

void mbl_plan_print(const mbl_plan_view_t *view) {
    const mbl_plan_shape_t *s = view->shape;
    const mbl_plan_t *p = view->plan;
    size_t side = s->model.sample_size / s->model.patch_size;
    printf(
        "%zu layers of width %zu, %zu heads; %zu image and %zu context tokens; %s; adapters of rank %zu; %zu "
        "rewards;\n%zu pictures of a rollout micro-batch with %zu steps, %zu of a training micro-batch, %zu "
        "timesteps of each; rank 1 of %zu\n",
        s->model.num_layers, s->model.attention_head_dim * s->model.num_attention_heads,
        s->model.num_attention_heads, side * side, s->tokens, mbl_dtype_name(s->dtype), s->lora.rank,
        s->rewards, s->rollout_batch, s->rollout_steps, s->train_batch, s->timesteps, s->ranks);
    print_memory(&p->memory);
    for (mbl_plan_phase_t phase = 0; phase < MBL_PLAN_PHASES; phase++)
        print_phase(view, phase);
    printf("\nlaunches of a block in a rollout, adapter merged / beside the weights: %zu / %zu with two "
           "attentions, %zu / %zu with one\n",
           p->dual.merged, p->dual.apart, p->plain.merged, p->plain.apart);
    print_epoch(view);
    printf("\nMilliseconds are rooflines by the datasheets (a kernel's bytes or arithmetic, whichever takes "
           "longer, and %g us\na launch): real runs take longer. Not in it: text encoders, image decoders, "
           "scoring, messages between ranks,\nthe CUDA context (about 0.5 GB).\n",
           1e6 * view->launch);
}
