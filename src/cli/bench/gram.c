/* marble bench gram: what balancing costs after the gradients are there (reduction, Gram matrix, QP,
 * broadcast), on the adapter of the signs model, against a whole step of the same run, and on one of the size
 * that Stable Diffusion 3.5 Medium has. */
#include "cli/bench/update.h"

#include <stdio.h>

enum { SMALL = 5, LARGE = 20, TIMESTEPS = 4 };
/* Rank 32 at the 191 sites of Stable Diffusion 3.5 Medium; memory that K = 5 of it may take. */
#define SD35M_PARAMETERS ((size_t)18776064)
#define SD35M_FREE_BYTES 4e9

static const mbl_bench_method_t marble = {"marble", MBL_METHOD_MARBLE, false, false, 1, 0, false};

typedef struct {
    mbl_bench_fixture_t *fixture;
    size_t k;
} gram_case_t;

static mbl_status_t run_weigh(void *context) {
    const gram_case_t *one = context;
    MBL_TRY(mbl_bench_weigh(one->fixture, &marble, one->k));
    return one->fixture->ops->table->sync(one->fixture->ops);
}

static mbl_status_t run_step(void *context) {
    const gram_case_t *one = context;
    return mbl_bench_update(one->fixture, &marble, one->k, TIMESTEPS);
}

static mbl_status_t print_gram(const mbl_bench_t *bench, const char *what, size_t k, size_t parameters,
                               const double *seconds, const double *step) {
    mbl_bench_time_t time = mbl_bench_time(seconds, bench->runs);
    const mbl_bench_figure_t figures[] = {
        {.name = "k", .value = (double)k},
        {.name = "parameters", .value = (double)parameters},
        {.name = "bytes", .value = (double)(2 * (k + 1) * parameters * sizeof(double))},
        {.name = "percent_of_step", .value = step ? 100 * mbl_bench_ratio(seconds, step, bench->runs) : 0}};
    return mbl_bench_print(bench, "gram", what, &time, figures, step ? 4 : 3);
}

/* The step is that of the faster type, bf16: the share can only be smaller in f32. */
static mbl_status_t time_signs(const mbl_bench_t *bench) {
    mbl_bench_fixture_t fixture;
    gram_case_t small = {&fixture, SMALL}, large = {&fixture, LARGE};
    mbl_bench_case_t cases[] = {{run_weigh, &small, NULL},
                                {run_step, &large, NULL},
                                {run_weigh, &large, NULL},
                                {run_step, &small, NULL}};
    mbl_status_t status;
    MBL_TRY_GOTO(mbl_bench_fixture_open(bench, MBL_BF16, bench->samples, LARGE, &fixture), done);
    MBL_TRY_GOTO(run_step(&large), done);
    MBL_TRY_GOTO(mbl_bench_alternate(bench, cases, 4), done);
    MBL_TRY_GOTO(print_gram(bench, "signs", SMALL, fixture.update.padded, cases[0].seconds, cases[3].seconds),
                 done);
    status = print_gram(bench, "signs", LARGE, fixture.update.padded, cases[2].seconds, cases[1].seconds);
done:
    mbl_bench_forget(cases, 4);
    mbl_bench_fixture_close(&fixture);
    return status;
}

/* Bytes this machine can still give, 0 where that is not known. */
static double free_bytes(void) {
    char line[128];
    double kibibytes = 0;
    FILE *file = fopen("/proc/meminfo", "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %lf", &kibibytes) == 1)
            break;
    if (file)
        fclose(file);
    return 1024 * kibibytes;
}

static mbl_status_t fill_sets(mbl_bench_fixture_t *w) {
    int64_t id[SMALL + 1];
    mbl_tensor_t sample = {.data = NULL};
    for (int64_t i = 0; i <= SMALL; i++)
        id[i] = i;
    MBL_TRY(mbl_tensor_new(w->ops, MBL_I64, &sample, 1, (size_t)(SMALL + 1)));
    mbl_status_t status = mbl_tensor_upload(w->ops, &sample, id);
    if (status == MBL_OK)
        status = MBL_OP(w->ops, normal, .y = &w->update.sets, .sample = &sample, .seed = 1, .purpose = 10);
    mbl_tensor_free(w->ops, &sample);
    return status;
}

static mbl_status_t time_sd35m(const mbl_bench_t *bench) {
    mbl_bench_fixture_t fixture = {.update = {.padded = SD35M_PARAMETERS}};
    gram_case_t context = {&fixture, SMALL};
    mbl_bench_case_t one = {run_weigh, &context, NULL};
    mbl_status_t status;
    if (free_bytes() < SD35M_FREE_BYTES) {
        fprintf(stderr, "gram sd35m left out: less than %.0f GB of memory are free\n",
                1e-9 * SD35M_FREE_BYTES);
        return MBL_OK;
    }
    MBL_TRY(mbl_ops_open(bench->device, bench->threads, &fixture.ops));
    MBL_TRY_GOTO(mbl_comm_open("self", 0, &fixture.comm), done);
    MBL_TRY_GOTO(mbl_comm_attach(fixture.comm, fixture.ops), done);
    fixture.update.ops = fixture.ops;
    fixture.update.comm = fixture.comm;
    MBL_TRY_GOTO(
        mbl_tensor_new(fixture.ops, MBL_F64, &fixture.update.sets, 2, (size_t)(SMALL + 1), SD35M_PARAMETERS),
        done);
    MBL_TRY_GOTO(
        mbl_tensor_new(fixture.ops, MBL_F64, &fixture.update.shard, 2, (size_t)(SMALL + 1), SD35M_PARAMETERS),
        done);
    MBL_TRY_GOTO(fill_sets(&fixture), done);
    MBL_TRY_GOTO(mbl_bench_alternate(bench, &one, 1), done);
    status = print_gram(bench, "sd35m", SMALL, fixture.update.padded, one.seconds, NULL);
done:
    mbl_bench_forget(&one, 1);
    mbl_bench_fixture_close(&fixture);
    return status;
}

mbl_status_t mbl_bench_gram(const mbl_bench_t *bench) {
    MBL_TRY(time_signs(bench));
    return time_sd35m(bench);
}
