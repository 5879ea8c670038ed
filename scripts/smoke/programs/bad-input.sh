# shellcheck shell=bash
# Starts the entrypoint with each wrong setting of standard input: one line of the launcher, which begins so, and an exit
# code. Columns: exit code, NAME=value, line. A carriage return is written \r.
failed=
while IFS=$'\t' read -r code setting line; do
  case $code in '' | '#'*) continue ;; esac
  output=$(env "${setting//'\r'/$'\r'}" /usr/local/bin/devbox-entrypoint bash -c 'echo still here' 2>&1 </dev/null)
  found=$?
  ok=yes
  [ "$found" = "$code" ] || ok=
  [ "$(grep -c '^devbox: ' <<<"$output")" = 1 ] || ok=
  case $'\n'$output in *$'\n'"$line"*) ;; *) ok= ;; esac
  case $output in *Traceback*) ok= ;; esac
  if [ "$code" = 0 ]; then case $output in *'still here'*) ;; *) ok= ;; esac; fi
  [ -n "$ok" ] || { echo "$setting: exit code $found, expected $code and $line: $output"; failed=yes; }
done
[ -z "$failed" ]
