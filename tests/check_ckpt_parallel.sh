#!/bin/sh
# checkpoint.writer: parallel on two ranks, and an I/O error inside MPI-IO at the second checkpoint: the job ends within
# limits.deadline, and the first checkpoint is whole and the latest. Then a message about one that MPI does not take: the
# job ends at once. $1 is the marble program.
here=$(dirname "$0")
marble=$1
command -v cc >/dev/null || { echo "skipped: no C compiler"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/fail.c" <<'END'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>
static int fails(int fd) {
    char link[64], path[512];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = 0;
    errno = EIO;
    return strstr(path, "step-000002.h5.tmp") != NULL;
}
#define SINGLE(name)                                                                                         \
    ssize_t name(int fd, const void *data, size_t n, off_t at) {                                             \
        return fails(fd) ? -1                                                                                \
                         : ((ssize_t(*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, #name))(fd, data, n, at); \
    }
#define SEVERAL(name)                                                                                        \
    ssize_t name(int fd, const struct iovec *data, int n, off_t at) {                                        \
        return fails(fd) ? -1                                                                                \
                         : ((ssize_t(*)(int, const struct iovec *, int, off_t))dlsym(RTLD_NEXT, #name))(fd, data, n, at); \
    }
extern char ompi_mpi_byte; /* of all messages, those that carry digests have it */
int MPI_Isend(const void *data, int n, void *type, int to, int tag, void *comm, void **request) {
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    if (getenv("FAIL_SEND") && type == &ompi_mpi_byte && rank && *rank == '1')
        return 16; /* MPI_ERR_OTHER */
    return ((int (*)(const void *, int, void *, int, int, void *, void **))dlsym(RTLD_NEXT, "MPI_Isend"))(
        data, n, type, to, tag, comm, request);
}
SINGLE(pwrite)
SINGLE(pwrite64)
SEVERAL(pwritev)
SEVERAL(pwritev64)
END
cc -shared -fPIC -o "$folder/fail.so" "$folder/fail.c" -ldl || exit 1
# run DEADLINE [OPTIONS of mpirun]
run() {
    deadline=$1
    shift
    rm -rf "$folder/run"
    timeout -k 5 200 "$here/with_ranks" 2 -x LD_PRELOAD="$folder/fail.so" "$@" "$marble" train deploy/examples/quickstart.yaml \
        --out "$folder/run" --set checkpoint.writer=parallel --set checkpoint.every=1 --set limits.deadline="$deadline" \
        --set precision=f32 --set threads=1 --set prompts.groups=2 --set prompts.group_size=2 --set rollout.steps=4 \
        --set eval.every=0 --set eval.prompts=2 --set eval.steps=1 --set train.steps=50 --set log.samples_every=0 \
        >"$folder/log" 2>&1
}
start=$(date +%s)
run 4s
code=$?
seconds=$(($(date +%s) - start))
step=$("$1" inspect --attribute step "$folder/run/checkpoints/latest.h5")
if [ $code -ne 1 ] || [ "$step" != 1 ] || ! grep -q 'the checkpoint that all ranks write does not end' "$folder/log"; then
    cat "$folder/log"
    echo "an I/O error at the second checkpoint: code $code, latest checkpoint of step $step; expected 1, 1 and the reason"
    exit 1
fi
echo "an I/O error inside MPI-IO: code $code after $seconds s, the first checkpoint is whole"

start=$(date +%s)
run 300s -x FAIL_SEND=1
code=$?
seconds=$(($(date +%s) - start))
if [ $code -ne 1 ] || [ $seconds -gt 60 ] || ! grep -q '^marble: \[rank 1\] error: mpi: a message about a checkpoint failed' "$folder/log"; then
    cat "$folder/log"
    echo "a message that MPI does not take: code $code after $seconds s; wanted 1 within 60 s, and the reason"
    exit 1
fi
echo "a message that MPI does not take: code $code after $seconds s"
