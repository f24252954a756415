/* The body of a CUDA call: under the lock, its error kept for cudaGetLastError. */
#ifndef MBL_GPU_EMULATION_CALL_H
#define MBL_GPU_EMULATION_CALL_H

#define CALL(expression)                                                                                     \
    mbl_emu_lock();                                                                                          \
    cudaError_t error_ = mbl_emu_error(expression);                                                          \
    mbl_emu_unlock();                                                                                        \
    return error_

#endif
