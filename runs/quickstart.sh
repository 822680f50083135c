#!/usr/bin/env bash
# The whole loop on real data: what `make demo` runs. Every step is a command you can type yourself.
# Usage: runs/quickstart.sh [WORKSPACE]     (default: demo-workspace, made anew each time)
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH" HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1
demo=examples/sentiment_channels
ws=${1:-demo-workspace}
export HEADRACE_WORKSPACE=$ws
started=$(date +%s)

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }
stop_server() { if [ -n "${server:-}" ]; then kill "$server" 2>/dev/null && wait "$server" || true; server=; fi; }
trap stop_server EXIT

if [ -d "$ws" ] && [ ! -f "$ws/headrace.toml" ]; then
  echo "$ws exists and is no workspace; give another folder: runs/quickstart.sh FOLDER" >&2
  exit 2
fi
rm -rf "$ws"

step "1. Four channels of sentences, each rated by 10 to 20 and more people (VADER data, ICWSM 2014)"
python $demo/prepare.py "$ws-data"
headrace init "$ws" --task sentiment --labels negative,neutral,positive
headrace channel add amazon --description "sentences of Amazon reviews" --licence MIT
headrace channel add movies --description "sentences of movie reviews" --licence MIT
headrace channel add nyt --description "sentences of New York Times editorials" --licence MIT
headrace channel add tweets --description "tweets" --licence MIT
for channel in amazon movies nyt tweets; do
  headrace import $channel "$ws-data/$channel.start.jsonl"
done
headrace check
headrace snapshot

step "2. and 3. Fine-tune MiniLM-L6 on them, export to OpenVINO int8, measure on held-out rows, register version 1"
headrace train --set finetune.epochs=2

step "4. Serve it; send sentences it has never seen; one real rater answers each"
headrace serve --port 0 > "$ws/server.log" 2>&1 &
server=$!
python $demo/traffic.py "$ws" "$ws-data" --part first

step "5. Improve: the labels that came back join the old rows; version 2 answers unseen beside version 1"
# A rater answers every sentence, right or wrong, so all labels count; users who correct errors alone are no such judges.
headrace improve --set finetune.epochs=2 --set release.labels=all
python $demo/traffic.py "$ws" "$ws-data" --part further
headrace improve
stop_server

step "6. What happened"
headrace history
headrace report
python $demo/summary.py "$ws"
echo "The whole demo took $(($(date +%s) - started)) s."
