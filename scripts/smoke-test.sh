#!/usr/bin/env bash
# The smoke suite: what a built image has to satisfy. Runs every check, prints TAP, lists the failures at the end.
# Single quotes keep what the container's shell has to expand:
# shellcheck disable=SC2016
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: smoke-test.sh --image REF --variant NAME --platform OS/ARCH [options]
  --components LIST     components that the variant ships, separated by commas
  --expect NAME=VERSION pinned version that the image has to answer; repeat
  --max-size-mb N       compressed size that the image may have, in 10^6 bytes
  --report FILE         also write the TAP to a file
example: smoke-test.sh --image localhost:5000/opencode-devbox:latest --variant base --platform linux/amd64 --components opencode
exit: 0 all passed, 1 a check failed, 2 wrong usage
TEXT
}

image='' variant='' platform='' components='' max_mb='' report=/dev/null expected=()
while [ $# -gt 0 ]; do
  if [ "$1" = --help ]; then usage; exit 0; fi
  if [ $# -lt 2 ]; then usage >&2; exit 2; fi
  case $1 in
    --image) image=$2 ;;
    --variant) variant=$2 ;;
    --platform) platform=$2 ;;
    --components) components=$2 ;;
    --expect) expected+=("$2") ;;
    --max-size-mb) max_mb=$2 ;;
    --report) report=$2 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift 2
done
if [ -z "$image" ] || [ -z "$variant" ] || [ -z "$platform" ]; then usage >&2; exit 2; fi

name="devbox-smoke-$$-$RANDOM"
work=$(mktemp -d)
trap 'docker rm -f "$name" >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
: > "$report"
count=0

say() { printf '%s\n' "$1" | tee -a "$report"; }

# check DESCRIPTION COMMAND…: passes if the command does; its output explains a failure. Checks run side by side, as
# many as there are processors, so their numbers come out of order, which TAP allows.
check() {
  local description=$1
  shift
  count=$((count + 1))
  while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n || true; done
  judge "$count" "$description" "$@" &
}

judge() {
  local number=$1 description=$2 output
  shift 2
  if output=$("$@" 2>&1); then
    say "ok $number - $description"
  else
    # TAP diagnostics are lines that start with a number sign.
    say "not ok $number - $description"$'\n'"$(tail -n 15 <<<"$output" | sed 's/^/# /')"
    echo "$description" > "$work/failed-$number"
  fi
}

inside() { docker exec --user developer --env HOME=/home/developer "$name" bash -lc "$1"; }
run() { docker run --rm --platform "$platform" "$@"; }
has() { case ",$components," in *",$1,"*) return 0 ;; *) return 1 ;; esac; }

# Which command answers the version of a pinned component.
version_command() {
  case $1 in
    node | uv | bun | opencode | pi) echo "$1 --version" ;;
    mempalace) echo "/opt/mempalace/bin/python -c 'import importlib.metadata as m; print(m.version(\"mempalace\"))'" ;;
    omos) echo "node -p 'require(\"/opt/omos/node_modules/oh-my-opencode-slim/package.json\").version'" ;;
    *) echo "$1 --version" ;;
  esac
}

answers() {
  local found
  found=$(inside "$(version_command "$1")")
  grep -qE "(^|[^0-9.])${2//./\\.}([^0-9.]|$)" <<<"$found" || { echo "expected $2, got: $found"; return 1; }
}

healthy() {
  # bash speaks TCP itself; the server gets a generous bound, since an emulated one starts slowly.
  inside 'opencode serve --hostname 127.0.0.1 --port 4096 >/tmp/serve.log 2>&1 & server=$!
    for _ in $(seq 120); do
      if curl -fsS -m 5 http://127.0.0.1:4096/global/health | grep -q "\"healthy\":true"; then kill $server; exit 0; fi
      sleep 1
    done
    cat /tmp/serve.log; kill $server; exit 1'
}

drops_privileges() {
  [ "$(run "$image" id -un)" = developer ] || return 1
  [ "$(run -e PUID=4242 -e PGID=4343 "$image" bash -c 'echo "$(id -u):$(id -g) $HOME"')" = '4242:4343 /home/developer' ]
}

refuses_root_id() {
  local output
  if output=$(run -e PUID=0 "$image" true 2>&1); then return 1; fi
  grep -q '^devbox: PUID=0: ' <<<"$output"
}

stops_quickly() {
  docker stop --time 10 "$name" >/dev/null
  [ "$(docker inspect --format '{{.State.ExitCode}}' "$name")" = 143 ]
}

within_budget() {
  local bytes
  bytes=$(crane manifest "$image" | jq '[.layers[].size] | add')
  [ "$bytes" -le $((max_mb * 1000000)) ] || { echo "$bytes bytes, budget $max_mb MB"; return 1; }
}

no_host_certificates() {
  # Every certificate of the image has to be Debian's own: one that only the host's bundle has came in by the build.
  inside 'cat /usr/share/ca-certificates/mozilla/*.crt | tr -d "\n" > /tmp/mozilla
    awk "/BEGIN/{body=\"\";next} /END/{print body;next} {body=body \$0}" /etc/ssl/certs/ca-certificates.crt |
    while read -r body; do grep -qF "$body" /tmp/mozilla || { echo "a foreign certificate"; exit 1; }; done
    [ ! -e /run/secrets/ca ] && [ -z "$(ls -A /usr/local/share/ca-certificates)" ]'
}

volumes_are_empty() {
  local files
  files=$(run --entrypoint bash "$image" -c 'cd /home/developer
    find .pi .config .local .cache /workspace -type f 2>/dev/null || true')
  [ -z "$files" ] || { echo "$files"; return 1; }
}

config_is_idempotent() {
  inside 'jq -e .mcp.mempalace /etc/opencode/opencode.json >/dev/null; sha256sum /etc/opencode/opencode.json' >"$work/first"
  run "$image" sha256sum /etc/opencode/opencode.json >"$work/second"
  cmp "$work/first" "$work/second"
}

say "TAP version 13"
docker run --detach --name "$name" --platform "$platform" "$image" sleep 3600 >/dev/null

for tool in git git-lfs gh curl wget jq yq rg fd fzf bat eza zoxide nvim less file tree rsync zstd make gcc python3 uv \
  shellcheck aws node npm; do
  check "$tool answers its version" inside "$tool --version"
done
for line in 'ssh -V' 'gpg --version' 'tmux -V' 'zip -v' 'unzip -v' 'xz --version' 'go version' 'htop --version' \
  'ip -V' '/usr/sbin/gosu --version' 'dig -v' 'tini --version' 'mempalace-mcp --help' 'python3 -m venv --help'; do
  check "$line" inside "$line"
done
for pin in "${expected[@]}"; do check "${pin%%=*} is the pinned ${pin#*=}" answers "${pin%%=*}" "${pin#*=}"; done
for component in opencode bun omos pi; do
  program=$component
  if [ "$component" = omos ]; then program=oh-my-opencode-slim; fi
  if has "$component"; then
    check "$component is there" inside "command -v $program"
  else
    check "$component is not there" inside "! command -v $program"
  fi
done
check 'opencode serve is healthy' healthy
check 'the entrypoint drops to developer and adopts PUID and PGID' drops_privileges
check 'PUID=0 is refused in one line' refuses_root_id
# User-mode emulation does not honour set-user-id programs unless the host is set up for it.
if [ "$(docker version --format '{{.Server.Os}}/{{.Server.Arch}}')" = "$platform" ]; then
  check 'sudo works without a password' inside 'sudo -n true'
else
  count=$((count + 1))
  say "ok $count - sudo works without a password # SKIP emulated"
fi
check 'configuration is valid JSON and the same at each start' config_is_idempotent
check 'nothing is baked under a volume path' volumes_are_empty
check 'no certificate or secret of the build host' no_host_certificates
if [ -n "$max_mb" ]; then check "at most $max_mb MB compressed" within_budget; fi
wait
check 'docker stop ends it by SIGTERM' stops_quickly
wait
say "1..$count"

if compgen -G "$work/failed-*" >/dev/null; then
  echo "# $variant on $platform: $(cat "$work"/failed-* | wc -l) of $count failed:"
  sed 's/^/#   /' "$work"/failed-*
  exit 1
fi
echo "# $variant on $platform: all $count passed"
