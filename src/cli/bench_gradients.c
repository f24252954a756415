/* marble bench gradients: all K rewards' gradients of one micro-batch, kl off, from the two seeds of
 * method.md section 4, and from K backward passes that share the forward passes. */
#include "cli/bench_pass.h"

enum { SIZES = 4, CASES = 2 * SIZES };
static const size_t sizes[SIZES] = {1, 5, 10, 20};

typedef struct {
    mbl_bench_pass_t *pass;
    size_t k;
} size_case_t;

static mbl_status_t run_two_seed(void *context) {
    const size_case_t *one = context;
    mbl_bench_world_t *w = one->pass->world;
    mbl_gradient_args_t args = mbl_bench_world_args(w, one->k, 1, 0);
    mbl_gradient_stats_t stats;
    mbl_tensor_t sets = mbl_tensor_rows(&w->sets, 0, one->k + 1);
    MBL_TRY(mbl_gradient_run(w->gradient, &args, &sets, &stats));
    return w->ops->table->sync(w->ops);
}

static mbl_status_t run_separate(void *context) {
    const size_case_t *one = context;
    return mbl_bench_pass_separate(one->pass, one->k);
}

/* Every two_seed case, then every separate one, by size. */
static mbl_status_t print_all(const mbl_bench_t *bench, mbl_dtype_t dtype, const mbl_bench_case_t *cases) {
    const double *five = cases[1].seconds;
    for (size_t i = 0; i < CASES; i++) {
        const double *seconds = cases[i].seconds, *separate = cases[SIZES + i % SIZES].seconds;
        mbl_bench_time_t time = mbl_bench_time(seconds, bench->runs);
        const mbl_bench_figure_t figures[] = {
            {.name = "k", .value = (double)sizes[i % SIZES]},
            {.name = "dtype", .text = mbl_dtype_name(dtype)},
            {.name = "samples", .value = (double)bench->samples},
            {.name = "relative_to_separate", .value = mbl_bench_ratio(seconds, separate, bench->runs)},
            {.name = "relative_to_k5", .value = mbl_bench_ratio(seconds, five, bench->runs)}};
        MBL_TRY(mbl_bench_print(bench, "gradients", i < SIZES ? "two_seed" : "separate", &time, figures,
                                i < SIZES ? 5 : 4));
    }
    return MBL_OK;
}

static mbl_status_t time_type(const mbl_bench_t *bench, mbl_dtype_t dtype) {
    mbl_bench_world_t world;
    mbl_bench_pass_t pass = {.world = NULL};
    mbl_bench_case_t cases[CASES] = {0};
    size_case_t contexts[CASES];
    mbl_status_t status;
    for (size_t i = 0; i < CASES; i++) {
        contexts[i] = (size_case_t){&pass, sizes[i % SIZES]};
        cases[i].run = i < SIZES ? run_two_seed : run_separate;
        cases[i].context = &contexts[i];
    }
    MBL_TRY_GOTO(mbl_bench_world_open(bench, dtype, bench->samples, sizes[SIZES - 1], &world), done);
    MBL_TRY_GOTO(mbl_bench_pass_open(&world, true, &pass), done);
    MBL_TRY_GOTO(mbl_bench_alternate(bench, cases, CASES), done);
    status = print_all(bench, dtype, cases);
done:
    mbl_bench_forget(cases, CASES);
    mbl_bench_pass_close(&pass);
    mbl_bench_world_close(&world);
    return status;
}

mbl_status_t mbl_bench_gradients(const mbl_bench_t *bench) {
    MBL_TRY(time_type(bench, MBL_F32));
    return time_type(bench, MBL_BF16);
}
