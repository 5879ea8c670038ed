#!/usr/bin/env bash
# The smoke suite: what an image of this family has to satisfy. Prints TAP. The checks are below scripts/smoke/.
set -euo pipefail
if [ "${BASH_VERSINFO[0]}" -lt 5 ]; then
  echo "smoke-test.sh: bash $BASH_VERSION: 5.0 or newer is needed: install bash (on macOS, brew install bash)" >&2
  exit 2
fi
usage() {
  cat <<'TEXT'
usage: smoke-test.sh --image REF [options]
  --platform OS/ARCH     platform to test [default: the engine's]
  --expect NAME=VERSION  pinned version of a component; repeat [default: the labels of the image]
  --max-size-mb N        compressed size that the image may have, in 10^6 bytes [default: devbox.toml]
  --checks FILE          names of the checks to run, one a line, - for standard input [default: all that apply]
  --jobs N               checks at once [default: one more than there are processors]
  --tap FILE             also write the TAP to a file
  --junit FILE           also write a JUnit report
  --prefix TEXT          text before each line on standard output
  --list                 print the names of the checks that apply, and run none
The engine is docker, else podman; CONTAINER_ENGINE names another one.
example: smoke-test.sh --image localhost:5000/opencode-devbox:latest
exit: 0 all passed, 1 a check failed, 2 wrong usage
TEXT
}
image='' platform='' max_mb='' chosen='' jobs='' tap='' junit='' prefix='' list='' pins=''
while [ $# -gt 0 ]; do
  case $1 in
    --help) usage; exit 0 ;;
    --list) list=yes; shift; continue ;;
  esac
  if [ $# -lt 2 ]; then usage >&2; exit 2; fi
  case $1 in
    --image) image=$2 ;;
    --platform) platform=$2 ;;
    --expect) pins+=$2$'\n' ;;
    --max-size-mb) max_mb=$2 ;;
    --checks) chosen=$2 ;;
    --jobs) jobs=$2 ;;
    --tap) tap=$2 ;;
    --junit) junit=$2 ;;
    --prefix) prefix=$2 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift 2
done
if [ -z "$image" ]; then usage >&2; exit 2; fi

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
suite=$root/scripts/smoke
# shellcheck source=scripts/smoke/runner.bash
. "$suite/runner.bash"
# shellcheck source=scripts/smoke/helpers.bash
. "$suite/helpers.bash"
begin_run
for topic in "$suite"/topics/*.bash; do
  # shellcheck disable=SC1090 # each topic is checked as a file of its own
  . "$topic"
done
end_run
