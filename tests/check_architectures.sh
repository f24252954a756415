#!/bin/sh
# A build takes the architectures that its nvcc knows, and those that the user names.
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
command -v cmake >/dev/null || { echo "skipped: no cmake here"; exit 77; }
failed=0
printf 'include(%s/gpu/architectures.cmake)\nmessage("architectures: ${CMAKE_CUDA_ARCHITECTURES}")\n' "$root" >"$folder/ask.cmake"

# expect VERSION TEXT OPTIONS...: what nvcc of that version leads to.
expect() {
    printf '#!/bin/sh\necho "Cuda compilation tools, release %s, V%s.99"\n' "$1" "$1" >"$folder/nvcc"
    chmod +x "$folder/nvcc"
    wanted=$2
    version=$1
    shift 2
    said=$(cmake -DNVCC="$folder/nvcc" "$@" -P "$folder/ask.cmake" 2>&1)
    if ! echo "$said" | grep -qF "$wanted"; then
        echo "nvcc $version $*: \"$said\"; expected \"$wanted\""
        failed=1
    fi
}
expect 12.3 'version "12.3"; expected 12.4 or newer'
expect 12.4 'architectures: 80-real;90'
expect 12.6 'architectures: 80-real;90'
expect 12.8 'architectures: 80-real;90-real;100'
expect 13.0 'architectures: 80-real;90-real;100'
expect 13.0 'architectures: 89' -DCMAKE_CUDA_ARCHITECTURES=89
exit "$failed"
