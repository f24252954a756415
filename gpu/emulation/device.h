/* What compiled kernels call in the executor: the thread's indices, barriers, warp collectives, shared
 * memory, and the launch itself. C, also included by the kernels' C++. Kernels use the macros of gpu/kernel.h
 * and CUDA's own names, never these. */
#ifndef MBL_GPU_EMULATION_DEVICE_H
#define MBL_GPU_EMULATION_DEVICE_H

#include <cuda_runtime_api.h>

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { MBL_EMU_WARP = 32, MBL_EMU_MOST_THREADS = 1024 };

/* Indices of the running thread. Read with MBL_EMU_READ, which the checkers do not see; every thread of a
 * block runs on the host thread that launched it. */
typedef struct {
    uint3 thread, block, block_dim, grid_dim;
} mbl_emu_index_t;
extern mbl_emu_index_t mbl_emu_index;

#if defined __x86_64__
#define MBL_EMU_READ(out, in) __asm__("movl %1, %0" : "=r"(out) : "m"(in))
#elif defined __aarch64__
#define MBL_EMU_READ(out, in) __asm__("ldr %w0, %1" : "=r"(out) : "m"(in))
#else
unsigned mbl_emu_read(const unsigned *in);
#define MBL_EMU_READ(out, in) ((out) = mbl_emu_read(&(in)))
#endif

/* A place in a kernel's source. */
typedef struct {
    const char *file;
    int line;
} mbl_emu_site_t;

/* __syncthreads. All threads of the block must be there, at one site, and none may have ended. */
void mbl_emu_barrier(const char *file, int line);

/* What the lanes of a warp do together; every lane named in the mask must arrive with the same mask. */
typedef enum {
    MBL_EMU_SYNC,
    MBL_EMU_SHUFFLE_INDEX,
    MBL_EMU_SHUFFLE_UP,
    MBL_EMU_SHUFFLE_DOWN,
    MBL_EMU_SHUFFLE_XOR,
    MBL_EMU_BALLOT,
    MBL_EMU_MMA_BF16,
    MBL_EMU_LOAD_MATRICES,
    MBL_EMU_LOAD_MATRICES_TRANSPOSED
} mbl_emu_collective_t;
void mbl_emu_syncwarp(unsigned mask, int line);
uint64_t mbl_emu_shuffle(mbl_emu_collective_t kind, unsigned mask, uint64_t value, int argument, int width,
                         int line);
unsigned mbl_emu_ballot(unsigned mask, int predicate, int line);
unsigned mbl_emu_activemask(void);
/* Operands as gpu/mma.h lays them out. */
void mbl_emu_mma_bf16(float *d, const uint32_t *a, const uint32_t *b, int line);
void mbl_emu_load_matrices(uint32_t *out, const void *row, bool transposed, int line);

/* cp.async: 16 bytes (zeros where !some) arrive when the thread waits for the group. */
void mbl_emu_copy16(void *shared, const void *from, bool some);
void mbl_emu_copy_commit(void);
void mbl_emu_copy_wait(int newest);

/* The array of a MBL_SHARED at this site, the same for all threads of the block. `site` is any address that
 * stands for it. */
void *mbl_emu_shared(const void *site, const char *name, size_t bytes);
void *mbl_emu_shared_dynamic(const char *name);

/* Atomic read-modify-write of 4 or 8 bytes: informs the checkers; the operation itself is the caller's. */
void mbl_emu_atomic(const void *address, size_t bytes);

/* The quick copy of a kernel, without calls of the checkers (copies.c), found by what stands for its file and
 * by its name as the compiler spells it. */
typedef struct mbl_emu_quick mbl_emu_quick_t;
struct mbl_emu_quick {
    const void *file;
    const char *name;
    void (*run)(const void *arguments);
    mbl_emu_quick_t *next;
};
/* Before main() begins; *quick stays in use. */
bool mbl_emu_quick_add(mbl_emu_quick_t *quick, const char *name);
const mbl_emu_quick_t *mbl_emu_quick_of(const void *file, const char *name); /* NULL: there is none */

/* Puts a launch into the stream's queue. run(arguments) is one thread of the kernel; the bytes of arguments
 * are copied. The error, if any, is also what cudaGetLastError gives. */
typedef struct {
    const char *name;
    const void *function; /* identity, for cudaFuncSetAttribute */
    void (*run)(const void *arguments);
    void (*run_quick)(const void *arguments); /* the same in its quick copy; NULL: no such copy */
    const void *arguments;
    size_t argument_bytes;
    dim3 grid, block;
    size_t shared_bytes;
} mbl_emu_launch_t;
cudaError_t mbl_emu_launch(const mbl_emu_launch_t *launch, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
