/* The emulated half of gpu/mma.h. */
#ifndef MBL_GPU_EMULATION_MMA_H
#define MBL_GPU_EMULATION_MMA_H

#include "gpu/emulation/device.h"

#define mbl_mma_bf16(d, a, b) mbl_emu_mma_bf16((d), (a), (b), __LINE__)
#define mbl_load_matrices(out, row) mbl_emu_load_matrices((out), (row), false, __LINE__)
#define mbl_load_matrices_transposed(out, row) mbl_emu_load_matrices((out), (row), true, __LINE__)

static inline void mbl_copy16(void *shared, const void *from, bool some) {
    mbl_emu_copy16(shared, from, some);
}
static inline void mbl_copy_commit() {
    mbl_emu_copy_commit();
}
template <int newest> static inline void mbl_copy_wait() {
    mbl_emu_copy_wait(newest);
}

static inline float mbl_exp2(float x) {
    return x < -126.0f ? 0.0f : exp2f(x);
}

static inline uint32_t mbl_pack_bf16(float low, float high) {
    return (uint32_t)mbl_emu_bf16_bits(low) | (uint32_t)mbl_emu_bf16_bits(high) << 16;
}

#endif
