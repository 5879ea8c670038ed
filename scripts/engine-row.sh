#!/usr/bin/env bash
# Tries the image in one engine, and prints a row for the table of engines in docs/image.md: whether it starts, writes the
# workspace as the folder's owner, keeps volumes, lets an agent work, and is healthy. No network is needed.
# The cells are functions that `cell` calls, and the programs in quotes are for the container.
# shellcheck disable=SC2015,SC2016,SC2317
set -uo pipefail
if [ $# -lt 3 ]; then
  cat <<'TEXT'
usage: engine-row.sh NAME IMAGE ENGINE [OPTION…]
The options go to each `run` of the engine. WORK_OWNER=UID:GID is the owner of the workspace's folder on the host.
example: engine-row.sh 'Podman, rootful' localhost:5000/opencode-devbox:latest podman
example: WORK_OWNER=1000:1000 engine-row.sh 'Docker, user' localhost:5000/opencode-devbox:latest docker --user 1000:1000
exit: 0 all cells work, 1 one does not, 2 wrong usage
TEXT
  exit 2
fi
label=$1 image=$2 engine=$3
options=("${@:4}")
name="devbox-row-$$" work=$(mktemp -d) failed=0 row="| $1 |"
here=$(cd "$(dirname "$0")/.." && pwd)
trap '"$engine" rm -f "$name" >/dev/null 2>&1; "$engine" volume rm -f "$name" >/dev/null 2>&1; rm -rf "$work"' EXIT
run() { timeout 300 "$engine" run --rm --network none "${options[@]}" "$@"; }
# cell NAME COMMAND…: a column, with what went wrong on standard error.
cell() {
  local output
  if output=$("${@:2}" 2>&1); then row+=' works |'; else row+=' fails |' failed=1; echo "$label: $1: $output" >&2; fi
}

chmod 755 "$work"
mkdir "$work/project"
owner=${WORK_OWNER:-$(id -u):$(id -g)}
[ "$owner" = "$(id -u):$(id -g)" ] || chown "$owner" "$work/project"
starts() { run "$image" bash -c 'id -un && test -w ~ && opencode --version'; }
writes() {
  run -v "$work/project:/workspace" "$image" bash -c 'echo x > /workspace/made && git -C /workspace init -q' &&
    [ "$(stat -c %u:%g "$work/project/made")" = "$owner" ] || { stat -c 'owner %u:%g' "$work/project/made"; return 1; }
}
keeps() {
  local data=/home/developer/.local/share/opencode
  run -v "$name:$data" "$image" bash -c "echo kept > $data/file" && run -v "$name:$data" "$image" bash -c "grep -q kept $data/file && echo more >> $data/file"
}
works() {
  local config
  config='{"model":"stub/one","small_model":"stub/one","permission":{"bash":"allow"},"provider":{"stub":{"npm":"@ai-sdk/openai-compatible",
    "options":{"baseURL":"http://127.0.0.1:8000/v1","apiKey":"none"},"models":{"one":{"name":"one","tool_call":true,"limit":{"context":100000,"output":4000}}}}}}'
  run -v "$work/project:/workspace" -e "SERVER=$(cat "$here/scripts/smoke/programs/model-server.py")" -e "OPENCODE_CONFIG_CONTENT=$config" \
    -e DEVBOX_MCP_CONTEXT7=off -e DEVBOX_MCP_MEMPALACE=off "$image" bash -c \
    'python3 -c "$SERVER" 8000 & sleep 1; cd /workspace && opencode run "make the file" && grep -q "made by the agent" made.txt'
}
healthy() {
  timeout 60 "$engine" run --detach --name "$name" --network none "${options[@]}" "$image" opencode serve --port 4096 >/dev/null || return
  for _ in $(seq 60); do
    [ "$(timeout 30 "$engine" exec "$name" /usr/local/bin/devbox health 2>/dev/null)" = serving ] && return
    sleep 1
  done
  timeout 30 "$engine" exec "$name" /usr/local/bin/devbox health
}
cell start starts
cell 'workspace writes' writes
cell volumes keeps
cell 'agent run' works
cell health healthy
echo "$row"
exit "$failed"
