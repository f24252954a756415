#!/bin/sh
# One rank of three stops, dies or oversleeps inside a collective: the job must end, non-zero, soon after the deadline of
# 1 s. $1 is the marble program; the ranks are test_comm from the same folder.
here=$(dirname "$0")
program=$(dirname "$1")/test_comm
failures=0
for how in stops dies oversleeps; do
    start=$(date +%s%N)
    log=$(timeout -k 5 30 "$here/with_ranks" 3 "$program" misbehave $how 2>&1)
    code=$?
    ms=$((($(date +%s%N) - start) / 1000000))
    # A killed rank is seen by mpirun itself (128 + SIGKILL); the others' code is the one they abort with.
    case $how in dies) want=137 ;; *) want=7 ;; esac
    if [ $code -ne $want ] || [ $ms -gt 8000 ]; then
        echo "$log"
        echo "a rank that $how: code $code after $ms ms; wanted $want within 8000 ms"
        failures=1
    else
        echo "a rank that $how: code $code after $ms ms"
    fi
    # Those that waited tell what they were at.
    if [ $how != dies ] && ! echo "$log" | grep -q '#2 step 0 allreduce of 8000 bytes (f64, host) failed'; then
        echo "$log"
        echo "a rank that $how: the others' last collectives are not in the log"
        failures=1
    fi
done
exit $failures
