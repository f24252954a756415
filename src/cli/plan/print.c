/* A plan as tables. */
#include "base/grid.h"
#include "cli/plan/plan.h"

#include <stdio.h>
#include <string.h>

static void add(mbl_plan_sum_t *sum, const mbl_plan_view_t *view, const mbl_cost_item_t *item) {
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
    memset(sum, 0, (MBL_COST_ROWS + 1) * sizeof *sum);
    for (size_t i = 0; i < count->n; i++) {
        add(&sum[count->item[i].row], view, &count->item[i]);
        add(&sum[MBL_COST_ROWS], view, &count->item[i]);
    }
}

double mbl_plan_phase(const mbl_plan_view_t *view, mbl_plan_phase_t phase, size_t i) {
    mbl_plan_sum_t sum[MBL_COST_ROWS + 1];
    mbl_plan_sums(view, phase, sum);
    const mbl_plan_count_t *count = &view->plan->phase[phase];
    return (double)count->times * count->share * sum[MBL_COST_ROWS].seconds[i];
}

double mbl_plan_epoch(const mbl_plan_view_t *view, size_t i) {
    double seconds = 0;
    for (mbl_plan_phase_t phase = 0; phase < MBL_PLAN_PHASES; phase++)
        seconds += mbl_plan_phase(view, phase, i);
    return seconds;
}

static double all_flops(const mbl_cost_t *cost) {
    return cost->flops[MBL_UNIT_TENSOR] + cost->flops[MBL_UNIT_F32] + cost->flops[MBL_UNIT_F64];
}

static void row(const mbl_plan_view_t *view, mbl_grid_t *grid, const char *name, const mbl_plan_sum_t *sum) {
    mbl_grid_cell(grid, "%s", name);
    mbl_grid_cell(grid, "%llu", (unsigned long long)sum->calls);
    mbl_grid_cell(grid, "%zu", sum->cost.launches);
    mbl_grid_cell(grid, "%.1f", all_flops(&sum->cost) / 1e9);
    mbl_grid_cell(grid, "%.3f", sum->cost.bytes / 1e9);
    mbl_grid_cell(grid, "%.3f", sum->cost.least / 1e9);
    mbl_grid_cell(grid, "%.2f", sum->cost.least > 0 ? sum->cost.bytes / sum->cost.least : 1);
    for (size_t i = 0; i < view->gpus; i++)
        mbl_grid_cell(grid, "%.3f", 1e3 * sum->seconds[i]);
}

static mbl_status_t print_grid(const mbl_plan_view_t *view, mbl_grid_t *grid) {
    mbl_status_t status = mbl_grid_print(grid, view->markdown, stdout);
    mbl_grid_free(grid);
    return status;
}

static mbl_status_t print_phase(const mbl_plan_view_t *view, mbl_plan_phase_t phase) {
    static const char *const head[] = {"operation", "calls",    "launches",   "GFLOP",
                                       "GB moved",  "GB least", "moved/least"};
    mbl_plan_sum_t sum[MBL_COST_ROWS + 1];
    mbl_grid_t *grid;
    mbl_plan_sums(view, phase, sum);
    MBL_TRY(mbl_grid_new(sizeof head / sizeof *head + view->gpus, 1, &grid));
    for (size_t i = 0; i < sizeof head / sizeof *head; i++)
        mbl_grid_cell(grid, "%s", head[i]);
    for (size_t i = 0; i < view->gpus; i++)
        mbl_grid_cell(grid, "%s ms", view->gpu[i]->name);
    for (int i = 0; i < MBL_COST_ROWS; i++)
        if (sum[i].calls)
            row(view, grid, mbl_cost_row_name(i), &sum[i]);
    row(view, grid, "all", &sum[MBL_COST_ROWS]);
    printf("\n%s, %zu %s:\n\n", mbl_plan_phase_names[phase], view->plan->phase[phase].times,
           phase < MBL_PLAN_PHASES ? "in an epoch" : "before all epochs");
    return print_grid(view, grid);
}

static mbl_status_t print_memory(const mbl_plan_view_t *view) {
    const mbl_plan_memory_t *m = &view->plan->memory;
    const struct {
        const char *name;
        size_t bytes;
    } rows[] = {{"weights", m->weights},
                {"encoded prompts", m->prompts},
                {"adapters, moments", m->adapters},
                {"gradient sets", m->gradients},
                {"rollout", m->rollout},
                {"training", m->train},
                {"evaluation", m->evaluation},
                {"scratch", m->scratch},
                {"image decoder", m->decoder},
                {"all", m->peak},
                {"text encoders, beside the weights alone", m->text}};
    mbl_grid_t *grid;
    MBL_TRY(mbl_grid_new(2, 1, &grid));
    mbl_grid_cell(grid, "device memory of a rank");
    mbl_grid_cell(grid, "GB");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        mbl_grid_cell(grid, "%s", rows[i].name);
        mbl_grid_cell(grid, "%.3f", (double)rows[i].bytes / 1e9);
    }
    printf("\n");
    return print_grid(view, grid);
}

double mbl_plan_gpu_memory(const mbl_plan_view_t *view, size_t i) {
    return view->memory > 0 ? view->memory : view->gpu[i]->memory;
}

/* The answer: what an epoch takes on every GPU, and whether it fits. */
static mbl_status_t print_epoch(const mbl_plan_view_t *view) {
    static const char *const head[] = {"GPU",       "seconds at least (bound)",
                                       "rollout",   "decoding",
                                       "training",  "optimizer",
                                       "memory GB", "of GB",
                                       "fits"};
    double memory = (double)view->plan->memory.peak;
    bool fits = true;
    mbl_grid_t *grid;
    MBL_TRY(mbl_grid_new(sizeof head / sizeof *head, 1, &grid));
    for (size_t i = 0; i < sizeof head / sizeof *head; i++)
        mbl_grid_cell(grid, "%s", head[i]);
    for (size_t i = 0; i < view->gpus; i++) {
        bool fits_here = memory <= mbl_plan_gpu_memory(view, i);
        mbl_grid_cell(grid, "%s", view->gpu[i]->title);
        mbl_grid_cell(grid, "%.3g", mbl_plan_epoch(view, i));
        mbl_grid_cell(grid, "%.3g",
                      mbl_plan_phase(view, MBL_PLAN_MERGE, i) + mbl_plan_phase(view, MBL_PLAN_ROLLOUT, i));
        mbl_grid_cell(grid, "%.3g", mbl_plan_phase(view, MBL_PLAN_DECODE, i));
        mbl_grid_cell(grid, "%.3g", mbl_plan_phase(view, MBL_PLAN_TRAIN, i));
        mbl_grid_cell(grid, "%.3g", mbl_plan_phase(view, MBL_PLAN_UPDATE, i));
        mbl_grid_cell(grid, "%.1f", memory / 1e9);
        mbl_grid_cell(grid, "%.0f", mbl_plan_gpu_memory(view, i) / 1e9);
        mbl_grid_cell(grid, fits_here ? "yes" : "no");
        fits = fits && fits_here;
    }
    printf("\nan epoch of %zu images on a rank:\n\n", view->shape->images);
    MBL_TRY(print_grid(view, grid));
    if (!fits)
        printf("\nToo little memory on some: lower train.micro_batch or rollout.micro_batch.\n");
    return MBL_OK;
}

/* What it will rather take, and of what that is made. */
static mbl_status_t print_estimate(const mbl_plan_view_t *view) {
    static const char *const head[] = {"GPU",  "seconds (estimate)", "kernels", "tails",
                                       "gaps", "messages",           "exposed", "least of it"};
    mbl_grid_t *grid;
    MBL_TRY(mbl_grid_new(sizeof head / sizeof *head, 1, &grid));
    for (size_t i = 0; i < sizeof head / sizeof *head; i++)
        mbl_grid_cell(grid, "%s", head[i]);
    for (size_t i = 0; i < view->gpus; i++) {
        mbl_plan_estimate_t e;
        mbl_plan_estimate(view->gpu[i], view->shape, view->plan, &e);
        mbl_grid_cell(grid, "%s", view->gpu[i]->title);
        const double seconds[] = {e.seconds, e.kernels, e.tails, e.gaps, e.messages, e.exposed};
        for (size_t j = 0; j < sizeof seconds / sizeof *seconds; j++)
            mbl_grid_cell(grid, "%.3g", seconds[j]);
        mbl_grid_cell(grid, "%.0f %%", 100 * e.bound / e.seconds);
    }
    printf("\nthe same as an estimate (what it is made of stands below):\n\n");
    return print_grid(view, grid);
}

/* Apart from epochs: prompts are encoded once, by `marble encode` or at a run's start. */
static mbl_status_t print_text(const mbl_plan_view_t *view) {
    static const char *const head[] = {
        "GPU", "seconds at least (bound)", "seconds (estimate)", "kernels", "tails", "gaps"};
    mbl_grid_t *grid;
    if (view->shape->encoded == 0)
        return MBL_OK;
    MBL_TRY(mbl_grid_new(sizeof head / sizeof *head, 1, &grid));
    for (size_t i = 0; i < sizeof head / sizeof *head; i++)
        mbl_grid_cell(grid, "%s", head[i]);
    for (size_t i = 0; i < view->gpus; i++) {
        mbl_plan_estimate_t e;
        mbl_plan_estimate_text(view->gpu[i], view->plan, &e);
        mbl_grid_cell(grid, "%s", view->gpu[i]->title);
        const double seconds[] = {mbl_plan_phase(view, MBL_PLAN_TEXT, i), e.seconds, e.kernels, e.tails,
                                  e.gaps};
        for (size_t j = 0; j < sizeof seconds / sizeof *seconds; j++)
            mbl_grid_cell(grid, "%.3g", seconds[j]);
    }
    printf("\nonce, ahead or at the start, the text encoders on the %zu prompts of a rank:\n\n",
           view->shape->encoded);
    return print_grid(view, grid);
}

void mbl_plan_print_sources(void) {
    printf("\nBounds are by the datasheets; estimates take instead:\n");
    for (const mbl_plan_source_t *s = mbl_plan_sources; s->text; s++)
        printf("  %s\n", s->text);
}

/* What the answer is made of: every operation of every phase. */
static mbl_status_t print_details(const mbl_plan_view_t *view) {
    const mbl_plan_t *p = view->plan;
    for (mbl_plan_phase_t phase = 0; phase < MBL_PLAN_COUNTS; phase++)
        if (p->phase[phase].times)
            MBL_TRY(print_phase(view, phase));
    printf("\nlaunches of a block in a rollout, adapter merged / beside the weights:");
    for (size_t i = 0; i < p->block_kinds; i++)
        printf("%s %zu / %zu with %s", i ? "," : "", p->block[i].merged, p->block[i].apart,
               p->block[i].kind->title);
    puts("");
    return MBL_OK;
}

mbl_status_t mbl_plan_print(const mbl_plan_view_t *view) {
    const mbl_plan_shape_t *s = view->shape;
    char again[64] = "";
    if (s->again)
        snprintf(again, sizeof again, "; %zu blocks made again in backward passes", s->again);
    printf(
        "%zu layers of width %zu, %zu heads; %zu image and %zu context tokens; %s; adapters of rank %zu; %zu "
        "rewards;\n%zu images of a rollout micro-batch with %zu steps, %zu of a training micro-batch, %zu "
        "timesteps of each%s; rank 1 of %zu\n",
        s->sizes.blocks, s->sizes.width, s->sizes.heads, s->sizes.tokens, s->tokens, mbl_dtype_name(s->dtype),
        s->lora.rank, s->rewards, s->rollout_batch, s->rollout_steps, s->train_batch, s->timesteps, again,
        s->ranks);
    MBL_TRY(print_epoch(view));
    MBL_TRY(print_estimate(view));
    MBL_TRY(print_text(view));
    MBL_TRY(print_memory(view));
    if (view->details)
        MBL_TRY(print_details(view));
    mbl_plan_print_sources();
    printf("\nTimes but for the estimates are rooflines by the datasheets (a kernel's bytes or arithmetic, "
           "whichever takes "
           "longer, and %g us\na launch): real runs take longer. Not in them: %sreading files, "
           "scoring, messages between ranks;\nnot in the memory: the CUDA context (about 0.5 GB).\n",
           1e6 * view->launch, s->folder ? "" : "text encoders, image decoders, ");
    return fflush(stdout) == 0 ? MBL_OK : MBL_FAIL(MBL_ERR_IO, "plan: standard output cannot be written");
}
