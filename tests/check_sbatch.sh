#!/bin/sh
# deploy/slurm/train.sbatch with stand-ins for Slurm's commands that write down how they are called: what it comes back
# on, and what it does not. tests/check_slurm.py runs it under a real Slurm.
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
stand_in() {
    printf '#!/bin/sh\necho "%s $*" | head -1 >>"%s/calls"\n%s\n' "$1" "$work" "$2" >"$work/$1"
    chmod +x "$work/$1"
}
# shellcheck disable=SC2016
{
    stand_in srun 'case $1 in --mpi=list) echo "${plugins:-none pmix_v4}"; exit ;; esac
while [ "$1" != sh ]; do shift; done
exec "$@"'
    stand_in mpirun 'while [ "$1" != sh ]; do shift; done
exec "$@"'
    stand_in sbatch ''
    printf '#!/bin/sh\n' >"$work/sleep"
    chmod +x "$work/sleep"
    stand_in sinfo 'echo "n1 idle"; echo "n2 down*"'
    stand_in scontrol 'case "$1 $2" in
"show hostnames") printf "%s\n" $(echo "$3" | tr , " ") ;;
"show job") echo "ExcNodeList=${asked:-(null)} EndTime=2030-01-01T00:00:00 TimeLimit=01:00:00 StdOut=a.log" ;;
requeue*) exit ${requeue_code:-0} ;;
esac'
    stand_in marble 'echo "ends $SLURM_JOB_END_TIME" >>"$0.said"
[ $marble_code -lt 128 ] || kill -$((marble_code - 128)) $$
exit $marble_code'
}

# expect CODE CALLS: the exit code, and what was called for a change, in order. $out is kept where it is set.
expect() {
    rm -f "$work/calls"
    want=$1 calls=$2
    folder=${out:-$work/out}
    [ -n "${out:-}" ] || rm -rf "$folder"
    PATH="$work:$PATH" MARBLE="$work/marble" SLURM_JOB_ID=17 SLURM_CPUS_PER_TASK=4 SLURM_NTASKS=2 SLURM_JOB_NUM_NODES=2 \
        SLURM_JOB_PARTITION=low SLURM_JOB_NODELIST="${nodes:-n1,n2}" SLURMD_NODENAME=n2 \
        sh "$root/deploy/slurm/train.sbatch" run.yaml "$folder" --set a=b >"$work/said" 2>&1
    got=$?
    names=$(grep -v -e ' show ' -e '--mpi=list' "$work/calls" | sed 's/scontrol //' | cut -d' ' -f1 | tr '\n' ' ')
    if [ "$got" -ne "$want" ] || [ "$names" != "$calls" ]; then
        echo "marble ${marble_code:-0}: exit $got after $names; expected $want after $calls"
        cat "$work/said" "$work/calls"
        failed=1
    fi
}
has() {
    grep -qF -- "$1" "$work/calls" || { echo "\"$1\" was not called; but:"; cat "$work/calls"; failed=1; }
}
excluded() {
    now=$(cut -d' ' -f1 "$folder/excluded-nodes" 2>/dev/null | paste -sd, -)
    [ "$now" = "$1" ] || { echo "excluded are \"$now\" instead of \"$1\""; failed=1; }
}
export marble_code=0
expect 0 'srun marble '
has '--mpi=pmix --cpus-per-task=4 --kill-on-bad-exit=1'
has "marble train run.yaml --out $folder --resume auto --set a=b"
grep -q "ends $(date -d 2030-01-01T00:00:00 +%s)" "$work/marble.said" || { echo "the job's end is not stated"; failed=1; }
plugins='none pmi2' expect 0 'mpirun marble '
LAUNCHER=mpirun expect 0 'mpirun marble '
has '-np 2'
marble_code=1
expect 1 'srun marble '
excluded ''

marble_code=75
expect 75 'srun marble requeue '
has 'scontrol requeue 17'
requeue_code=1 expect 0 'srun marble requeue sbatch '
has 'sbatch --dependency=afterany:17 --partition=low --time=01:00:00 --output=a.log --nodes=2 --ntasks=2 --cpus-per-task=4'
has "run.yaml $folder --set a=b"
SLURM_RESTART_COUNT=3 RESUBMIT_LIMIT=3 expect 75 'srun marble '
CAME_BACK=2 SLURM_RESTART_COUNT=1 RESUBMIT_LIMIT=3 expect 75 'srun marble '
excluded ''

# Nodes: where a rank crashed or its device failed; not where it was asked to stop. Those that were down after Slurm had
# ended the run. Those the user wants to avoid stay avoided.
for marble_code in 71 135 137 139; do
    asked=n7 expect 75 'srun marble requeue update '
    has 'update JobId=17 ExcNodeList=n2,n7'
    excluded n2
done
EXCLUDE_LIMIT=0 expect 139 'srun marble '
marble_code=143
expect 143 'srun marble '
excluded ''
marble_code=0
out=$work/kept
mkdir "$out"
printf 'n1\nn2\n' >"$out/slurm-nodes"
nodes=n1,n3 expect 0 'sinfo srun marble '
excluded n2
nodes=n1,n2 expect 75 'requeue update '
has 'update JobId=17 ExcNodeList=n2'
requeue_code=1 expect 0 'requeue sbatch '
has '--exclude=n2'
sh "$root/deploy/slurm/train.sbatch" run.yaml >/dev/null 2>&1
[ $? -eq 2 ] || { echo "one argument: not refused"; failed=1; }
exit $failed
