#!/bin/sh
# checkpoint.writer: parallel on two ranks, and an I/O error inside MPI-IO at the second checkpoint: the job ends within
# limits.deadline, and the first checkpoint is whole and the latest. $1 is the marble program.
here=$(dirname "$0")
command -v cc >/dev/null || { echo "skipped: no C compiler"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/fail.c" <<'END'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
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
SINGLE(pwrite)
SINGLE(pwrite64)
SEVERAL(pwritev)
SEVERAL(pwritev64)
END
cc -shared -fPIC -o "$folder/fail.so" "$folder/fail.c" -ldl || exit 1
start=$(date +%s)
timeout -k 5 200 "$here/with_ranks" 2 -x LD_PRELOAD="$folder/fail.so" "$1" train deploy/examples/quickstart.yaml --out "$folder/run" \
    --set checkpoint.writer=parallel --set checkpoint.every=1 --set limits.deadline=4s --set precision=f32 --set threads=1 \
    --set prompts.groups=2 --set prompts.group_size=2 --set rollout.steps=4 --set eval.every=0 --set eval.prompts=2 \
    --set eval.steps=1 --set train.steps=50 --set log.samples_every=0 >"$folder/log" 2>&1
code=$?
seconds=$(($(date +%s) - start))
step=$("$1" inspect --attribute step "$folder/run/checkpoints/latest.h5")
if [ $code -ne 1 ] || [ "$step" != 1 ] || ! grep -q 'the checkpoint that all ranks write does not end' "$folder/log"; then
    cat "$folder/log"
    echo "an I/O error at the second checkpoint: code $code, latest checkpoint of step $step; wanted 1, 1 and the reason told"
    exit 1
fi
echo "an I/O error inside MPI-IO: code $code after $seconds s, the first checkpoint is whole"
