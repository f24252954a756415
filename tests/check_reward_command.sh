#!/bin/sh
# marble reward check: what it says of rewards that work, that are not there, and that are wrong, and its exit codes.
marble=$1
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
failed=0
cat >"$folder/mine.py" <<'PY'
from marble_reward import reward

@reward("bright", range=(0, 1), images="raw")
def bright(images, prompts, metadata):
    return [sum(i.data) / len(i.data) / 255 for i in images]

@reward("moody", images="raw")
def moody(images, prompts, metadata):
    moody.calls = getattr(moody, "calls", 0) + 1
    return [moody.calls + n for n in range(len(images))]
PY
cat >"$folder/run.yaml" <<'YAML'
rewards:
  - {name: clean}
  - {name: bright, type: python, file: mine.py, start: 60 s}
  - {name: moody, type: python, file: mine.py, range: [0, 2], start: 60 s}
  - {name: lost, type: remote, url: "http://127.0.0.1:1", model: m, start: 0.1 s}
  - {name: wrong, type: remote, url: "127.0.0.1:1", model: m}
YAML
expect() { # CODE TEXT... : the exit code, and texts that the answer holds
    code=$1
    shift
    [ "$found" -eq "$code" ] || { echo "exit $found, expected $code"; failed=1; }
    for text; do
        grep -qF -- "$text" "$folder/out" || { echo "expected: $text"; failed=1; }
    done
    [ "$failed" -eq 0 ] || { cat "$folder/out"; exit 1; }
}
"$marble" reward check "$folder/run.yaml" >"$folder/out" 2>&1
found=$?
expect 1 "clean (clean): ok" "bright (python): ok" "8 images: 8 valid, 0 not applicable, 0 failed" \
    "marble_reward 1, model rewards" "moody (python): ok" "differ by up to 1 the second time" \
    "run.yaml:4: rewards.2: 6 scores lie outside its range" "lost (remote): FAILED" \
    "run.yaml:5: rewards.3: reward lost: http://127.0.0.1:1: " \
    "run.yaml:6: rewards.4: reward wrong: url: \"127.0.0.1:1\" begins with none of http://" \
    "2 of 5 rewards are of no use"
"$marble" reward check "$folder/run.yaml" --set 'rewards=[{name: clean}, {name: jpeg}]' --images 3 >"$folder/out" 2>&1
found=$?
expect 0 "3 images: 3 valid" "jpeg (jpeg): ok"
"$marble" reward look "$folder/run.yaml" >"$folder/out" 2>&1
found=$?
expect 2 "\"look\"; expected check"
"$marble" reward check "$folder/run.yaml" --set rewards.3.batch=0 >"$folder/out" 2>&1
found=$?
expect 2 "rewards.3.batch: 0 is out of range"
exit $failed
