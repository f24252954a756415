/* Where gelu of a bf16 product runs: in cublasLt's epilogues on a GPU that has them, in a kernel of our own
 * behind the product on one that has not, or where cublasLt refuses, which the log says once. The argument is
 * the number of launches a product takes here and whether there is something to say; the environment decides
 * (gpu/emulation/emulator.h). Values are those of the cpu backend to rounding. */
#include "mirror.h"

#include "base/log.h"
#include "base/rng.h"
#include "gpu/emulation/emulator.h"

#include <cublasLt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { M = 70, N = 48, K = 32 };
static size_t launches, launches_wanted;
static int lines_wanted;

cudaError_t __real_mbl_emu_launch(const mbl_emu_launch_t *launch, cudaStream_t stream);
cudaError_t __wrap_mbl_emu_launch(const mbl_emu_launch_t *launch, cudaStream_t stream);
cudaError_t __wrap_mbl_emu_launch(const mbl_emu_launch_t *launch, cudaStream_t stream) {
    launches++;
    return __real_mbl_emu_launch(launch, stream);
}

static mbl_tensor_t random_tensor(mbl_ops_t *ops, size_t rows, size_t columns, uint64_t sample) {
    mbl_tensor_t t = mirror_new(ops, MBL_BF16, 2, rows, columns, 0, 0);
    mbl_rng_t rng = mbl_rng(11, MBL_RNG_NOISE, 0, sample);
    float pair[2];
    for (size_t i = 0; i < rows * columns; i++) {
        mbl_rng_normal2(&rng, pair);
        mirror_put(&t, i, (double)pair[0]);
    }
    mirror_push(&t);
    return t;
}

/* y and, where it is kept, pre of every kind of product with gelu: [kinds][2][M N]. */
enum { KINDS = 6 };
static void run(const char *backend, double (*out)[2][M * N]) {
    mbl_ops_t *ops;
    assert_int_equal(mbl_ops_open(backend, 1, &ops), MBL_OK);
    for (int kind = 0; kind < KINDS; kind++) {
        bool add = kind % 2, keep = kind / 2 == 1, back = kind / 2 == 2;
        mbl_tensor_t y = random_tensor(ops, M, N, 1), other = random_tensor(ops, M, N, 2);
        mbl_tensor_t a = random_tensor(ops, M, K, 3), b = random_tensor(ops, N, K, 4);
        mbl_tensor_t row = random_tensor(ops, 1, N, 5), bias = mbl_tensor_reshape(&row, 1, (size_t)N);
        launches = 0;
        assert_int_equal(MBL_OP(ops, matmul, .y = &y, .a = &a, .b = &b, .bias = back ? NULL : &bias,
                                .pre = keep ? &other : NULL, .through = back ? &other : NULL,
                                .transpose_b = true, .accumulate = add, .act = MBL_ACT_GELU_TANH),
                         MBL_OK);
        if (!strcmp(backend, "cuda"))
            assert_int_equal(1 + launches, launches_wanted); /* cublasLt's own is not counted there */
        mirror_pull(&y);
        mirror_pull(&other);
        for (size_t i = 0; i < M * N; i++) {
            out[kind][0][i] = mirror_get(&y, i);
            out[kind][1][i] = mirror_get(&other, i);
        }
        mbl_tensor_t *all[] = {&y, &other, &a, &b, &row};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            mirror_free(all[i]);
    }
    mbl_ops_close(ops);
}

static int lines_with(const char *path, const char *text) {
    char line[512];
    int found = 0;
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file))
        found += strstr(line, text) != NULL;
    fclose(file);
    return found;
}

/* Three roundings to bf16 apart at most, of numbers up to about 20 that a slope of 1.13 magnifies. */
static void same_values_and_one_line(void **state) {
    (void)state;
    static double cuda[KINDS][2][M * N], cpu[KINDS][2][M * N];
    char path[] = "gelu-XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
    assert_int_equal(mbl_log_open(path), MBL_OK);
    run("cuda", cuda);
    assert_int_equal(mbl_log_open(NULL), MBL_OK);
    run("cpu", cpu);
    for (int kind = 0; kind < KINDS; kind++)
        for (int which = 0; which < 2; which++)
            for (size_t i = 0; i < M * N; i++) {
                double got = cuda[kind][which][i], want = cpu[kind][which][i];
                double allowed = 3 * 0x1p-8 * fmax(1, fabs(want)) * 1.13;
                if (!(fabs(got - want) <= allowed))
                    fail_msg("kind %d, %s, number %zu: cuda %.9g, cpu %.9g, %.3g is allowed", kind,
                             which ? "beside y" : "y", i, got, want, allowed);
            }
    int lines = lines_with(path, "cublasLt takes no gelu");
    unlink(path);
    assert_int_equal(lines, lines_wanted);
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: test_gelu LAUNCHES LINES\n");
        return 2;
    }
    launches_wanted = (size_t)atoi(argv[1]);
    lines_wanted = atoi(argv[2]);
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_values_and_one_line)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
