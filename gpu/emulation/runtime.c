/* CUDA's runtime: settings, devices, errors. */
#include "gpu/emulation/call.h"
#include "gpu/emulation/checks.h"
#include "gpu/emulation/executor.h"
#include "gpu/emulation/queue.h"

#include "base/log.h"

#include <nccl.h>

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

mbl_emu_settings_t mbl_emu_settings;
static __thread int current_device;
static __thread cudaError_t last_error;
static struct {
    pthread_mutex_t lock;
    bool ready;
    char report[4 * MBL_EMU_TEXT];
} runtime;

/* "8G" as bytes; 0: no number. */
static size_t size_of(const char *text) {
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    double unit = *end == 'K' ? 1024.0 : *end == 'M' ? 1048576.0 : *end == 'G' ? 1073741824.0 : 1.0;
    bool good = errno == 0 && end != text && value > 0 && (*end == '\0' || end[1] == '\0');
    return good && value * unit <= (double)(MBL_EMU_SPAN / 2) ? (size_t)(value * unit) : 0;
}

static int number_of(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

static mbl_emu_checks_t read_checks(void) {
    static const char *const names[] = {"off", "first", "all"};
    const char *text = getenv("MARBLE_EMULATED_CHECKS");
    for (int i = 0; i < 3 && MBL_EMULATION_CHECKS; i++)
        if (text && strcmp(text, names[i]) == 0)
            return (mbl_emu_checks_t)i;
    if (text && MBL_EMULATION_CHECKS)
        MBL_WARN("MARBLE_EMULATED_CHECKS=%s; expected off, first or all; first is used", text);
    return MBL_EMULATION_CHECKS ? MBL_EMU_CHECKS_FIRST : MBL_EMU_CHECKS_OFF;
}

static void read_settings(void) {
    const char *devices = getenv("MARBLE_EMULATED_DEVICES"), *memory = getenv("MARBLE_EMULATED_MEMORY"),
               *blocking = getenv("CUDA_LAUNCH_BLOCKING");
    mbl_emu_settings_t *s = &mbl_emu_settings;
    s->devices = devices ? atoi(devices) : MBL_EMU_MOST_DEVICES;
    s->memory = memory ? size_of(memory) : (size_t)8 << 30;
    s->checks = read_checks();
    s->blocking = blocking && strcmp(blocking, "0") != 0;
    s->driver = number_of("MARBLE_EMULATED_DRIVER", CUDART_VERSION);
    s->nccl = number_of("MARBLE_EMULATED_NCCL", NCCL_VERSION_CODE);
    s->capability = number_of("MARBLE_EMULATED_CAPABILITY", 90);
    s->gelu = number_of("MARBLE_EMULATED_GELU", 1);
    s->broken_launch = (uint64_t)number_of("MARBLE_EMULATED_ECC", 0);
    if (s->devices < 0 || s->devices > MBL_EMU_MOST_DEVICES) {
        MBL_ERROR("MARBLE_EMULATED_DEVICES=%s; expected 0 to %d", devices, MBL_EMU_MOST_DEVICES);
        s->devices = 0;
    }
    if (s->memory == 0) {
        MBL_ERROR("MARBLE_EMULATED_MEMORY=%s; expected a number of bytes, or one with K, M or G, at most 32G",
                  memory);
        s->devices = 0;
    }
}

static void set_up(void) {
    read_settings();
    if (!mbl_emu_memory_open() || !mbl_emu_shared_open() || !mbl_emu_checks_open()) {
        MBL_ERROR("emulation: no address space for device memory and its shadow (is `ulimit -v` set?)");
        mbl_emu_settings.devices = 0;
    }
    mbl_emu_queue_open();
    mbl_emu_faults_open();
}

static void make_lock(void) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&runtime.lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
}

void mbl_emu_lock(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_lock);
    pthread_mutex_lock(&runtime.lock);
    if (!runtime.ready) {
        runtime.ready = true;
        set_up();
    }
}

void mbl_emu_unlock(void) {
    pthread_mutex_unlock(&runtime.lock);
}

int mbl_emu_current_device(void) {
    return current_device;
}

/* ---- errors ---- */

cudaError_t mbl_emu_error(cudaError_t error) {
    if (error != cudaSuccess && error != cudaErrorNotReady)
        last_error = error;
    return error;
}

void mbl_emu_report(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(runtime.report, sizeof runtime.report, format, args);
    va_end(args);
    MBL_ERROR("emulation: %s", runtime.report);
}

const char *mbl_emu_last_report(void) {
    return runtime.report;
}

void mbl_emu_forget_report(void) {
    runtime.report[0] = '\0';
}

cudaError_t cudaGetLastError(void) {
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError(void) {
    return last_error;
}

static const struct {
    cudaError_t error;
    const char *name, *text;
} errors[] = {
#define ERROR(name, value, text) {name, #name, text},
    MBL_EMU_ERRORS(ERROR)
#undef ERROR
};

const char *cudaGetErrorName(cudaError_t error) {
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].error == error)
            return errors[i].name;
    return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error) {
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].error == error)
            return errors[i].text;
    return "unrecognized error code";
}

/* ---- devices ---- */

/* 0 without a driver, which is no error. */
static cudaError_t driver_version(int *version) {
    *version = mbl_emu_settings.driver;
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *version) {
    CALL(driver_version(version));
}

cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}

static cudaError_t device_count(int *count) {
    *count = mbl_emu_settings.driver < CUDART_VERSION / 1000 * 1000 ? 0 : mbl_emu_settings.devices;
    return *count > 0                     ? cudaSuccess
           : mbl_emu_settings.devices > 0 ? cudaErrorInsufficientDriver
                                          : cudaErrorNoDevice;
}
cudaError_t cudaGetDeviceCount(int *count) {
    CALL(device_count(count));
}

static cudaError_t check_device(int device) {
    return mbl_emu_settings.devices == 0                      ? cudaErrorNoDevice
           : device >= 0 && device < mbl_emu_settings.devices ? cudaSuccess
                                                              : cudaErrorInvalidDevice;
}

static cudaError_t set_device(int device) {
    cudaError_t error = check_device(device);
    if (error == cudaSuccess)
        current_device = device;
    return error;
}
cudaError_t cudaSetDevice(int device) {
    CALL(set_device(device));
}

cudaError_t cudaGetDevice(int *device) {
    *device = current_device;
    return cudaSuccess;
}

static cudaError_t properties(struct cudaDeviceProp *out, int device) {
    cudaError_t error = check_device(device);
    if (error != cudaSuccess)
        return error;
    *out = (struct cudaDeviceProp){.totalGlobalMem = mbl_emu_settings.memory,
                                   .sharedMemPerBlock = MBL_EMU_STATIC_SHARED,
                                   .sharedMemPerBlockOptin = MBL_EMU_MOST_SHARED,
                                   .sharedMemPerMultiprocessor = (size_t)MBL_EMU_MOST_SHARED + 1024,
                                   .regsPerBlock = 65536,
                                   .warpSize = MBL_EMU_WARP,
                                   .maxThreadsPerBlock = MBL_EMU_MOST_THREADS,
                                   .maxThreadsDim = {1024, 1024, 64},
                                   .maxGridSize = {0x7fffffff, 65535, 65535},
                                   .major = mbl_emu_settings.capability / 10,
                                   .minor = mbl_emu_settings.capability % 10,
                                   .multiProcessorCount = 4,
                                   .maxThreadsPerMultiProcessor = 2048,
                                   .pciBusID = device + 1,
                                   .concurrentKernels = 1,
                                   .asyncEngineCount = 1};
    snprintf(out->name, sizeof out->name, "emulated");
    memcpy(out->uuid.bytes, "emulated device", sizeof out->uuid.bytes);
    out->uuid.bytes[15] = (char)device;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *out, int device) {
    CALL(properties(out, device));
}

static cudaError_t attribute(int *value, enum cudaDeviceAttr what, int device) {
    struct cudaDeviceProp p;
    cudaError_t error = properties(&p, device);
    if (error != cudaSuccess)
        return error;
    switch (what) {
    case cudaDevAttrMaxThreadsPerBlock:
        *value = p.maxThreadsPerBlock;
        return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *value = (int)p.sharedMemPerBlock;
        return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
        *value = p.multiProcessorCount;
        return cudaSuccess;
    case cudaDevAttrEccEnabled:
        *value = p.ECCEnabled;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
        *value = p.major;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
        *value = p.minor;
        return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = (int)p.sharedMemPerBlockOptin;
        return cudaSuccess;
    }
    return cudaErrorInvalidValue;
}
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr what, int device) {
    CALL(attribute(value, what, device));
}

static cudaError_t bus_id(char *id, int length, int device) {
    cudaError_t error = check_device(device);
    if (error == cudaSuccess && length < 13)
        return cudaErrorInvalidValue;
    if (error == cudaSuccess)
        snprintf(id, (size_t)length, "0000:%02X:00.0", (unsigned)device + 1);
    return error;
}
cudaError_t cudaDeviceGetPCIBusId(char *id, int length, int device) {
    CALL(bus_id(id, length, device));
}

static cudaError_t device_synchronize(void) {
    cudaError_t error = mbl_emu_refuse_capture(NULL);
    return error != cudaSuccess ? error : mbl_emu_finish_device(current_device);
}
cudaError_t cudaDeviceSynchronize(void) {
    CALL(device_synchronize());
}

static cudaError_t device_reset(void) {
    mbl_emu_queue_reset(current_device);
    mbl_emu_memory_reset(current_device);
    last_error = cudaSuccess;
    return cudaSuccess;
}
cudaError_t cudaDeviceReset(void) {
    CALL(device_reset());
}

cudaError_t mbl_emu_check_current(void) {
    cudaError_t error = check_device(current_device);
    return error != cudaSuccess ? error : mbl_emu_device_error(current_device);
}
