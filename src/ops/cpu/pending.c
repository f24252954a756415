/* Operations of the cpu backend that are still to be written: whoever writes one deletes its line here. */
#include "ops/cpu/cpu.h"

#define PENDING(name)                                                                                        \
    mbl_status_t mbl_cpu_##name(mbl_ops_t *ops, const mbl_##name##_args_t *args) {                           \
        (void)ops;                                                                                           \
        (void)args;                                                                                          \
        return MBL_FAIL(MBL_ERR_UNSUPPORTED, "%s: not written yet", #name);                                  \
    }

PENDING(attention)
PENDING(attention_bwd)
