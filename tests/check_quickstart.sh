#!/bin/sh
# deploy/quickstart's own part, with everything that it starts replaced by scripts that say what they were given: a
# fresh run, the hint after a stop, and a run that goes on from its own run.yaml.
set -u
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
failed=0
mkdir -p "$folder/deploy/examples" "$folder/bin" "$folder/build"
cp deploy/quickstart "$folder/deploy/quickstart"
: >"$folder/deploy/examples/quickstart.yaml"
for script in deploy/install-packages deploy/build; do
    printf '#!/bin/sh\nexit 0\n' >"$folder/$script"
done
# Says what it was given and ends as a run that was stopped.
printf '#!/bin/sh\nfor word; do printf "[%%s]" "$word"; done; echo\nexit 75\n' >"$folder/bin/mpirun"
chmod +x "$folder/deploy/install-packages" "$folder/deploy/build" "$folder/bin/mpirun"

# expect TEXT ARGS...: TEXT somewhere in what quickstart prints.
expect() {
    text=$1
    shift
    said=$(cd "$folder" && PATH=$folder/bin:$PATH sh deploy/quickstart "$@" 2>&1)
    code=$?
    if [ $code -ne 75 ] || ! printf '%s\n' "$said" | grep -qF -- "$text"; then
        echo "deploy/quickstart $*: exit $code, expected 75 with \"$text\"; printed:"
        printf '%s\n' "$said"
        failed=1
    fi
}
expect '[build/marble][train][deploy/examples/quickstart.yaml][--out][runs/quickstart]' --set train.steps=2
expect "to go on: deploy/quickstart --out 'runs/quickstart' --resume auto" --set train.steps=2
mkdir -p "$folder/my runs/a"
expect '[train][deploy/examples/quickstart.yaml][--out][my runs/a][--resume][auto]' --out 'my runs/a' --resume auto
: >"$folder/my runs/a/run.yaml"
expect '[train][my runs/a/run.yaml][--out][my runs/a][--resume][auto]' --out 'my runs/a' --resume auto
expect '[train][my runs/a/run.yaml][--out=my runs/a][--resume=auto]' '--out=my runs/a' --resume=auto
expect '[train][deploy/examples/quickstart.yaml][--out][my runs/a]' --out 'my runs/a'
exit $failed
