/* Choosing the GPU of a rank. Ranks of a job that run on one host must not share one: each claims its GPU by
 * binding an abstract socket named after the GPU and the job, which ends with the process. */
#include "gpu/device.h"
#include "gpu/cuda.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { OLDEST_CAPABILITY = 80 }; /* bf16 tensor cores */

/* The first of these variables that is set, as a number; fallback where none is. */
static int number_from(const char *const names[], int fallback) {
    for (; *names; names++) {
        const char *text = getenv(*names);
        if (text && *text)
            return atoi(text);
    }
    return fallback;
}

static mbl_status_t find_driver(mbl_device_t *device) {
    int built = 0;
    MBL_CUDA_TRY(cudaRuntimeGetVersion(&built), "asking for the version");
    if (cudaDriverGetVersion(&device->driver) != cudaSuccess || device->driver == 0)
        return MBL_FAIL(
            MBL_ERR_UNSUPPORTED,
            "device cuda: no NVIDIA driver here (libcuda.so.1 is missing); run on a machine with a GPU, in "
            "a container with --nv or --gpus all, or set device: cpu");
    if (device->driver / 1000 < built / 1000)
        return MBL_FAIL(MBL_ERR_UNSUPPORTED,
                        "device cuda: the driver takes CUDA up to %d.%d and this build needs %d.%d; update "
                        "the driver, or "
                        "build with an older CUDA",
                        device->driver / 1000, device->driver % 1000 / 10, built / 1000, built % 1000 / 10);
    return MBL_OK;
}

static mbl_status_t count_devices(mbl_device_t *device) {
    cudaError_t error = cudaGetDeviceCount(&device->count);
    if (error != cudaSuccess)
        cudaGetLastError();
    if (error == cudaSuccess && device->count > 0)
        return MBL_OK;
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    return MBL_FAIL(MBL_ERR_UNSUPPORTED, "device cuda: the driver shows no GPU (%s)%s%s%s",
                    error == cudaSuccess ? "there is none" : cudaGetErrorString(error),
                    visible ? "; CUDA_VISIBLE_DEVICES is '" : "", visible ? visible : "", visible ? "'" : "");
}

/* Ranks on one host take the visible devices in turn. A launcher that shows each rank one device only (Slurm
 * with --gpus-per-task) has chosen already. */
static mbl_status_t choose(mbl_device_t *device) {
    static const char *const local_rank[] = {"OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID", "MPI_LOCALRANKID",
                                             NULL};
    int rank = number_from(local_rank, 0);
    device->index = device->count > 0 ? rank % device->count : 0;
    struct cudaDeviceProp properties;
    MBL_CUDA_TRY(cudaGetDeviceProperties(&properties, device->index), "asking about the device");
    device->capability = 10 * properties.major + properties.minor;
    device->multiprocessors = properties.multiProcessorCount;
    device->memory = properties.totalGlobalMem;
    snprintf(device->name, sizeof device->name, "%.120s", properties.name);
    if (device->capability < OLDEST_CAPABILITY)
        return MBL_FAIL(
            MBL_ERR_UNSUPPORTED,
            "device cuda: %s has compute capability %d.%d; at least %d.%d is needed (Ampere or newer)",
            device->name, device->capability / 10, device->capability % 10, OLDEST_CAPABILITY / 10,
            OLDEST_CAPABILITY % 10);
    return MBL_OK;
}

/* The address of the claim: an abstract name, which leaves no file behind. Returns its length. */
static socklen_t claim_name(const struct cudaDeviceProp *properties, struct sockaddr_un *address) {
    static const char *const jobs[] = {"PMIX_NAMESPACE", "SLURM_JOB_ID", "OMPI_MCA_ess_base_jobid"};
    const char *job = NULL;
    char *at = address->sun_path + 1;
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs && !job; i++)
        job = getenv(jobs[i]);
    at += sprintf(at, "marble-gpu-");
    for (size_t i = 0; i < sizeof properties->uuid.bytes; i++)
        at += sprintf(at, "%02x", (unsigned)(unsigned char)properties->uuid.bytes[i]);
    at += snprintf(at, 40, "-%.38s", job ? job : "");
    return (socklen_t)(at - (char *)address);
}

/* The process that holds a claim; 0 where that is not known. */
static pid_t holder_of(const struct sockaddr_un *address, socklen_t length) {
    struct ucred peer = {0};
    socklen_t size = sizeof peer;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return 0;
    if (connect(fd, (const struct sockaddr *)address, length) != 0 ||
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
        peer.pid = 0;
    close(fd);
    return peer.pid;
}

static mbl_status_t claim(mbl_device_t *device) {
    static const char *const sizes[] = {"OMPI_COMM_WORLD_LOCAL_SIZE", "SLURM_NTASKS_PER_NODE",
                                        "MPI_LOCALNRANKS", NULL};
    static const char *const share[] = {"MARBLE_SHARE_GPU", NULL};
    int ranks = number_from(sizes, 1);
    struct cudaDeviceProp properties;
    struct sockaddr_un address;
    if (ranks < 2 || number_from(share, 0) == 1)
        return MBL_OK;
    MBL_CUDA_TRY(cudaGetDeviceProperties(&properties, device->index), "asking about the device");
    socklen_t length = claim_name(&properties, &address);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return MBL_FAIL(MBL_ERR_DEVICE, "device cuda: no socket to claim the GPU with (%s)", strerror(errno));
    if (bind(fd, (const struct sockaddr *)&address, length) == 0 && listen(fd, 8) == 0) {
        device->claim = fd;
        return MBL_OK;
    }
    bool taken = errno == EADDRINUSE;
    close(fd);
    pid_t holder = taken ? holder_of(&address, length) : 0;
    if (!taken || holder == getpid())
        return MBL_OK;
    return MBL_FAIL(MBL_ERR_DEVICE,
                    "device cuda: two ranks of this job would share GPU %d (%s): process %d has it, and this "
                    "host shows %d "
                    "for %d ranks; start at most one rank per GPU, or allow it with MARBLE_SHARE_GPU=1",
                    device->index, device->name, (int)holder, device->count, ranks);
}

mbl_status_t mbl_device_open(mbl_device_t *device) {
    MBL_TRY(find_driver(device));
    MBL_TRY(count_devices(device));
    MBL_TRY(choose(device));
    MBL_TRY(claim(device));
    MBL_CUDA_TRY(cudaSetDevice(device->index), "choosing the device");
    return MBL_OK;
}

void mbl_device_release(mbl_device_t *device) {
    if (device->claim >= 0)
        close(device->claim);
    device->claim = -1;
}
