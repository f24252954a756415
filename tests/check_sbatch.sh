#!/bin/sh
# deploy/slurm/train.sbatch with stand-ins for srun, scontrol and sbatch that write down how they are called: it resumes,
# comes back on exit 75 and on nothing else.
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
stand_in() {
    printf '#!/bin/sh\necho "%s $*" >>"%s/calls"\nexit ${%s_code:-0}\n' "$1" "$work" "$1" >"$work/$1"
    chmod +x "$work/$1"
}
for name in srun scontrol sbatch; do stand_in "$name"; done

# expect CODE CALLS: the exit code, and the names of what was called, in order.
expect() {
    rm -f "$work/calls"
    want=$1 calls=$2
    PATH="$work:$PATH" SLURM_JOB_ID=17 SLURM_CPUS_PER_TASK=4 sh "$root/deploy/slurm/train.sbatch" run.yaml out --set a=b >"$work/said" 2>&1
    got=$?
    names=$(cut -d' ' -f1 "$work/calls" | tr '\n' ' ')
    if [ "$got" -ne "$want" ] || [ "$names" != "$calls" ]; then
        echo "srun ${srun_code:-0}: exit $got after $names; expected $want after $calls"
        cat "$work/said"
        failed=1
    fi
}
has() {
    grep -qF -- "$1" "$work/calls" || { echo "\"$1\" was not called; but:"; cat "$work/calls"; failed=1; }
}
expect 0 'srun '
has '--mpi=pmix --cpus-per-task=4'
has 'train run.yaml --out out --resume auto --set a=b'
export srun_code=1
expect 1 'srun '
export srun_code=75
expect 75 'srun scontrol '
has 'scontrol requeue 17'
export scontrol_code=1
expect 0 'srun scontrol sbatch '
has 'sbatch --dependency=afterany:17'
has 'run.yaml out --set a=b'
export SLURM_RESTART_COUNT=3 RESUBMIT_LIMIT=3
expect 75 'srun '
sh "$root/deploy/slurm/train.sbatch" run.yaml >/dev/null 2>&1
[ $? -eq 2 ] || { echo "one argument: not refused"; failed=1; }
exit $failed
