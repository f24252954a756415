/* Stands in for the cuda backend in a build without CUDA: says how to get it. */
#include "ops/list.h"

static const char missing[] =
    "this build has no GPU backend; with CUDA 12.4 or newer installed: cmake --preset cuda && "
    "cmake --build --preset cuda";

static mbl_status_t stub_open(mbl_ops_t *ops, int threads) {
    (void)ops, (void)threads;
    return MBL_FAIL(MBL_ERR_UNSUPPORTED, "device cuda: %s", missing);
}

const mbl_ops_table_t mbl_ops_cuda = {
    .name = "cuda", .missing = missing, .automatic = true, .space = MBL_DEVICE, .open = stub_open};
