# shellcheck shell=bash
# Starts: users, capabilities, read-only, exit codes, greetings and the end of a container.
# shellcheck shell=bash disable=SC2016,SC2034,SC2154

hard=(--read-only --cap-drop ALL --security-opt no-new-privileges --tmpfs /tmp:exec --tmpfs /home/developer:exec)

check 'the entrypoint drops to developer and adopts PUID and PGID' base native drops_privileges
check 'PUID=0 is refused in one line' base native refuses_root_id
check 'root has no folder of the user on PATH' base native says '^/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin$' \
  run --entrypoint /bin/sh "$image" -c 'echo $PATH'
check 'a user without a name gets one' base native says '^developer developer$' run --user 4242 "$image" bash -c \
  'echo "$(id -un) $(node -p "require(\"os\").userInfo().username")"'
check 'starts as any user' opencode native says '^works as 4242$' run --user 4242:4343 "$image" bash -c "$(program works.sh)"
check 'starts without capabilities' opencode native says '^works as 0$' run --cap-drop ALL "$image" bash -c "$(program works.sh)"
check 'starts without new privileges' opencode native says '^works as 1000$' \
  run --security-opt no-new-privileges "$image" bash -c "$(program works.sh)"
check 'starts read-only' opencode native says '^works as 1000$' \
  run --read-only --tmpfs /tmp --tmpfs /home/developer "$image" bash -c "$(program works.sh)"
check 'starts hardened as any user' opencode native says '^works as 4242$' \
  run --user 4242:4343 "${hard[@]}" "$image" bash -c "$(program works.sh)"
check 'starts hardened as root' opencode native says '^works as 0$' \
  run -e PUID=4242 "${hard[@]}" "$image" bash -c "$(program works.sh)"
check 'what a read-only start cannot keep is reported' base native says 'cannot write ~/.config, ' run --read-only "$image" true
check 'exit codes are kept' base native exits 42 run "$image" bash -c 'exit 42'
check 'a missing command is 127' base native exits 127 run "$image" not-there
check 'a file that is no program is 126' base native exits 126 run "$image" /etc/passwd
check 'a shell with a terminal greets' opencode native greets
check 'nothing greets without a terminal' base native silent run "$image" bash -lc true
check 'what runs without a server is healthy' base native says '^running$' run "$image" devbox health
check 'the home is closed to others' base native says '^755 755 755$' run "$image" bash -c 'stat -c %a ~ ~/.config ~/.pi | xargs'
check 'a server without volumes reports what is lost' opencode native says '^devbox: not mounted, so lost' run "$image" opencode serve --help
check 'no server is open to all without a password' opencode native exits 64 run "$image" opencode --print-logs serve --hostname 0.0.0.0
check 'a full disk still gives a shell' base native survives_a_full_disk
check 'a shell stops by SIGTERM' base native begins_and_stops 'devbox doctor' --interactive --tty "$image"
check 'a terminal interface stops by SIGTERM' opencode native begins_and_stops 2004h --interactive --tty "$image" opencode
check 'a program without a handler stops by SIGTERM' base native begins_and_stops ready "$image" sh -c 'echo ready; sleep 600'
check 'the health check notices a server that hangs' opencode native notices_a_hanging_server

drops_privileges() {
  [ "$(run "$image" id -un)" = developer ] || return 1
  [ "$(run -e PUID=4242 -e PGID=4343 "$image" bash -c 'echo "$(id -u):$(id -g) $HOME"')" = '4242:4343 /home/developer' ]
}

refuses_root_id() {
  local output
  if output=$(run -e PUID=0 "$image" true 2>&1); then return 1; fi
  grep -q '^devbox: PUID=0: ' <<<"$output"
}

greets() {
  local id part
  begin 'devbox doctor' --interactive --tty "$image"
  for part in 'opencode [0-9]' 'lost with this container: ~/.config/opencode' 'no workspace' 'no provider key'; do
    says "$part" cat "$work/$id"
  done
  "$engine" rm -f "$id" >/dev/null
}

survives_a_full_disk() {
  local output
  output=$(run --tmpfs /home/developer/.local/state:size=64k "$image" bash -c \
    'head -c 1M /dev/zero > ~/.local/state/fill 2>/dev/null; GIT_USER_NAME=Ann devbox setup; echo still here' 2>&1)
  grep -q 'No space left on device' <<<"$output"
  grep -q 'still here' <<<"$output"
}

notices_a_hanging_server() {
  local id
  begin listening -e OPENCODE_SERVER_PASSWORD=secret "$image" opencode serve
  await 60 says '^serving$' "$engine" exec "$id" devbox health
  "$engine" exec "$id" bash -c 'kill -STOP $(pgrep -x opencode)'
  says 'does not answer as healthy' "$engine" exec "$id" devbox health
  exits 1 "$engine" exec "$id" devbox health
  "$engine" rm -f "$id" >/dev/null
}
