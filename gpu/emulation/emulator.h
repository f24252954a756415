/* The emulator's own parts and how they meet: memory (devices' heaps, who owns which bytes), checks (shadow
 * of every byte), executor (fibres, barriers, collectives), queue (streams, events, order). CUDA's runtime is
 * process-wide by nature; so is this. One recursive lock, taken by every runtime call, guards all of it. */
#ifndef MBL_GPU_EMULATION_EMULATOR_H
#define MBL_GPU_EMULATION_EMULATOR_H

#include "gpu/emulation/device.h"

#include <stdbool.h>

enum {
    MBL_EMU_MOST_DEVICES = 8,
    MBL_EMU_MOST_STREAMS = 32, /* alive at once, over all devices, the default streams among them */
    MBL_EMU_ALIGN = 256,       /* of allocations, and at least so many bytes nobody owns behind each */
    MBL_EMU_STATIC_SHARED = 48 * 1024,
    MBL_EMU_TEXT = 320
};
#define MBL_EMU_SPAN ((size_t)1 << 36) /* of addresses, from one device to the next */

/* ---- what the environment sets: MARBLE_EMULATED_DEVICES (8), _MEMORY (bytes, or with K, M, G; 8G each),
 * _CHECKS (first, all, off: which launches are checked), _CAPABILITY (90, for 9.0: 80 or more),
 * CUDA_LAUNCH_BLOCKING (0; 1 runs work when it is asked for), and what goes wrong: _DRIVER (the CUDA that the
 * driver takes, 12020 for 12.2; 0: no driver), _NCCL (its version), _ECC (the launch, counted from 1, that
 * finds the memory broken), _GELU (1; 0: cublasLt has no algorithm for a product with gelu; 2: the product is
 * what refuses it) ---- */
typedef enum {
    MBL_EMU_CHECKS_OFF,   /* only what runs without shadow: barriers, collectives, faults, bounds of copies */
    MBL_EMU_CHECKS_FIRST, /* the first launches of a kernel with one grid, block and shared memory; copies,
                             library calls */
    MBL_EMU_CHECKS_ALL
} mbl_emu_checks_t;
enum { MBL_EMU_NO_GELU = 0, MBL_EMU_LATE_NO_GELU = 2 };
typedef struct {
    int devices, driver, nccl, capability, gelu;
    size_t memory;
    uint64_t broken_launch; /* 0: none */
    mbl_emu_checks_t checks;
    bool blocking;
} mbl_emu_settings_t;
extern mbl_emu_settings_t mbl_emu_settings;

/* Shared memory that a block may have: CUDA C++ Programming Guide, table of capabilities. */
#define MBL_EMU_MOST_SHARED                                                                                  \
    (1024 * (mbl_emu_settings.capability >= 120  ? 99                                                        \
             : mbl_emu_settings.capability >= 90 ? 227                                                       \
             : mbl_emu_settings.capability == 80 ? 163                                                       \
                                                 : 99))

void mbl_emu_lock(void); /* the first one sets everything up */
void mbl_emu_unlock(void);

/* ---- memory.c ---- */

typedef struct {
    size_t at, bytes; /* offset in the device's heap */
    bool live;        /* freed ones stay known until their addresses are used again */
    bool unseen;      /* launches that nobody checked may have written to it */
} mbl_emu_block_t;

bool mbl_emu_memory_open(void); /* false: no address space */
cudaError_t mbl_emu_allocate(int device, size_t bytes, void **out);
cudaError_t mbl_emu_release(int device, void *ptr);
size_t mbl_emu_allocated(int device);
void mbl_emu_memory_reset(int device);
/* The device whose heap holds the address, -1: none; its block (NULL: between blocks), and the nearest below.
 */
int mbl_emu_device_of(const void *address);
const mbl_emu_block_t *mbl_emu_block_of(int device, const void *address, const mbl_emu_block_t **nearest);
char *mbl_emu_heap(int device);
/* The block, if any, that the address is in has been given to a launch that nobody checks. */
void mbl_emu_unseen(int device, const void *address);
/* "byte 4100 of a device allocation of 4096 bytes": what an address is, for reports. */
void mbl_emu_describe(const void *address, char out[MBL_EMU_TEXT]);

/* Device memory may be touched between open and close only; they nest. */
void mbl_emu_access_open(void);
void mbl_emu_access_close(void);

/* Host memory made by cudaMallocHost. */
cudaError_t mbl_emu_pinned_new(size_t bytes, void **out);
cudaError_t mbl_emu_pinned_free(void *ptr);
bool mbl_emu_pinned(const void *address);

/* ---- fibre.c ---- */

typedef struct mbl_emu_fibre mbl_emu_fibre_t;
struct mbl_emu_fibre {
    void *context;         /* what mbl_emu_switch saved */
    char *stack;           /* [MBL_EMU_STACK] */
    int lane;              /* the thread it runs */
    mbl_emu_fibre_t *next; /* free ones */
};
enum { MBL_EMU_STACK = 64 * 1024 };
/* Saves this context into *save and goes on with `load`. */
void mbl_emu_switch(void **save, void *load);
/* A context that runs enter() on the stack [bytes] when switched to. enter must not return. */
void *mbl_emu_context(char *stack, size_t bytes, void (*enter)(void));

/* ---- checks: shadow.c, access.c, order.c, reports.c ---- */

/* A strand is a stretch of execution with an order of its own: one thread between two barriers, or one
 * operation of a stream. Numbers rise with time; 0 is nobody. */
typedef uint32_t mbl_emu_strand_t;
/* Who last wrote and last read two bytes. */
typedef struct {
    mbl_emu_strand_t writer, reader;
} mbl_emu_cell_t;
enum { MBL_EMU_OWNED = 1, MBL_EMU_SET = 2 }; /* state of a byte */

typedef enum { MBL_EMU_READ_ACCESS, MBL_EMU_WRITE_ACCESS, MBL_EMU_ATOMIC_ACCESS } mbl_emu_access_t;

/* One operation of a stream: a launch, a copy, a library call. Order between operations is a vector clock. */
typedef struct {
    const char *name;
    int device, stream;                   /* index of the stream */
    uint32_t clock[MBL_EMU_MOST_STREAMS]; /* operations of every stream that are ordered before, itself
                                              included */
} mbl_emu_order_t;

bool mbl_emu_checks_open(void);
void mbl_emu_checks_reset(int device);
void mbl_emu_checks_owned(int device, size_t at, size_t bytes, bool owned);
/* Around the execution of one operation. */
void mbl_emu_checks_begin(const mbl_emu_order_t *order);
/* A whole range touched by a copy or a library call; an error is reported and returned. May be called with
 * the checks off: then only bounds are looked at. */
cudaError_t mbl_emu_check_range(const void *address, size_t bytes, mbl_emu_access_t access, const char *what);
/* Bounds and order of the source of a copy within device memory, which may be uninitialised: what is, goes
 * along with the copy. */
cudaError_t mbl_emu_check_source(const void *address, size_t bytes, const char *what);
void mbl_emu_check_copied(const void *dst, const void *src, size_t bytes);
/* The last report of this process, "" when none: for tests. */
const char *mbl_emu_last_report(void);
void mbl_emu_forget_report(void);
void mbl_emu_report(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- faults.c ---- */

/* Catches SIGSEGV and SIGBUS. */
void mbl_emu_faults_open(void);

/* ---- copies.c ---- */

/* Whether the launch, which is about to run, takes the checked copy of its kernel. If not, what its arguments
 * point to counts as written from here on. */
bool mbl_emu_take_checked(const mbl_emu_launch_t *launch, int device);

/* ---- block.c, warp.c, shared.c ---- */

/* Runs a launch to its end, in the checked copy or the quick one; arguments are read from launch->arguments.
 */
cudaError_t mbl_emu_execute(const mbl_emu_launch_t *launch, bool checked);
/* Stops the running kernel with this error; does not return. Only from a kernel's fibre. */
void mbl_emu_stop(cudaError_t error) __attribute__((noreturn));
/* "kernel scale, block (0,0,0), thread (3,0,0)" of the running thread. */
void mbl_emu_where(char out[MBL_EMU_TEXT]);

/* ---- queue.c, streams.c, allocations.c, launch.c ---- */

/* Work for a stream. run gives the error of the operation; drop frees the body. cudaErrorNotReady from run
 * means: ask again later (a message of another rank is under way). */
typedef struct mbl_emu_body mbl_emu_body_t;
struct mbl_emu_body {
    char name[96];
    cudaError_t (*run)(mbl_emu_body_t *self);
    void (*drop)(mbl_emu_body_t *self); /* NULL: nothing but free(self) */
    int references;
};
/* A body of `bytes` in all, zeroed, with one reference; NULL without memory. */
mbl_emu_body_t *mbl_emu_body_new(size_t bytes, const char *name, cudaError_t (*run)(mbl_emu_body_t *self));
/* Takes the reference, also on failure. */
cudaError_t mbl_emu_enqueue(cudaStream_t stream, mbl_emu_body_t *body);
/* Sets what cudaGetLastError gives and passes it on. */
cudaError_t mbl_emu_error(cudaError_t error);

#endif
