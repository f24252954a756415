/* The benchmarks behind `marble bench`. A new one is a function mbl_bench_NAME in a file bench_*.c and a line
 * here. */
#ifndef MBL_CLI_BENCH_H
#define MBL_CLI_BENCH_H

#include "ops/ops.h"

#include <stdbool.h>
#include <stddef.h>

/* name, one line for the help */
#define MBL_BENCHES(X)                                                                                       \
    X(matmul, "matrix products at the shapes of the signs model")                                            \
    X(step, "a training step of the signs model, and whole optimizer steps by method")                       \
    X(gradients, "K rewards' gradients from two backward passes and from K")                                 \
    X(gram, "Gram matrix, weights and their broadcast")                                                      \
    X(attention, "attention forward and backward at the shapes of the signs model and of SD3.5")             \
    X(loops, "sample_grad, norms and other loops at the shapes of the signs model")                          \
    X(conv, "convolutions and group norms at the shapes of an image decoder")                                \
    X(pass,                                                                                                  \
      "a velocity and a training micro-batch of --model's shape with random weights, as a run does them")    \
    X(velocity, "the transformer of --model at its full size: loading it, and one velocity")                 \
    X(decode, "the image decoder of --model at its full size")                                               \
    X(codecs, "requests to reward servers, 64 images of 512 x 512, and their responses")                     \
    X(requests, "the same over a socket, to a server that answers at once, and to that of --url")

/* What was asked for on the command line. */
typedef struct {
    const char *device;
    int threads;    /* 0: as mbl_ops_open */
    size_t runs;    /* timed runs of a case, after two that are not */
    size_t samples; /* of a batch in step, gradients and gram */
    bool json;
    bool profile;            /* step, pass: the time of every operation too */
    const char *url, *model; /* requests: a server of the Open Inference Protocol, too; NULL: none. velocity
                                and decode: model is a folder; pass: a config.json, a folder or "signs" */
    size_t size; /* velocity, decode: side of the images; pass: of the latents, 0 for the model's own */
    size_t tokens, batch; /* velocity, decode, pass: context tokens, images at once */
    const char *graphs;   /* pass: "on" or "off" */
    bool cpu_time;        /* seconds of all threads of this process instead of the wall clock's */
} mbl_bench_t;

/* Seconds by the clock that was asked for. */
double mbl_bench_now(const mbl_bench_t *bench);

typedef struct {
    double median, min, max; /* seconds */
} mbl_bench_time_t;

/* A further figure of a case, by its name in the output. */
typedef struct {
    const char *name;
    double value;
    const char *text; /* instead of the value; NULL for a number */
} mbl_bench_figure_t;

/* Times run(context). Calls shorter than 2 ms are timed several at once. */
mbl_status_t mbl_bench_measure(const mbl_bench_t *bench, mbl_status_t (*run)(void *context), void *context,
                               mbl_bench_time_t *out);

/* One line: {"bench": .., "case": .., "ms": [median, min, max], figures}, or the same for people. */
mbl_status_t mbl_bench_print(const mbl_bench_t *bench, const char *name, const char *what,
                             const mbl_bench_time_t *time, const mbl_bench_figure_t *figures,
                             size_t n_figures);

/* A case among others that are timed in turn, round by round, so that all see the same machine. */
typedef struct {
    mbl_status_t (*run)(void *context);
    void *context;
    double *seconds; /* [runs], set by mbl_bench_alternate */
} mbl_bench_case_t;
/* Two rounds that are not counted (one when there is a single run), then bench->runs rounds of all cases,
 * every other one backwards. Free with mbl_bench_forget, also after a failure. */
mbl_status_t mbl_bench_alternate(const mbl_bench_t *bench, mbl_bench_case_t *cases, size_t n);
void mbl_bench_forget(mbl_bench_case_t *cases, size_t n);
mbl_bench_time_t mbl_bench_time(const double *seconds, size_t runs);
/* Median over the rounds of a / b. */
double mbl_bench_ratio(const double *a, const double *b, size_t runs);

/* Standard normal numbers in the tensor's own type, [a,b,c,d]; free with mbl_tensor_free. */
mbl_status_t mbl_bench_random(mbl_ops_t *ops, mbl_dtype_t dtype, mbl_tensor_t *out, size_t a, size_t b,
                              size_t c, size_t d);

/* ---- what the machine can do at most (limits.c) ---- */

/* Seconds in which as many bytes are read in one place and written to another. */
mbl_status_t mbl_bench_copy(const mbl_bench_t *bench, mbl_ops_t *ops, double bytes, double *out);
/* Floating-point operations a second of all threads of the backend in registers alone, with the instructions
 * that products of this type take; 0 where that is not known: on devices, and in bf16 with AMX. */
mbl_status_t mbl_bench_peak(const mbl_bench_t *bench, mbl_ops_t *ops, mbl_dtype_t dtype, double *out);

#define MBL_BENCH_DECLARE(name, summary) mbl_status_t mbl_bench_##name(const mbl_bench_t *bench);
MBL_BENCHES(MBL_BENCH_DECLARE)
#undef MBL_BENCH_DECLARE

#endif
