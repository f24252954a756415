/* marble bench gradients: all K rewards' gradients of one micro-batch, kl off, from two backward passes (also
 * of rewards that apply to some images only, by 2 or 5 distinct masks), and from K backward passes. All start
 * from the same forward passes; `ms` and relative_to_separate are what comes after those, the figures
 * with_forward include them. */
#include "cli/bench/pass.h"

#include "base/mem.h"

enum { SIZES = 4, MASKED = 2 * SIZES, FORWARD = MASKED + 2, CASES };
static const size_t sizes[SIZES] = {1, 5, 10, 20};
/* Rewards, masks and where the case of separate passes stands of every case but the last; masks 0: separate.
 */
static const struct {
    const char *name;
    size_t k, masks, separate;
} shapes[FORWARD] = {{"two_seed", 1, 1, SIZES},
                     {"two_seed", 5, 1, SIZES + 1},
                     {"two_seed", 10, 1, SIZES + 2},
                     {"two_seed", 20, 1, SIZES + 3},
                     {"separate", 1, 0, SIZES},
                     {"separate", 5, 0, SIZES + 1},
                     {"separate", 10, 0, SIZES + 2},
                     {"separate", 20, 0, SIZES + 3},
                     {"two_seed masks=2", 5, 2, SIZES + 1},
                     {"two_seed masks=5", 5, 5, SIZES + 1}};

typedef struct {
    mbl_bench_pass_t *pass;
    size_t k;
    mbl_masks_t masks;
    uint8_t *valid; /* [k, n] */
} size_case_t;

static mbl_status_t run_two_seed(void *context) {
    const size_case_t *one = context;
    mbl_bench_fixture_t *w = one->pass->fixture;
    mbl_gradient_args_t args = mbl_bench_fixture_args(w, one->k, 1, 0);
    mbl_gradient_stats_t stats;
    args.masks = one->valid ? &one->masks : NULL;
    mbl_tensor_t sets = mbl_tensor_rows(&w->update.sets, 0, mbl_gradient_sets(&args));
    MBL_TRY(mbl_gradient_run(w->update.gradient, &args, &sets, &stats));
    return w->ops->table->sync(w->ops);
}

static mbl_status_t run_separate(void *context) {
    const size_case_t *one = context;
    return mbl_bench_pass_separate(one->pass, one->k);
}

static mbl_status_t run_forward(void *context) {
    const size_case_t *one = context;
    MBL_TRY(mbl_bench_pass_forward_both(one->pass));
    return one->pass->fixture->ops->table->sync(one->pass->fixture->ops);
}

/* Every two_seed case, every separate one, those with masks. after: [FORWARD][runs], without the forward
 * passes. */
static mbl_status_t print_all(const mbl_bench_t *bench, mbl_dtype_t dtype, const mbl_bench_case_t *cases,
                              const double *after) {
    size_t runs = bench->runs;
    for (size_t i = 0; i < FORWARD; i++) {
        size_t separate = shapes[i].separate;
        mbl_bench_time_t time = mbl_bench_time(after + i * runs, runs);
        const mbl_bench_figure_t figures[] = {
            {.name = "k", .value = (double)shapes[i].k},
            {.name = "dtype", .text = mbl_dtype_name(dtype)},
            {.name = "samples", .value = (double)bench->samples},
            {.name = "relative_to_separate",
             .value = mbl_bench_ratio(after + i * runs, after + separate * runs, runs)},
            {.name = "ms_with_forward", .value = 1e3 * mbl_bench_time(cases[i].seconds, runs).median},
            {.name = "relative_with_forward",
             .value = mbl_bench_ratio(cases[i].seconds, cases[separate].seconds, runs)},
            {.name = "relative_to_k5", .value = mbl_bench_ratio(after + i * runs, after + runs, runs)}};
        MBL_TRY(mbl_bench_print(bench, "gradients", shapes[i].name, &time, figures, shapes[i].masks ? 7 : 6));
    }
    return MBL_OK;
}

/* Reward k applies to the images i with i % masks != k % masks, so that as many masks are distinct (fewer of
 * fewer images). */
static mbl_status_t set_masks(size_case_t *one, size_t masks) {
    const mbl_bench_fixture_t *w = one->pass->fixture;
    size_t n = w->batch.n;
    if (masks < 2)
        return MBL_OK;
    MBL_ALLOC(one->valid, one->k * n);
    for (size_t k = 0; k < one->k; k++)
        for (size_t i = 0; i < n; i++)
            one->valid[k * n + i] = i % masks != k % masks;
    return mbl_masks(w->comm, one->valid, one->k, n, n, &one->masks);
}

static mbl_status_t report(const mbl_bench_t *bench, mbl_dtype_t dtype, const mbl_bench_case_t *cases) {
    double *after, forward = mbl_bench_time(cases[FORWARD].seconds, bench->runs).median;
    MBL_ALLOC(after, FORWARD * bench->runs);
    for (size_t i = 0; i < FORWARD; i++)
        for (size_t j = 0; j < bench->runs; j++)
            after[i * bench->runs + j] = cases[i].seconds[j] - forward;
    mbl_status_t status = print_all(bench, dtype, cases, after);
    mbl_free(after);
    return status;
}

static mbl_status_t time_type(const mbl_bench_t *bench, mbl_dtype_t dtype) {
    mbl_bench_fixture_t fixture;
    mbl_bench_pass_t pass = {.fixture = NULL};
    mbl_bench_case_t cases[CASES] = {0};
    size_case_t contexts[CASES] = {0};
    mbl_status_t status;
    MBL_TRY_GOTO(mbl_bench_fixture_open(bench, dtype, bench->samples, sizes[SIZES - 1], &fixture), done);
    MBL_TRY_GOTO(mbl_bench_pass_open(&fixture, true, &pass), done);
    for (size_t i = 0; i < CASES; i++) {
        contexts[i] = (size_case_t){.pass = &pass, .k = i < FORWARD ? shapes[i].k : 1};
        cases[i].run = i == FORWARD ? run_forward : shapes[i].masks ? run_two_seed : run_separate;
        cases[i].context = &contexts[i];
        if (i < FORWARD)
            MBL_TRY_GOTO(set_masks(&contexts[i], shapes[i].masks), done);
    }
    MBL_TRY_GOTO(mbl_bench_alternate(bench, cases, CASES), done);
    status = report(bench, dtype, cases);
done:
    mbl_bench_forget(cases, CASES);
    for (size_t i = 0; i < CASES; i++)
        mbl_free(contexts[i].valid);
    mbl_bench_pass_close(&pass);
    mbl_bench_fixture_close(&fixture);
    return status;
}

mbl_status_t mbl_bench_gradients(const mbl_bench_t *bench) {
    MBL_TRY(time_type(bench, MBL_F32));
    return time_type(bench, MBL_BF16);
}
