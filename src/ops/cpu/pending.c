/* Operations of the cpu backend that are still to be written: whoever writes one deletes its line here. */
#include "ops/cpu/cpu.h"

#define PENDING(name)                                                                                        \
    mbl_status_t mbl_cpu_##name(mbl_ops_t *ops, const mbl_##name##_args_t *args) {                           \
        (void)ops;                                                                                           \
        (void)args;                                                                                          \
        return MBL_FAIL(MBL_ERR_UNSUPPORTED, "%s: not written yet", #name);                                  \
    }

PENDING(matmul)
PENDING(attention)
PENDING(attention_bwd)

mbl_status_t mbl_cpu_matmuls_open(int threads, mbl_cpu_matmuls_t **out) {
    (void)threads;
    *out = NULL;
    return MBL_OK;
}
void mbl_cpu_matmuls_close(mbl_cpu_matmuls_t *matmuls) {
    (void)matmuls;
}
