/* Stands in for the transport over NCCL in a build without it: says how to get it. */
#include "comm/list.h"

static int stub_available(const char **why_not) {
    *why_not = "this build has no NCCL; with CUDA and libnccl-dev installed: cmake --preset cuda && "
               "cmake --build --preset cuda";
    return 0;
}

const mbl_comm_table_t mbl_comm_nccl = {.name = "nccl", .space = MBL_DEVICE, .available = stub_available};
