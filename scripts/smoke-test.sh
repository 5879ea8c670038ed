#!/usr/bin/env bash
# The smoke suite: what a built image has to satisfy. Runs every check, prints TAP, lists the failures at the end.
# Single quotes keep what the container's shell has to expand:
# shellcheck disable=SC2016
set -euo pipefail

if [ "${BASH_VERSINFO[0]}" -lt 5 ]; then
  echo "smoke-test.sh: bash $BASH_VERSION: 5.0 or newer is needed: install bash (on macOS, brew install bash)" >&2
  exit 2
fi

usage() {
  cat <<'TEXT'
usage: smoke-test.sh --image REF --variant NAME --platform OS/ARCH [options]
  --shared-in NAME      variant that runs the checks of shared layers for all under emulation (default: this one)
  --components LIST     components that the variant ships, separated by commas
  --expect NAME=VERSION pinned version that the image has to answer; repeat
  --max-size-mb N       compressed size that the image may have, in 10^6 bytes
  --report FILE         also write the TAP to a file
example: smoke-test.sh --image localhost:5000/opencode-devbox:latest --variant base --platform linux/amd64 --components opencode
exit: 0 all passed, 1 a check failed, 2 wrong usage
TEXT
}

image='' variant='' platform='' shared_in='' components='' max_mb='' report='' expected=()
while [ $# -gt 0 ]; do
  if [ "$1" = --help ]; then usage; exit 0; fi
  if [ $# -lt 2 ]; then usage >&2; exit 2; fi
  case $1 in
    --image) image=$2 ;;
    --variant) variant=$2 ;;
    --platform) platform=$2 ;;
    --shared-in) shared_in=$2 ;;
    --components) components=$2 ;;
    --expect) expected+=("$2") ;;
    --max-size-mb) max_mb=$2 ;;
    --report) report=$2 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift 2
done
if [ -z "$image" ] || [ -z "$variant" ] || [ -z "$platform" ]; then usage >&2; exit 2; fi

engine=$(docker version --format '{{.Server.Os}}/{{.Server.Arch}}')
name="devbox-smoke-$$-$RANDOM"
work=$(mktemp -d)
report=${report:-$work/report}
# Every container of this run carries its name as a label, every volume begins with it.
trap 'docker ps -aq --filter "label=$name" | xargs -r docker rm -f >/dev/null 2>&1 || true
  docker volume ls -q --filter "name=$name" | xargs -r docker volume rm >/dev/null 2>&1 || true
  rm -rf "$work"' EXIT
: > "$report"
: > "$work/quick"
count=0

say() { printf '%s\n' "$1" | tee -a "$report"; }

# judge NUMBER DESCRIPTION COMMAND…: a line of TAP that says whether the command passes, and what it took; its output
# explains a failure. Known inside the container as well.
judge() {
  local number=$1 description=$2 output code verdict=ok began=${EPOCHREALTIME/[.,]/} took
  shift 2
  # Not `if output=…`: under a condition bash would go on after a failing line of a check, and only its last would count.
  set +e
  output=$(set -e; "$@" 2>&1)
  code=$?
  set -e
  if [ "$code" != 0 ]; then verdict='not ok'; fi
  took=$(((${EPOCHREALTIME/[.,]/} - began) / 100000))
  # TAP diagnostics are lines that start with a number sign.
  if [ "$verdict" = ok ]; then output=; else output=$'\n'$(tail -n 15 <<<"$output" | cut -c 1-240 | sed 's/^/# /'); fi
  printf '%s\n' "$verdict $number - $description # $((took / 10)).$((took % 10)) s$output"
}

# Waits until there is room for one more check. Checks run side by side, one more than there are processors, since they
# also wait; their numbers come out of order, which TAP allows.
room() { while [ "$(jobs -rp | wc -l)" -gt "$(getconf _NPROCESSORS_ONLN)" ]; do wait -n || true; done; }

# check DESCRIPTION COMMAND…: passes if the command does.
check() {
  count=$((count + 1))
  room
  judge "$count" "$@" | tee -a "$report" &
}

# quick DESCRIPTION LINE: passes if the line of shell does in the container that stays. All of them take one exec.
quick() {
  count=$((count + 1))
  printf '%s\t%s\t%s\n' "$count" "$1" "$2" >> "$work/quick"
}

# What runs inside the container: each line of standard input is a number, a description and a line of shell.
judge_lines() {
  local number description line
  while IFS=$'\t' read -r number description line; do
    room
    judge "$number" "$description" eval "$line" </dev/null &
  done
  wait
}

run_quick() {
  docker exec --interactive --user developer --env HOME=/home/developer "$name" \
    bash -lc "$(declare -f judge room judge_lines answers healthy no_host_certificates); judge_lines" < "$work/quick" | tee -a "$report"
}

skip() {
  count=$((count + 1))
  say "ok $count - $2 # SKIP $1"
}

# native HOW DESCRIPTION …: checked HOW where the platform is not emulated: what does not depend on the architecture is
# not worth minutes of emulation, since the files that it tests are the same on all platforms.
native() { if is_native; then "$@"; else skip 'emulated, and the same on all architectures' "$2"; fi; }

# The same for what lies in the layers that all variants share: under emulation one variant tests them for all. A
# release is refused unless the layers are the same and every variant has passed.
shared() {
  if is_native || [ "$variant" = "${shared_in:-$variant}" ]; then "$@"; else skip "emulated, and tested in the variant $shared_in" "$2"; fi
}

# volume NAME FOLDER: a volume of this run with the files of a folder, owned by root. Folders of this machine are not mounted:
# the engine may run on another one, or outside of the container that this script runs in.
volume() {
  local helper
  helper=$(docker create --label "$name" --platform "$platform" --volume "$name-$1:/mnt" "$image")
  docker cp --quiet "$2/." "$helper:/mnt"
  docker rm "$helper" >/dev/null
}

inside() { docker exec --user developer --env HOME=/home/developer "$name" bash -lc "$1"; }
run() { docker run --rm --label "$name" --platform "$platform" "$@"; }
is_native() { [ "$engine" = "$platform" ]; }

# await SECONDS COMMAND…: asks until the command passes.
await() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || { echo "not within its time: $*"; return 1; }
    sleep 0.2
  done
}

# printed_or_gone PATTERN FILE PID: a line of the file matches, or the process that writes it has ended.
printed_or_gone() { grep -qaE -- "$1" "$2" || ! kill -0 "$3" 2>/dev/null; }

# begin PATTERN ARGUMENT…: starts a container that stays for a while, and waits until it prints a line that matches.
# Sets id. What it prints is read as it comes: docker's log keeps a line back until it ends, and the first line of a
# terminal interface never does.
begin() {
  local pattern=$1 attached
  shift
  id=$(docker create --label "$name" --platform "$platform" "$@")
  docker start --attach "$id" > "$work/$id" 2>&1 &
  attached=$!
  await 120 printed_or_gone "$pattern" "$work/$id" "$attached"
  grep -qaE -- "$pattern" "$work/$id" || { echo "no $pattern in:"; cat "$work/$id"; return 1; }
}

# says PATTERN COMMAND…: passes if the command prints a line that matches, whatever its exit code.
says() {
  local pattern=$1 output
  shift
  output=$("$@" 2>&1) || true
  grep -qE -- "$pattern" <<<"$output" || { echo "no line matches $pattern in:"; echo "$output"; return 1; }
}
said() { grep -E -- "$1" "$work/complaints" || { cat "$work/complaints"; return 1; }; }
greets_nobody() {
  local output
  output=$(run "$image" bash -lc true 2>&1)
  [ -z "$output" ] || { echo "printed: $output"; return 1; }
}
exits() {
  local code=0
  "${@:2}" >/dev/null 2>&1 || code=$?
  [ "$code" = "$1" ] || { echo "exit code $code, expected $1"; return 1; }
}
has() { case ",$components," in *",$1,"*) return 0 ;; *) return 1 ;; esac; }

# Which command answers the version of a pinned component.
version_command() {
  case $1 in
    mempalace) echo "/opt/mempalace/bin/python -c 'import importlib.metadata as m; print(m.version(\"mempalace\"))'" ;;
    omos) echo "node -p 'require(\"/opt/omos/node_modules/oh-my-opencode-slim/package.json\").version'" ;;
    *) echo "$1 --version" ;;
  esac
}

# answers VERSION COMMAND…: passes if the command prints that version.
answers() {
  local version=$1 found
  shift
  found=$("$@")
  grep -qE "(^|[^0-9.])${version//./\\.}([^0-9.]|$)" <<<"$found" || { echo "expected $version, got: $found"; return 1; }
}

healthy() {
  local server code=1
  opencode serve --hostname 127.0.0.1 --port 4096 >/tmp/serve.log 2>&1 &
  server=$!
  # The server gets a generous bound, since an emulated one starts slowly.
  for _ in $(seq 240); do
    if grep -q listening /tmp/serve.log; then break; fi
    sleep 0.5
  done
  curl -fsS -m 60 http://127.0.0.1:4096/global/health | grep -q '"healthy":true' && code=0
  kill $server
  [ "$code" = 0 ] || { cat /tmp/serve.log; return 1; }
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
  local bodies='/^-----BEGIN/{body="";next} /^-----END/{print body;next} {body=body $0}' foreign
  foreign=$(comm -13 <(awk "$bodies" /usr/share/ca-certificates/mozilla/*.crt | sort) \
    <(awk "$bodies" /etc/ssl/certs/ca-certificates.crt | sort))
  [ -z "$foreign" ] || { echo "foreign certificates: $foreign"; return 1; }
  [ ! -e /run/secrets/ca ] && [ -z "$(ls -A /usr/local/share/ca-certificates)" ]
}

volumes_are_empty() {
  local files
  files=$(run --entrypoint bash "$image" -c 'cd /home/developer
    find .pi .config .local .cache /workspace -type f 2>/dev/null || true')
  [ -z "$files" ] || { echo "$files"; return 1; }
}

# What every start has to be able to do: write its home and data, run the agent, with tini as PID 1.
works='touch ~/t ~/.config/opencode/t ~/.local/share/opencode/t && [ "$(cat /proc/1/comm | cut -c1-4)" != pyth ] &&
  opencode --version && echo "works as $(id -u)"'
hard=(--read-only --cap-drop ALL --security-opt no-new-privileges --tmpfs /tmp:exec --tmpfs /home/developer:exec)

greets() {
  local id part
  begin 'devbox doctor' --interactive --tty "$image"
  for part in 'opencode [0-9]' 'lost with this container: ~/.config/opencode' 'no workspace' 'no provider key'; do
    says "$part" cat "$work/$id"
  done
  docker rm -f "$id" >/dev/null
}

# stops_at_once PATTERN ARGUMENT…: the container prints PATTERN when it is ready, and ends soon after SIGTERM.
stops_at_once() {
  local id began ended bound=1000
  is_native || bound=6000
  begin "$@"
  began=$((${EPOCHREALTIME/[.,]/} / 1000))
  docker stop --time 10 "$id" >/dev/null
  # A time such as 2026-11-30T14:06:22.123456789Z, in milliseconds.
  ended=$(docker inspect --format '{{json .State.FinishedAt}}' "$id" |
    jq '(.[0:19] + "Z" | fromdate * 1000) + (("0" + (.[19:] | rtrimstr("Z"))) | tonumber * 1000 | floor)')
  [ "$(docker inspect --format '{{.State.ExitCode}}' "$id")" = 143 ] || { echo "not ended by SIGTERM"; return 1; }
  docker rm "$id" >/dev/null
  [ $((ended - began)) -le "$bound" ] || { echo "$((ended - began)) ms, at most $bound"; return 1; }
}

# A server with a password and a key that only root can read: healthy, and the key is in no environment.
serves_with_secrets() {
  local id
  mkdir -p "$work/secrets"
  printf 'smoke-password\n' > "$work/secrets/password"
  printf 'smoke-key\n' > "$work/secrets/key"
  chmod 600 "$work/secrets"/*
  volume secrets "$work/secrets"
  begin listening -v "$name-secrets:/run/secrets:ro" -e OPENCODE_SERVER_PASSWORD_FILE=/run/secrets/password \
    -e ANTHROPIC_API_KEY_FILE=/run/secrets/key "$image" opencode --print-logs serve --port 4096
  says '^serving$' docker exec "$id" devbox health
  says '^401$' docker exec "$id" curl -s -o /dev/null -w '%{http_code}\n' http://127.0.0.1:4096/global/health
  says '^no key$' docker exec --user developer "$id" bash -c \
    'cat /proc/[0-9]*/environ 2>/dev/null | tr "\0" "\n" | grep -q smoke-key || echo no key'
  says '^0$' bash -c "docker inspect $id | grep -c -e smoke-key -e smoke-password"
  says '^anthropic/' docker exec "$id" opencode models anthropic
  docker rm -f "$id" >/dev/null
}

# The generated layer is what opencode uses, each value has its layer, and the user's file stays as it was.
configures_in_layers() {
  run -v "$name-config:/home/developer/.config/opencode" -e DEVBOX_MODEL=a/b -e DEVBOX_MCP_CONTEXT7=off "$image" bash -c '
    set -e
    printf "{ // mine\n \"\$schema\": \"https://opencode.ai/config.json\", \"small_model\": \"c/d\", \"mcp\": {\"mempalace\": {\"type\": \"local\", \"command\": [\"x\"]},}}" > ~/.config/opencode/opencode.json
    before=$(sha256sum ~/.config/opencode/opencode.json)
    devbox config show > /tmp/show
    grep -q "^model = \"a/b\"  # the environment" /tmp/show
    grep -q "^small_model = \"c/d\"  # /home/developer/.config/opencode/opencode.json" /tmp/show
    grep -q "^mcp.context7.enabled = false  # the environment" /tmp/show
    grep -q "^mcp.mempalace.command = \[\"x\"\]  # /home" /tmp/show
    grep -q "^autoupdate = false  # /etc/opencode" /tmp/show
    opencode debug config > /tmp/debug
    jq "{model, small_model, mcp, autoupdate}" /tmp/debug
    jq -e ".model == \"a/b\" and .small_model == \"c/d\" and .mcp.context7.enabled == false and .autoupdate == false and
      .mcp.mempalace.command == [\"x\"]" /tmp/debug >/dev/null
    printf "%s\n" "$before" | sha256sum --check --quiet'
}

deploys_skills() {
  mkdir -p "$work/skills/one" "$work/skills/group/two"
  echo 1 > "$work/skills/one/SKILL.md"
  echo 2 > "$work/skills/group/two/SKILL.md"
  volume source "$work/skills"
  rm -r "$work/skills/one"
  volume source-later "$work/skills"
  local skills=/home/developer/.config/opencode/skills options
  options=(-v "$name-skills:/home/developer/.config/opencode" -e SKILLSET_PATH=/skills)
  says '(^| )one own (.* )?two ' run "${options[@]}" -v "$name-source:/skills:ro" "$image" bash -c "mkdir -p $skills/own; ls $skills | tr '\n' ' '"
  says '^0 0 1 1$' run "${options[@]}" -v "$name-source-later:/skills:ro" "$image" bash -c "cd $skills; for n in one nix own two; do find . -name \$n | wc -l; done | xargs"
}

refuses_unreadable_key() {
  mkdir -p "$work/root-keys"
  printf 'smoke-key\n' > "$work/root-keys/key"
  chmod 600 "$work/root-keys/key"
  volume root-keys "$work/root-keys"
  says 'OPENAI_API_KEY_FILE=/keys/key: Permission denied' \
    run --user 4242:4242 -v "$name-root-keys:/keys:ro" -e OPENAI_API_KEY_FILE=/keys/key "$image" true
}

guards_data() {
  local id
  # A database such as opencode's, written by a version to come, is spoken of before opencode opens it.
  says 'written by opencode 99.0.0, and this image has' run "$image" bash -c '
    python3 -c "import sqlite3, os; d = sqlite3.connect(os.path.expanduser(\"~/.local/share/opencode/opencode.db\"))
d.execute(\"create table session (version text)\"); d.execute(\"insert into session values (\\\"99.0.0\\\")\"); d.commit()"
    opencode debug paths'
  begin listening -v "$name-data:/home/developer/.local/share/opencode" "$image" opencode serve
  says 'another container uses /home/developer/.local/share/opencode as well' \
    run -v "$name-data:/home/developer/.local/share/opencode" "$image" opencode debug paths
  docker rm -f "$id" >/dev/null
}

knows_its_versions() {
  run "$image" devbox versions --json > "$work/versions.json"
  jq -e 'length > 25 and all(.[]; .version and .source and .licence and (.digest | startswith("sha256:")))' \
    "$work/versions.json" >/dev/null || { cat "$work/versions.json"; return 1; }
  local pin
  for pin in "${expected[@]}"; do
    jq -e --arg name "${pin%%=*}" --arg version "${pin#*=}" 'any(.[]; .name == $name and .version == $version)' \
      "$work/versions.json" >/dev/null || { echo "$pin is not listed"; return 1; }
  done
}

uses_git() {
  says '^Ann <ann@example.org> commit$' run -e GIT_USER_NAME=Ann -e GIT_USER_EMAIL=ann@example.org "$image" bash -c '
    cd /tmp && git init -q r && cd r && git commit -q --allow-empty -m m && git log -1 --format="%an <%ae> commit"'
  says '^password=smoke$' run -e GH_TOKEN=smoke "$image" bash -c 'printf "protocol=https\nhost=github.com\n\n" | git credential fill'
  # A repository of another owner, as a mounted one is; git by itself refuses it.
  git init -q "$work/repository"
  volume workspace "$work/repository"
  volume elsewhere "$work/repository"
  says '^usable$' run -e PUID=4242 -v "$name-workspace:/workspace" -v "$name-elsewhere:/elsewhere" "$image" bash -c \
    'git -C /workspace status && git -C /elsewhere status && echo usable'
}

keeps_keys_tight() {
  mkdir -p "$work/ssh"
  echo key > "$work/ssh/id_ed25519"
  chmod 644 "$work/ssh/id_ed25519"
  volume ssh "$work/ssh"
  says '^700 600$' run -v "$name-ssh:/mnt/ssh:ro" "$image" bash -c 'echo "$(stat -c %a ~/.ssh) $(stat -c %a ~/.ssh/id_ed25519)"'
  says '^userknownhostsfile /home/developer/.local/state/ssh/known_hosts ' run "$image" ssh -G host
  # OpenSSH by itself refuses a user whom passwd does not know.
  says '^made$' run --user 4242:4242 "$image" bash -c 'ssh-keygen -q -t ed25519 -N "" -f /tmp/key && ssh -V && echo made'
}

completes_late() {
  run "$image" bash -c 'bash -lic "declare -F _comp_load __load_completion" 2>/dev/null && exit 1
    bash -lic "_devbox_completion; _comp_load git && complete -p git" 2>/dev/null | grep -q git'
}

# Each program with words of its own to complete has a file that is read at the first Tab after its name.
completes_every_tool() {
  run -e TOOLS="$1" "$image" bash -lic '_devbox_completion
    for tool in $TOOLS; do
      _comp_load $tool
      complete -p $tool >/dev/null 2>&1 || { echo "$tool completes nothing"; failed=1; }
    done
    [ -z "$failed" ]'
}

# Its vector store wants to fetch a model: without a network that is an answer, not a crash.
uses_mempalace_offline() {
  says '"id":3,.*mempalace_status|"id": ?3.*tools' run --network none "$image" bash -c '
    mkfifo /tmp/questions
    timeout 240 mempalace-mcp < /tmp/questions > /tmp/answers 2>/dev/null & exec 3> /tmp/questions
    ask() { printf "{\"jsonrpc\":\"2.0\",%s}\n" "$1" >&3; }
    ask "\"id\":1,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2025-03-26\",\"capabilities\":{},\"clientInfo\":{\"name\":\"smoke\",\"version\":\"1\"}}"
    ask "\"method\":\"notifications/initialized\""
    ask "\"id\":2,\"method\":\"tools/call\",\"params\":{\"name\":\"mempalace_search\",\"arguments\":{\"query\":\"x\"}}"
    ask "\"id\":3,\"method\":\"tools/list\",\"params\":{}"
    for _ in $(seq 1000); do grep -m1 "\"id\": *3" /tmp/answers && break; sleep 0.2; done'
}

finds_a_newer_image() {
  exits 10 run "$image" bash -c '
    mkdir /tmp/hub && echo "{\"results\": [{\"name\": \"v99.0.0b\"}, {\"name\": \"latest\"}]}" > /tmp/hub/tags && cd /tmp/hub
    python3 -m http.server --bind 127.0.0.1 8000 2>/dev/null & for _ in $(seq 50); do curl -sf http://127.0.0.1:8000/tags >/dev/null && break; sleep 0.2; done
    DEVBOX_TEST_TAGS=http://127.0.0.1:8000/tags devbox update-check'
}

has_metadata() {
  docker inspect "$name" --format '{{json .Config}}' | jq -e '.Healthcheck.Test == ["CMD", "/usr/local/bin/devbox", "health"] and
    (.Labels["devcontainer.metadata"] | fromjson | .[0].remoteUser == "developer")' >/dev/null
}

sets_up_agents() {
  if has omos; then says '"default_agent": "orchestrator"' inside 'opencode debug config'; fi
  if has pi; then
    mkdir -p "$work/pi-keys"
    printf 'smoke-key\n' > "$work/pi-keys/key"
    volume pi-keys "$work/pi-keys"
    says '"key": "!cat -- /run/keys/key"' run -v "$name-pi-keys:/run/keys:ro" -e OPENAI_API_KEY_FILE=/run/keys/key "$image" \
      bash -c 'pi --version >/dev/null; pi --version >/dev/null; cat ~/.pi/agent/auth.json'
  fi
}

say "TAP version 13"
docker run --detach --name "$name" --label "$name" --platform "$platform" "$image" sleep 3600 >/dev/null

for tool in git git-lfs gh curl wget jq yq rg fd fzf bat eza zoxide nvim less file tree rsync zstd make gcc python3 uv \
  shellcheck aws node npm; do
  shared quick "$tool answers its version" "$tool --version"
done
for line in 'ssh -V' 'gpg --version' 'tmux -V' 'zip -v' 'unzip -v' 'xz --version' 'go version' 'htop --version' \
  'ip -V' '/usr/sbin/gosu --version' 'dig -v' 'tini --version' 'mempalace-mcp --help' 'python3 -m venv --help'; do
  shared quick "$line" "$line"
done
for pin in "${expected[@]}"; do
  how=shared
  if has "${pin%%=*}"; then how=; fi
  $how quick "${pin%%=*} is the pinned ${pin#*=}" "answers ${pin#*=} $(version_command "${pin%%=*}")"
done
for component in opencode bun omos pi; do
  program=$component
  if [ "$component" = omos ]; then program=oh-my-opencode-slim; fi
  if has "$component"; then
    quick "$component is there" "command -v $program"
  else
    quick "$component is not there" "! command -v $program"
  fi
done
# Another major version has another configuration and interface, and the image's launcher would be wrong about both.
if has opencode; then quick 'opencode is of the major version that the launcher knows' "opencode --version | grep -qE '^1\.'"; fi
quick 'opencode serve is healthy' healthy
# User-mode emulation does not honour set-user-id programs unless the host is set up for it.
native quick 'sudo works without a password' 'sudo -n true'
shared quick 'git-lfs stores pointers' 'cd $(mktemp -d) && git init -q && git lfs track "*.bin" && echo x > a.bin && git add . && git cat-file -p :a.bin | grep -q git-lfs'
shared quick 'user folders come after the programs of the image' 'case $PATH in */usr/bin:*/home/developer/.local/bin:*) ;; *) echo "$PATH"; exit 1 ;; esac'
shared quick 'old time zones and new terminals are known' 'TZ=US/Eastern date +%Z | grep -qE "^E[SD]T$" && TERM=alacritty tput colors'
native quick 'the palace lies in its volume' "[ \"\$(/opt/mempalace/bin/python -c \
  'from mempalace.config import MempalaceConfig; print(MempalaceConfig().palace_path)')\" = /home/developer/.mempalace/palace ]"
shared quick 'aws has its help' 'aws s3 cp help | grep SYNOPSIS'
shared quick 'no certificate or secret of the build host' no_host_certificates
run_quick &

# The longest first, so that they do not stand alone at the end.
native check 'a server with secrets in files is healthy and leaks none' serves_with_secrets
native check 'opencode is configured in layers and your file stays' configures_in_layers
if has omos || has pi; then native check 'agents are set up, and again is the same' sets_up_agents; fi
native check 'no server is open to all without a password' exits 64 run "$image" opencode --print-logs serve --hostname 0.0.0.0
shared check 'root has no folder of the user on PATH' says '^/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin$' \
  run --entrypoint /bin/sh "$image" -c 'echo $PATH'
native check 'a user without a name gets one' says '^developer developer$' run --user 4242 "$image" bash -c \
  'echo "$(id -un) $(node -p "require(\"os\").userInfo().username")"'
native check 'newer data and a second container are said' guards_data
native check 'opencode answers offline' says '"autoupdate": false' run --network none "$image" opencode debug config
shared check 'doctor talks to mempalace' says '^ok +mcp mempalace +mempalace ' inside 'devbox doctor --wait 400'
native check 'doctor works offline' says '^note dns ' run --network none "$image" devbox doctor --wait 1
native check 'mempalace answers offline' says '^ok +mcp mempalace ' run --network none "$image" devbox doctor --wait 400
native check 'mempalace survives its first use offline' uses_mempalace_offline
check 'the entrypoint drops to developer and adopts PUID and PGID' drops_privileges
shared check 'PUID=0 is refused in one line' refuses_root_id
shared check 'starts as any user' says '^works as 4242$' run --user 4242:4343 "$image" bash -c "$works"
native check 'starts without capabilities' says '^works as 0$' run --cap-drop ALL "$image" bash -c "$works"
native check 'starts without new privileges' says '^works as 1000$' run --security-opt no-new-privileges "$image" bash -c "$works"
native check 'starts read-only' says '^works as 1000$' run --read-only --tmpfs /tmp --tmpfs /home/developer "$image" bash -c "$works"
shared check 'starts hardened as any user' says '^works as 4242$' run --user 4242:4343 "${hard[@]}" "$image" bash -c "$works"
native check 'starts hardened as root' says '^works as 0$' run -e PUID=4242 "${hard[@]}" "$image" bash -c "$works"
native check 'says what a read-only start cannot keep' says 'cannot write ~/.config, ' run --read-only "$image" true
shared check 'keeps exit codes' exits 42 run "$image" bash -c 'exit 42'
native check 'a command that is not there is 127' exits 127 run "$image" not-there
native check 'a file that is no program is 126' exits 126 run "$image" /etc/passwd
native check 'a shell with a terminal greets' greets
native check 'nothing greets without a terminal' greets_nobody
native check 'what runs without a server is healthy' says '^running$' run "$image" devbox health
native check 'skills are deployed, and only theirs removed' deploys_skills
check 'versions are listed with source, licence and digest' knows_its_versions
native check 'git has identity and credentials' uses_git
shared check 'SSH keys are tight and any user has SSH' keeps_keys_tight
native check 'completions cost nothing at the start' completes_late
native check 'all tools complete their words' completes_every_tool "aws bat curl devbox eza fd gcc gh git git-lfs gpg jq make
  node npm opencode rg rsync shellcheck ssh tree unzip uv uvx wget xz $(for own in bun pi; do if has "$own"; then echo "$own"; fi; done)"
shared check 'health check and dev container metadata are there' has_metadata
native check 'update-check cannot tell offline' exits 3 run --network none "$image" devbox update-check
native check 'update-check finds a newer image' finds_a_newer_image
# One start with everything that is wrong: each has a line of its own.
if is_native; then
  run -e DEVBOX_OMOS=maybe -e DEVBOX_MODLE=x -e OPENAI_API_KEY_FILE=/none -e TZ=Mars/Base -e LANG=xx_XX.UTF-8 "$image" true \
    > "$work/complaints" 2>&1 || true
fi
native check 'a switch with a wrong value is said' said '^devbox: DEVBOX_OMOS=maybe: expected on or off'
native check 'an unknown variable is said' said 'did you mean DEVBOX_MODEL'
native check 'a missing key file is said' said 'OPENAI_API_KEY_FILE=/none: No such file'
native check 'an unknown time zone is said' said 'TZ=Mars/Base: no such time zone'
native check 'an unknown locale is said' said 'LANG=xx_XX.UTF-8: not in this image'
native check 'a key file that cannot be read is said' refuses_unreadable_key
native check 'a server without volumes says what is lost' says '^devbox: not mounted, so lost' run "$image" opencode serve --help
native check 'the home is closed to others' says '^755 755 755$' run "$image" bash -c 'stat -c %a ~ ~/.config ~/.pi | xargs'
check 'nothing is baked under a volume path' volumes_are_empty
native check 'the launcher is printed, and a shell reads it' says '^label=opencode-devbox$' run "$image" \
  bash -c 'devbox launcher | sh -n && devbox launcher'
if [ -n "$max_mb" ]; then check "at most $max_mb MB compressed" within_budget; fi
wait
# Nothing runs beside these, since they say how long a stop takes.
native check 'a shell stops at once' stops_at_once 'devbox doctor' --interactive --tty "$image"
wait
check 'a server stops at once' stops_at_once listening "$image" opencode serve
wait
native check 'a terminal interface stops at once' stops_at_once 2004h --interactive --tty "$image" opencode
check 'docker stop ends it by SIGTERM' stops_quickly
wait
say "1..$count"

failed=$(grep -c '^not ok ' "$report" || true)
results=$(grep -cE '^(not )?ok ' "$report")
if [ "$failed" != 0 ] || [ "$results" != "$count" ]; then
  # A check without a result is one whose container went away.
  echo "# $variant on $platform: $failed of $count failed, $((count - results)) gave no result:"
  sed -n 's/^not ok /#   /p' "$report"
  exit 1
fi
echo "# $variant on $platform: all $count passed"
