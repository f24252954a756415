#!/bin/sh
# systems.sh [SUITE...]: quickstart's short form and deploy/check --quick on bare systems, made fresh by debootstrap: Debian 12
# (bookworm) and 13 (trixie) by default. Prints a table in Markdown. Needs root, debootstrap and about 3 GB for each system
# under FOLDER (a temporary one, removed afterwards; one that is named is kept). MIRROR: where Debian's packages come from.
set -eu
case ${1:-} in
-h | --help) sed -n 's/^# \{0,1\}//p' "$0" | sed -n 2,4p; exit 0 ;;
esac
[ "$(id -u)" -eq 0 ] || { echo "systems.sh: needs root, for debootstrap and chroot"; exit 77; }
command -v debootstrap >/dev/null || { echo "systems.sh: debootstrap is not installed: apt-get install debootstrap"; exit 77; }
root=$(cd "$(dirname "$0")/../.." && pwd)
[ $# -gt 0 ] || set -- bookworm trixie
if [ -n "${FOLDER:-}" ]; then
    folder=$FOLDER
    mkdir -p "$folder"
else
    folder=$(mktemp -d)
fi
# Debian's own mirror unless this machine uses another.
mirror=${MIRROR:-$(sed -n 's/^URIs: *\(.*\/debian\)\/\{0,1\}$/\1/p; s/^deb \(.*\/debian\)\/\{0,1\} .*/\1/p' /etc/apt/sources.list \
    /etc/apt/sources.list.d/* 2>/dev/null | head -1)}
short="--set train.steps=2 --set prompts.groups=4 --set prompts.group_size=4 --set eval.every=0 --set eval.prompts=8"

suites="$*"
leave() {
    for suite in $suites; do
        umount "$folder/$suite/proc" "$folder/$suite/sys" 2>/dev/null || :
        umount -l "$folder/$suite/dev" 2>/dev/null || :
    done
    [ -n "${FOLDER:-}" ] || rm -rf --one-file-system "$folder"
}
trap leave EXIT
trap 'exit 1' INT TERM

inside() {
    suite=$1
    shift
    chroot "$folder/$suite" /usr/bin/env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        LANG=C.UTF-8 sh -c "cd /marble && $*"
}

# timed SUITE NAME COMMAND: how it went and the seconds it took, in $answer; its output in FOLDER/SUITE-NAME.log.
timed() {
    start=$(date +%s)
    if inside "$1" "$3" >"$folder/$1-$2.log" 2>&1; then how=passed; else how=FAILED failed=1; fi
    answer="$how, $(($(date +%s) - start)) s"
    [ "$how" = passed ] || tail -40 "$folder/$1-$2.log" >&2
}

failed=0
table=
for suite; do
    if [ ! -e "$folder/$suite.made" ]; then
        debootstrap --variant=minbase "$suite" "$folder/$suite" ${mirror:+"$mirror"} >"$folder/$suite.log" 2>&1 || {
            tail -5 "$folder/$suite.log" >&2
            exit 1
        }
        touch "$folder/$suite.made"
    fi
    rm -rf "$folder/$suite/marble" # a folder that was kept may hold an older commit
    git clone -q "$root" "$folder/$suite/marble"
    mount -t proc proc "$folder/$suite/proc"
    mount -t sysfs sys "$folder/$suite/sys"
    mount --rbind /dev "$folder/$suite/dev"
    mount --make-rslave "$folder/$suite/dev"
    timed "$suite" quickstart "apt-get update -qq && deploy/quickstart $short --out /tmp/quickstart"
    quickstart=$answer
    timed "$suite" check "deploy/check --quick"
    check=$answer
    versions=$(inside "$suite" '. /etc/os-release; echo "$PRETTY_NAME | gcc $(gcc -dumpfullversion), oneDNN $(dpkg-query -Wf "\${Version}" libdnnl-dev | cut -d+ -f1), Open MPI $(mpirun --version | sed -n "1s/.* //p"), HDF5 $(dpkg-query -Wf "\${Version}" libhdf5-openmpi-dev | cut -d+ -f1)"')
    table="$table| $versions | $quickstart | $check |
"
done
printf '| system | with | quickstart, bare, 2 short steps | deploy/check --quick |\n|---|---|---|---|\n%s' "$table"
exit $failed
