# shellcheck shell=bash
# Gives each wrong input of standard input to its program: one line that begins as the table says, and its exit code.
# Columns: exit code, how, input, line. A carriage return is written \r.
failed=
mkdir -p /tmp/project && cd /tmp/project || exit
start() { /usr/local/bin/devbox-entrypoint "$@"; }
# words INPUT COMMAND…: the command with the words of the input, which is quoted as for a shell.
words() {
  local input=$1 command=("${@:2}")
  set -f
  eval "set -- $input"
  "${command[@]}" "$@"
}
give() {
  case $1 in
    setting) env "${2//'\r'/$'\r'}" /usr/local/bin/devbox-entrypoint bash -c 'echo still here' ;;
    command) words "$2" start timeout 60 ;;
    devbox) words "$2" devbox ;;
    launcher) HOME=/tmp words "$2" sh /usr/share/devbox/opencode-devbox ;;
  esac
}
while IFS=$'\t' read -r code how input line; do
  case $code in '' | '#'*) continue ;; esac
  output=$(give "$how" "$input" 2>&1 </dev/null)
  found=$?
  ok=yes
  [ "$found" = "$code" ] || ok=
  [ "$(grep -cE '^(opencode-)?devbox: ' <<<"$output")" = 1 ] || ok=
  case $'\n'$output in *$'\n'"$line"*) ;; *) ok= ;; esac
  case $output in *Traceback*) ok= ;; esac
  if [ "$how" = setting ] && [ "$code" = 0 ]; then case $output in *'still here'*) ;; *) ok= ;; esac; fi
  [ -n "$ok" ] || { echo "$how $input: exit code $found, expected $code and $line: $output"; failed=yes; }
done
[ -z "$failed" ]
