#!/bin/sh
# A process that may not have the memory it needs (ulimit -v) ends with a message, whatever it was doing, never with a signal.
marble=$1
[ -x "$marble" ] || { echo "usage: check_memory_limit.sh PATH_OF_MARBLE"; exit 2; }
unset OMPI_COMM_WORLD_SIZE OMPI_COMM_WORLD_RANK SLURM_PROCID SLURM_NTASKS
(ulimit -v 1000000 && "$marble" --version >/dev/null 2>&1) || { echo "this build does not run under ulimit -v (a sanitizer's?)"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
base=deploy/examples/signs-base
failed=0 ended=0

# limited KIB ARGS...: done, or 1 with an error that names memory (or the thread that it was lacking for), marble's or libgomp's;
# or 127, the loader's, which cannot map a library.
limited() {
    limit=$1
    shift
    (ulimit -c 0; ulimit -v "$limit" && exec "$marble" "$@") >"$folder/said" 2>&1 </dev/null
    code=$?
    [ $code -eq 0 ] && return
    [ $code -eq 127 ] && grep -q 'error while loading shared libraries' "$folder/said" && return
    ended=$((ended + 1))
    if [ $code -ne 1 ] || ! grep -Eqi '(marble: error.*(memory|thread)|libgomp: Thread creation failed)' "$folder/said"; then
        echo "ulimit -v $limit; marble $*: exit $code, expected 1 and an error about memory or a thread; said:"
        cat "$folder/said"
        failed=1
    fi
}
for limit in 100000 115000 130000 145000 160000 175000 190000 205000 220000; do
    limited $limit sample --model $base --prompt 'three blue circles' --steps 2 --threads 2 --out "$folder/images"
    rm -rf "$folder/run"
    limited $limit train "$base/../quickstart.yaml" --out "$folder/run" --set threads=2 --set train.steps=1 --set prompts.groups=2 \
        --set prompts.group_size=2 --set prompts.train_count=8 --set prompts.test_count=4 --set rollout.steps=4 \
        --set rollout.micro_batch=4 --set train.micro_batch=4 --set eval.every=0 --set eval.prompts=2 --set eval.steps=2 \
        --set log.samples_every=0
done
# A crash for another reason stays the signal that it is.
mkfifo "$folder/gram"
(ulimit -c 0; ulimit -v 1000000 && exec "$marble" solve "$folder/gram") >/dev/null 2>&1 &
job=$!
sleep 0.3
kill -SEGV $job
wait $job 2>/dev/null
code=$?
[ $code -eq 139 ] || { echo "a crash with memory left: exit $code, expected the signal's 139"; failed=1; }
[ $ended -gt 0 ] || { echo "no limit was too small: nothing was tested"; failed=1; }
exit $failed
