/* cases: lists the names; cases NAME: runs one and fails unless the checkers say exactly what they must. */
#include "tests/emulation/cases.h"

#include "gpu/emulation/emulator.h"

#include <stdio.h>
#include <string.h>

static bool make(void **out, size_t bytes, int value) {
    return cudaMalloc(out, bytes) == cudaSuccess && cudaMemset(*out, value, bytes) == cudaSuccess;
}

static bool make_fixture(fixture_t *w) {
    return make((void **)&w->a, COUNT * sizeof(float), 0x3f) &&
           make((void **)&w->b, COUNT * sizeof(float), 0x3f) &&
           make((void **)&w->n, COUNT * sizeof(int), 0) &&
           cudaMalloc((void **)&w->fresh, COUNT * sizeof(float)) == cudaSuccess &&
           cudaStreamCreateWithFlags(&w->stream, cudaStreamNonBlocking) == cudaSuccess &&
           cudaStreamCreateWithFlags(&w->other, cudaStreamNonBlocking) == cudaSuccess &&
           cudaDeviceSynchronize() == cudaSuccess;
}

/* NAN in b stands for a wrong result. */
static bool results_good(const fixture_t *w) {
    float b[COUNT];
    if (cudaMemcpy(b, w->b, sizeof b, cudaMemcpyDeviceToHost) != cudaSuccess)
        return false;
    for (int i = 0; i < COUNT; i++)
        if (b[i] != b[i])
            return false;
    return true;
}

static int run(const case_t *c) {
    fixture_t w;
    if (!make_fixture(&w)) {
        printf("%s: cannot make its memory and streams: %s\n", c->name,
               cudaGetErrorString(cudaGetLastError()));
        return 1;
    }
    int failed = 0;
    c->run(&w);
    cudaError_t error = cudaDeviceSynchronize();
    const char *report = mbl_emu_last_report();
    if (error != c->error) {
        printf("%s: gave %s, expected %s\n", c->name, cudaGetErrorName(error), cudaGetErrorName(c->error));
        failed = 1;
    }
    for (int i = 0; i < 4 && c->report[i]; i++)
        if (!strstr(report, c->report[i])) {
            printf("%s: the report lacks '%s':\n    %s\n", c->name, c->report[i], report);
            failed = 1;
        }
    if (!c->report[0] && *report) {
        printf("%s: reported without reason: %s\n", c->name, report);
        failed = 1;
    }
    if (c->error == cudaSuccess && !failed && !results_good(&w)) {
        printf("%s: a result is wrong\n", c->name);
        failed = 1;
    }
    return failed;
}

int main(int argc, char **argv) {
    const case_t *const all[] = {bounds_cases, race_cases, warp_cases, memory_cases, order_cases, copy_cases};
    bool found = false;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        for (const case_t *c = all[i]; c->name; c++) {
            if (argc < 2)
                printf("%s\n", c->name);
            else if (strcmp(argv[1], c->name) == 0)
                return run(c);
            found |= argc < 2;
        }
    if (!found)
        printf("no case %s\n", argv[1]);
    return !found;
}
