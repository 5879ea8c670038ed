# shellcheck shell=bash
# Helpers of the checks. The commands of a check are words, so a check depends on a helper exactly where its name is
# written: in the check, or in a helper that the check names.
# shellcheck shell=bash disable=SC2154 # the runner sets image, platform, engine, name, work, suite, emulated

run() { "$engine" run --rm --label "$name" --platform "$platform" "$@"; }

# program FILE: the text of a program of scripts/smoke/programs, for the command line of a shell or of Python.
program() { cat "$suite/programs/$1"; }

# volume NAME FOLDER: a volume of this run with the files of a folder, owned by root. Folders of this machine are not
# mounted: the engine may run on another one, or outside of the container that this script runs in.
volume() {
  local helper
  helper=$("$engine" create --label "$name" --platform "$platform" --volume "$name-$1:/mnt" "$image")
  "$engine" cp "$2/." "$helper:/mnt" >/dev/null
  "$engine" rm "$helper" >/dev/null
}

# secret_volume NAME FILE TEXT: a volume with one file that only root can read.
secret_volume() {
  mkdir -p "$work/$1"
  printf '%s\n' "$3" > "$work/$1/$2"
  chmod 600 "$work/$1/$2"
  volume "$1" "$work/$1"
}

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
  id=$("$engine" create --label "$name" --platform "$platform" "$@")
  "$engine" start --attach "$id" > "$work/$id" 2>&1 &
  attached=$!
  await 300 printed_or_gone "$pattern" "$work/$id" "$attached"
  grep -qaE -- "$pattern" "$work/$id" || { echo "no $pattern in:"; cat "$work/$id"; return 1; }
}

# says PATTERN COMMAND…: passes if the command prints a line that matches, whatever its exit code.
says() {
  local pattern=$1 output
  shift
  output=$("$@" 2>&1) || true
  grep -qE -- "$pattern" <<<"$output" || { echo "no line matches $pattern in:"; echo "$output"; return 1; }
}

# silent COMMAND…: passes if the command succeeds and prints nothing.
silent() {
  local output
  output=$("$@" 2>&1)
  [ -z "$output" ] || { echo "printed: $output"; return 1; }
}

# exits CODE COMMAND…: passes if the command ends with that code.
exits() {
  local code=0 output
  output=$("${@:2}" 2>&1) || code=$?
  [ "$code" = "$1" ] || { echo "exit code $code, expected $1: $output"; return 1; }
}

# stops_by_sigterm ID: the container ends by SIGTERM, before the engine would kill it.
stops_by_sigterm() {
  local code
  "$engine" stop --time 10 "$1" >/dev/null
  code=$("$engine" inspect --format '{{.State.ExitCode}}' "$1")
  "$engine" rm "$1" >/dev/null
  [ "$code" = 143 ] || { echo "exit code $code, expected 143"; return 1; }
}

# begins_and_stops PATTERN ARGUMENT…: the container prints PATTERN when it is ready, and ends by SIGTERM.
begins_and_stops() {
  local id
  begin "$@"
  stops_by_sigterm "$id"
}
