#!/bin/sh
# service.sh BUILD [VENV]: the service of a run against programs that others wrote: Debian's Prometheus scrapes /metrics of a run at work and
# of its finished folder, promtool checks the text, and schemathesis (VENV/bin/schemathesis, from PyPI) asks every path of
# proto/openapi-service.yaml what it describes, and what it does not. Skips what is not installed.
set -eu
build=$(realpath "${1:?usage: service.sh BUILD [VENV]}") venv=$(realpath "${2:-/nonexistent}" 2>/dev/null || true)
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
pids=
trap 'for pid in $pids; do kill "$pid" 2>/dev/null || true; done; wait; rm -rf "$work"' EXIT
"$build/marble" train "$root/deploy/examples/quickstart.yaml" --out "$work/run" --set train.steps=100000 --set prompts.groups=2 --set prompts.group_size=4 \
    --set rollout.steps=4 --set eval.prompts=4 --set eval.steps=2 --set eval.every=5 --set log.samples_every=5 --set log.advantages_every=1 \
    --set threads=1 --set service.listen=127.0.0.1:0 >"$work/log" 2>&1 &
pids=$!
i=0
while [ "$(wc -l <"$work/run/metrics.jsonl" 2>/dev/null || echo 0)" -lt 6 ] && [ "$i" -lt 1200 ]; do sleep 0.1; i=$((i + 1)); done
address=$(sed -n 's/.*"address": "\(.*\)".*/\1/p' "$work/run/service.json")
token=$(sed -n 's/.*"token": "\(.*\)".*/\1/p' "$work/run/service.json")
if command -v prometheus >/dev/null; then
    curl -sf "$address/metrics" | promtool check metrics
    printf 'global: {scrape_interval: 1s}\nscrape_configs: [{job_name: marble, static_configs: [{targets: ["%s"]}]}]\n' "${address#http://}" >"$work/p.yml"
    prometheus --config.file="$work/p.yml" --storage.tsdb.path="$work/tsdb" --web.listen-address=127.0.0.1:19099 >"$work/plog" 2>&1 &
    pids="$pids $!"
    i=0
    while [ "$i" -lt 60 ]; do
        found=$(curl -s 'http://127.0.0.1:19099/api/v1/query?query=marble_reward' || true)
        case $found in *'"reward":"jpeg"'*) break ;; esac
        sleep 0.5
        i=$((i + 1))
    done
    case $found in *'"reward":"jpeg"'*) echo "prometheus: marble_reward of every reward is there" ;; *) echo "prometheus: $found"; exit 1 ;; esac
    health=$(curl -s 'http://127.0.0.1:19099/api/v1/targets')
    case $health in *'"health":"up"'*) ;; *) echo "prometheus: $health"; exit 1 ;; esac
else
    echo "prometheus is not installed: left out"
fi
if [ -x "$venv/bin/schemathesis" ]; then
    # libwebsockets itself answers TRACE (403, not 405) and before 4.3 ends the connection at a zero byte in a query (test_server shows both).
    (cd "$work" && "$venv/bin/schemathesis" run "$root/proto/openapi-service.yaml" --url "$address" --header "Authorization: Bearer $token" --max-examples 20 \
        --exclude-path-regex '/api/(stream|control)' --phases examples,coverage,fuzzing --exclude-checks unsupported_method \
        --generation-allow-x00 false)
else
    echo "schemathesis is not installed: left out"
fi
kill -0 "${pids%% *}" || { echo "the run has ended"; tail "$work/log"; exit 1; }
echo "the run goes on: step $(wc -l <"$work/run/metrics.jsonl")"
