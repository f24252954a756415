#!/bin/sh
# One rank of three stops, dies or oversleeps inside a collective: the job must end, non-zero, soon after the deadline of
# 1 s. $1 is the marble program; the ranks are test_comm from the same folder. Then a rank of marble train is stopped.
here=$(dirname "$0")
program=$(dirname "$1")/test_comm
failures=0
for how in stops dies oversleeps fails exits; do
    start=$(date +%s%N)
    log=$(timeout -k 5 30 "$here/with_ranks" 3 "$program" misbehave $how 2>&1)
    code=$?
    ms=$((($(date +%s%N) - start) / 1000000))
    # A killed rank is seen by mpirun itself (128 + SIGKILL); the others' code is the one they abort with.
    case $how in dies) want=137 ;; fails) want=71 ;; exits) want=1 ;; *) want=7 ;; esac
    if [ $code -ne $want ] || [ $ms -gt 8000 ]; then
        echo "$log"
        echo "a rank that $how: code $code after $ms ms; wanted $want within 8000 ms"
        failures=1
    else
        echo "a rank that $how: code $code after $ms ms"
    fi
    # Those that waited report what they were at.
    if [ $want = 7 ] && ! echo "$log" | grep -q '#2 step 0 allreduce of 8000 bytes (f64, host) failed'; then
        echo "$log"
        echo "a rank that $how: the others' last collectives are not in the log"
        failures=1
    fi
done

# marble train with a rank that hangs (SIGSTOP): limits.deadline ends it, and the log of the other says where it waited.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# shellcheck disable=SC2016
timeout -k 5 120 "$here/with_ranks" 2 sh -c 'echo $$ >"$1/pid.$OMPI_COMM_WORLD_RANK"; shift; exec "$@"' rank "$folder" \
    "$1" train deploy/examples/quickstart.yaml --out "$folder/run" --set device=cpu --set limits.deadline=4s --set precision=f32 --set threads=1 \
    --set prompts.groups=2 --set prompts.group_size=2 --set rollout.steps=4 --set eval.prompts=2 --set eval.steps=1 \
    --set train.steps=1000 --set log.samples_every=0 >"$folder/log" 2>&1 &
job=$!
for _ in $(seq 600); do
    ! grep -q '^step 1/' "$folder/log" || break
    sleep 0.1
done
kill -STOP "$(cat "$folder/pid.1")"
start=$(date +%s)
wait $job
code=$?
seconds=$(($(date +%s) - start))
if [ $code -ne 1 ] || [ $seconds -gt 20 ] || ! grep -q 'rank 0 waited more than 4 s in' "$folder/log" ||
    ! grep -q '^marble: .*#[0-9]* step [0-9]* [a-z_]* of [0-9]* bytes .* failed' "$folder/log"; then
    cat "$folder/log"
    echo "marble train with a stopped rank: code $code after $seconds s; wanted 1 within 20 s, and what rank 0 waited in"
    failures=1
else
    echo "marble train with a stopped rank: code $code after $seconds s"
fi
exit $failures
