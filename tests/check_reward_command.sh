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

@reward("silent", images="raw")
def silent(images, prompts, metadata):
    return [None] * len(images)

@reward("fails_later", images="raw")
def fails_later(images, prompts, metadata):
    fails_later.calls = getattr(fails_later, "calls", 0) + 1
    assert fails_later.calls == 1, "once is enough"
    return [0] * len(images)
PY
cat >"$folder/run.yaml" <<'YAML'
rewards:
  - {name: clean}
  - {name: bright, type: python, file: mine.py, start: 60 s}
  - {name: moody, type: python, file: mine.py, range: [0, 2], start: 60 s}
  - {name: lost, type: remote, url: "http://127.0.0.1:1", model: m, start: 0.1 s}
  - {name: wrong, type: remote, url: "127.0.0.1:1", model: m}
  - {name: blind, type: judge, url: "http://127.0.0.1:1/v1", model: m, question: "Is it pretty?", pattern: "([0-9])", start: 0.1 s}
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
expect 2 "clean (clean): ok" "bright (python): ok" "8 images: 8 valid, 0 not applicable, 0 failed" \
    "marble_reward 1, model rewards" "moody (python): ok" "from the same calls as bright" "differ by up to 1 the second time" \
    "run.yaml:4: rewards.2: 6 scores lie outside its range 0 to 2, up to 8 and down to 1;" "lost (remote): FAILED" \
    "run.yaml:5: rewards.3: reward lost: http://127.0.0.1:1: " \
    "run.yaml:6: rewards.4: reward wrong: url: \"127.0.0.1:1\" begins with none of http://" \
    "run.yaml:7: rewards.5: its question has neither {prompt} nor {metadata}" "3 of 6 rewards are of no use"
[ "$(grep -c "neither {prompt}" "$folder/out")" -eq 1 ] || { echo "expected one note"; failed=1; }
[ "$(grep -c 'marble_reward 1, model' "$folder/out")" -eq 1 ] || { echo "expected one server for both rewards of mine.py"; failed=1; }
"$marble" reward check "$folder/run.yaml" --set 'rewards=[{name: clean}, {name: jpeg}]' --images 3 >"$folder/out" 2>&1
found=$?
expect 0 "3 images: 3 valid" "jpeg (jpeg): ok"
# Held-out prompts of a share, of several files, are those of the run.
seq -f 'scene %g' 20 >"$folder/one.txt"
seq -f 'view %g' 20 >"$folder/two.txt"
"$marble" reward check "$folder/run.yaml" --set 'rewards=[{name: clean}]' --set prompts.source=file --set prompts.test_share=0.5 \
    --set 'prompts.sources=[{file: one.txt, name: one}, {file: two.txt, name: two}]' --images 3 >"$folder/out" 2>&1
found=$?
expect 0 "clean (clean): ok" "3 images: 3 valid"
cat >>"$folder/mine.py" <<'PY'

@reward("broken", images="raw")
def broken(images, prompts, metadata):
    return [m["no such key"] for m in metadata]
PY
rewards='rewards=[{name: bright, type: python, file: mine.py, start: 60 s}, {name: broken, type: python, file: mine.py, start: 60 s}]'
"$marble" reward check "$folder/run.yaml" --set "$rewards" >"$folder/out" 2>&1
found=$?
expect 1 "bright (python): ok" "broken (python): FAILED" 'reward "broken" raised KeyError (mine.py:24): '"'no such key'"
# What the function prints is shown, the traceback of one fault once.
[ "$(grep -c ': Traceback' "$folder/out")" -eq 1 ] || {
    echo "reward check: expected one traceback; printed:"
    cat "$folder/out"
    failed=1
}
rewards='rewards=[{name: bright, type: python, file: mine.py, start: 60 s}, {name: absent, type: python, file: mine.py, start: 60 s}]'
"$marble" reward check "$folder/run.yaml" --set "$rewards" >"$folder/out" 2>&1
found=$?
expect 1 "bright (python): ok" "absent (python): FAILED" "expected an output called absent"
# score: two images of 1 x 1 in a request, then one of a size that the signs example has not
ask() {
    printf '%s\n' '{"reward": "clean", "width": 1, "height": 1, "prompts": ["any", "other"]}'
    printf '\000\000\377\377\000\000'
    printf '%s\n' '{"reward": "ocr", "width": 1, "height": 1, "prompts": ["a red sign that says \"K7\""], "metadata": [{"a": 1}]}'
    printf '\000\000\000'
    printf '%s\n' '{"reward": "ocr", "width": 1, "height": 1, "prompts": ["three blue circles, more or less"]}'
    printf '\000\000\000'
}
ask | "$marble" reward score clean ocr >"$folder/out" 2>&1
found=$?
expect 0 '{"scores":[0.' '{"scores":["reward ocr failed on ' "an image of 1 x 1 for" '{"scores":[null]}'
[ "$(wc -l <"$folder/out")" -eq 3 ] || { cat "$folder/out"; echo "expected 3 answers"; failed=1; }
echo '{"reward": "jpeg", "width": 1, "height": 1, "prompts": ["any"]}' | "$marble" reward score clean >"$folder/out" 2>&1
found=$?
expect 1 "ends after 0 bytes of images; expected 3"
"$marble" reward score remote </dev/null >"$folder/out" 2>&1
found=$?
expect 2 "remote needs a run.yaml; expected a built-in scorer"
"$marble" reward check "$folder/run.yaml" --set 'rewards=[{name: bright, type: python, file: mine.py, python: ./no/such}]' >"$folder/out" 2>&1
found=$?
expect 2 "rewards.0.python: " "no/such"
mkdir "$folder/bin" && ln -s "$(command -v python3)" "$folder/bin/own_python"
"$marble" reward check "$folder/run.yaml" --set 'rewards=[{name: bright, type: python, file: mine.py, python: bin/own_python, start: 60 s}]' \
    >"$folder/out" 2>&1
found=$?
expect 0 "bright (python): ok"
"$marble" reward look "$folder/run.yaml" >"$folder/out" 2>&1
found=$?
expect 2 "\"look\"; expected check or score"
"$marble" reward check "$folder/run.yaml" --set rewards.3.batch=0 >"$folder/out" 2>&1
found=$?
expect 2 "rewards.3.batch: 0 is out of range"
# what a run refuses or warns of is refused or warned of: exit 2 for keys, 1 for what cannot be used
printf '%s\n' '{"prompt": "two red squares"}' '{"prompt": "one blue circle", "tag": "x"}' >"$folder/prompts.jsonl"
file="prompts={source: file, train: $folder/prompts.jsonl, test: $folder/prompts.jsonl}"
check() { # CODE REWARDS TEXT...
    code=$1 rewards=$2
    shift 2
    "$marble" reward check "$folder/run.yaml" --images 1 --size 8 --set "$file" --set "rewards=[$rewards]" >"$folder/out" 2>&1
    found=$?
    expect "$code" "$@"
}
check 2 '{name: mine, type: python}' "rewards.0: reward mine: has no file; expected file: my_rewards.py"
check 2 '{name: mine, type: remote, url: "localhost", model: m}' "begins with none of http://"
check 1 '{name: mine, type: remote, url: "http://127.0.0.1:1", model: m, start: 0.1 s}' "1 of 1 rewards are of no use"
check 2 '{name: clean, applies_to: metadata.no_such}' \
    "rewards.0: applies_to: metadata.no_such: no prompt has metadata with the key no_such; keys there are: tag"
check 0 '{name: clean, applies_to: metadata.tag}' "2 images: 1 valid, 1 not applicable"
check 0 '{name: clean, applies_to: metadata.tag}, {name: jpeg, applies_to: "regex:squares"}' "clean (clean): ok" "jpeg (jpeg): ok"
# one that only the training prompts have
printf '%s\n' '{"prompt": "two red squares"}' >"$folder/held-out.jsonl"
both=$file file="prompts={source: file, train: $folder/prompts.jsonl, test: $folder/held-out.jsonl}"
check 0 '{name: clean, applies_to: metadata.tag}' "2 images: 1 valid, 1 not applicable"
file=$both
check 1 '{name: clean, applies_to: "regex:nowhere"}' "clean (clean): FAILED" "N/A for all 1 images, so nothing is known of it"
check 1 '{name: silent, type: python, file: mine.py, start: 60 s}' "silent (python): FAILED" "N/A for all 1 images"
check 1 '{name: fails_later, type: python, file: mine.py, start: 60 s}' "0 valid, 0 not applicable, 1 failed" "once is enough"
echo secret >"$folder/token"
chmod 644 "$folder/token"
check 1 '{name: mine, type: remote, url: "http://127.0.0.1:1", model: m, start: 0.1 s, token_file: token}' \
    "token: other users can read it; expected it to be its owner's alone"
[ "$(grep -c 'Failed to connect' "$folder/out")" -eq 1 ] || { cat "$folder/out"; echo "expected what is wrong once"; failed=1; }
exit $failed
