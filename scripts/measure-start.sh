#!/usr/bin/env bash
# Measures what the entrypoint adds to the start of a container, and what a volume of 100,000 files adds to that, with
# hyperfine. In rounds, so that what else the machine does falls on all cases alike; the quickest run counts least of it.
# Prints a line for each case; exits 1 if the entrypoint takes 150 ms or more, or the full volume 100 ms or more.
set -euo pipefail

if [ $# -lt 1 ] || [ "$1" = --help ]; then
  echo "usage: measure-start.sh IMAGE [ROUNDS]"
  echo "example: measure-start.sh localhost:5000/opencode-devbox:latest 20"
  exit 2
fi
image=$1 rounds=${2:-20}
name="devbox-measure-$$"
work=$(mktemp -d)
trap 'docker volume rm -f "$name-full" "$name-empty" >/dev/null; rm -rf "$work"' EXIT

data=/home/developer/.local/share/opencode
docker run --rm --entrypoint bash -v "$name-full:$data" "$image" -c "cd $data
  for folder in \$(seq 100); do mkdir \$folder; (cd \$folder && seq 1000 | xargs touch); done"
# The first start mends owners; what is measured are the ones after it.
for volume in full empty; do docker run --rm -v "$name-$volume:$data" "$image" true; done

run="docker run --rm"
for round in $(seq "$rounds"); do
  hyperfine --shell none --warmup 0 --runs 2 --style none --export-json "$work/$round.json" \
    --command-name bypass "$run --entrypoint true $image" \
    --command-name entrypoint "$run $image true" \
    --command-name empty "$run -v $name-empty:$data $image true" \
    --command-name full "$run -v $name-full:$data $image true" >/dev/null
done
jq -rs '
  [.[].results[]] | group_by(.command) | map({key: .[0].command, value: ([.[].times[]] | sort)}) | from_entries
  | ([to_entries[] | "\(.key): min \(.value[0] * 1000 | round) ms, median \(.value[length / 2 | floor] * 1000 | round) ms"]
  | sort[]), "entrypoint: \((.entrypoint[0] - .bypass[0]) * 1000 | round) ms",
  "full volume: \((.full[0] - .empty[0]) * 1000 | round) ms",
  if .entrypoint[0] - .bypass[0] < 0.15 and .full[0] - .empty[0] < 0.1 then empty else "over budget" end
' "$work"/*.json | tee "$work/result"
! grep -q '^over budget' "$work/result"
