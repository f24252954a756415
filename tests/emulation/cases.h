/* Kernels with exactly one bug each, and kernels without: what the emulation's checkers must say of each. */
#ifndef MBL_TESTS_EMULATION_CASES_H
#define MBL_TESTS_EMULATION_CASES_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { COUNT = 256 }; /* numbers in each buffer */

/* What a case works on: device memory, all but `fresh` written, and two streams. */
typedef struct {
    float *a, *b, *fresh;
    int *n; /* [COUNT] zeros */
    cudaStream_t stream, other;
} fixture_t;

typedef struct {
    const char *name;
    void (*run)(const fixture_t *fixture);
    cudaError_t error;     /* what waiting for the device gives */
    const char *report[4]; /* all of these are in the report; none: there is no report */
} case_t;

extern const case_t bounds_cases[], race_cases[], warp_cases[], memory_cases[], order_cases[], copy_cases[];

#ifdef __cplusplus
}
#endif

#endif
