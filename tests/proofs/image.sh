#!/bin/sh
# The steps of deploy/apptainer/marble.def where there is no Apptainer: %files, %post, %test and %runscript in a bare Debian 12
# (debootstrap and chroot; as root, with the network).
#     tests/proofs/image.sh [FOLDER]
# FOLDER keeps the system for looking at it or for another run; without one it is removed at the end.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
system=${1:-}
end() {
    umount "$system/proc" 2>/dev/null || :
    [ -n "$keep" ] || rm -rf --one-file-system "$system"
}
keep=$system
[ -n "$system" ] || system=$(mktemp -d)
mkdir -p "$system"
trap end EXIT
section() { awk -v name="%$1" '/^%/ { on = $1 == name; next } on' "$root/deploy/apptainer/marble.def"; }
inside() {
    env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C JOBS="${JOBS:-2}" \
        ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} chroot "$system" "$@"
}

if [ ! -f "$system/etc/debian_version" ]; then
    debootstrap --variant=minbase bookworm "$system" >"$system.log" 2>&1 || { tail "$system.log"; exit 1; }
    rm -f "$system.log"
fi
# What this machine needs to reach its package host.
cp /etc/resolv.conf "$system/etc/"
for place in apt/apt.conf.d apt/sources.list.d ssl/certs; do
    mkdir -p "$system/etc/$place"
    [ ! -d "/etc/$place" ] || cp -rL "/etc/$place/." "$system/etc/$place/"
done
[ -z "$(ls "$system/etc/apt/sources.list.d")" ] || rm -f "$system/etc/apt/sources.list"
mount -t proc proc "$system/proc"

section files | while read -r from to; do
    [ -n "$from" ] || continue
    rm -rf "${system:?}$to"
    mkdir -p "$(dirname "$system$to")"
    cp -rL "$root/$from" "$system$to"
done
for part in post test; do
    section "$part" >"$system/tmp/$part"
    inside sh -e "/tmp/$part" || { echo "%$part failed"; exit 1; }
done
section runscript >"$system/tmp/run"
inside sh /tmp/run --version
umount "$system/proc"
echo "marble.def: its steps work; $(du -sm "$system" | cut -f1) MB"
