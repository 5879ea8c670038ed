# What people set: variables, secrets in files, configuration in layers, logins, wrong values.
# shellcheck shell=bash disable=SC2016,SC2154

check 'a server with secrets in files is healthy and leaks none' opencode native serves_with_secrets
check 'opencode is configured in layers and your file stays' opencode native configures_in_layers
check 'opencode answers offline' opencode native says '"autoupdate": false' run --network none "$image" opencode debug config
check 'opencode has the agent of omos' opencode+bun+omos native says '"default_agent": "orchestrator"' run "$image" opencode debug config
check 'pi has the keys of files, and again the same' pi native gives_pi_its_keys
check 'a key file that cannot be read is reported' base native refuses_unreadable_key
check 'each wrong input gets one line' base native reports_bad_input
check 'each wrong server gets one line' opencode native reports_bad_servers
check 'each wrong start gets one line' base native reports_bad_starts
check 'aws login shows a code for any browser' base native logs_in_to_aws
check 'gitea is registered where its program and account are' base native registers_gitea
check 'gitea-mcp works with a Gitea server' gitea-mcp native says '^gitea-mcp reads and writes$' \
  run --network none -e GITEA_ACCESS_TOKEN=smoke-token "$image" python3 -c "$(program gitea-works.py)"
check 'opencode connects to gitea' opencode native asks_gitea 'opencode mcp list' 'gitea.*connected' gitea-mcp.py

# A server with a password and a key that only root can read: healthy, and the key is in no environment.
serves_with_secrets() {
  local id
  secret_volume password password smoke-password
  secret_volume key key smoke-key
  begin listening -v "$name-password:/run/secrets:ro" -v "$name-key:/run/keys:ro" -e OPENCODE_SERVER_PASSWORD_FILE=/run/secrets/password \
    -e ANTHROPIC_API_KEY_FILE=/run/keys/key "$image" opencode --print-logs serve --port 4096
  says '^serving$' "$engine" exec "$id" devbox health
  says '^401$' "$engine" exec "$id" curl -s -o /dev/null -w '%{http_code}\n' http://127.0.0.1:4096/global/health
  says '^no key$' "$engine" exec --user developer "$id" bash -c \
    'cat /proc/[0-9]*/environ 2>/dev/null | tr "\0" "\n" | grep -q smoke-key || echo no key'
  "$engine" inspect "$id" > "$work/inspected"
  says '^0$' grep -c -e smoke-key -e smoke-password "$work/inspected"
  says '^anthropic/' "$engine" exec "$id" opencode models anthropic
  "$engine" rm -f "$id" >/dev/null
}

# The generated layer is what opencode uses, each value has its layer, and the user's file stays as it was.
configures_in_layers() {
  run -e DEVBOX_MODEL=a/b -e DEVBOX_MCP_CONTEXT7=off "$image" bash -c "$(program configure.sh)"
}

# The file of a key that the user may read is referred to where it is.
gives_pi_its_keys() {
  mkdir -p "$work/pi-keys"
  printf 'smoke-key\n' > "$work/pi-keys/key"
  volume pi-keys "$work/pi-keys"
  says '"key": "!cat -- /run/keys/key"' run -v "$name-pi-keys:/run/keys:ro" -e OPENAI_API_KEY_FILE=/run/keys/key "$image" \
    bash -c 'pi --version >/dev/null; pi --version >/dev/null; cat ~/.pi/agent/auth.json'
}

refuses_unreadable_key() {
  secret_volume root-keys key smoke-key
  says 'OPENAI_API_KEY_FILE=/keys/key: Permission denied' \
    run --user 4242:4242 -v "$name-root-keys:/keys:ro" -e OPENAI_API_KEY_FILE=/keys/key "$image" true
}

reports_bad_input() {
  run -i --entrypoint /bin/bash "$image" -c "$(program bad-input.sh)" < "$suite/bad-input.tsv"
}

reports_bad_servers() {
  run -i --network none --entrypoint /bin/bash "$image" -c "$(program bad-input.sh)" < "$suite/bad-server.tsv"
}

# Options that only a start can have.
reports_bad_starts() {
  one_line 64 'devbox: root without the capabilities SETUID and SETGID' --cap-drop=SETUID
  one_line 0 'devbox: user 1000 cannot write ~/.config, ' --read-only
  one_line 0 'devbox: cannot write /home/developer/.local/state/devbox/gitconfig: No space left on device' \
    --tmpfs=/home/developer:size=4k
  one_line 0 'devbox: /home/developer/.pi is mounted read-only' --tmpfs=/home/developer/.pi:ro
  one_line 0 'devbox: GH_TOKEN_FILE=/etc/shadow: Permission denied' --user=4242 -e GH_TOKEN_FILE=/etc/shadow
}

# one_line CODE LINE OPTION…: the start prints one line of the launcher, which begins so, and ends with that code.
one_line() {
  local code=0 output lines
  output=$(run "${@:3}" "$image" bash -c 'echo still here' 2>&1) || code=$?
  lines=$(grep '^devbox: ' <<<"$output")
  case $code:$lines in
    "$1:$2"*) [ "$(wc -l <<<"$lines")" = 1 ] && return ;;
  esac
  echo "${*:3}: exit code $code, expected $1 and $2: $output"
  return 1
}

# The service that hands out codes, as the AWS SDK's model describes it, runs in the same container.
logs_in_to_aws() {
  local output
  output=$(run --network none -e AWS_ENDPOINT_URL_SSO_OIDC=http://127.0.0.1:8000 \
    -e AWS_SSO_START_URL=https://example.awsapps.com/start -e AWS_SSO_REGION=eu-north-1 -e AWS_SSO_ACCOUNT_ID=123456789012 \
    -e AWS_SSO_ROLE_NAME=developer "$image" bash -c "$(program aws-login.sh)" aws-login "$(program aws-sso.py)" 2>&1) ||
    { echo "$output"; return 1; }
  case $output in *ABCD-EFGH*smoke-token*) ;; *) echo "$output"; return 1 ;; esac
}

# asks_gitea COMMAND PATTERN PROGRAM OPTION…: what a command prints with that program in the place of gitea-mcp.
asks_gitea() {
  local id volume
  volume=gitea-$RANDOM
  secret_volume "$volume" token smoke-token
  id=$("$engine" create --label "$name" --platform "$platform" --network none -e GITEA_URL=https://git.example.org \
    -v "$name-$volume:/run/gitea:ro" -e GITEA_TOKEN_FILE=/run/gitea/token -e DEVBOX_MCP_CONTEXT7=off -e DEVBOX_MCP_MEMPALACE=off \
    "${@:4}" "$image" bash -c "$1")
  mkdir -p "$work/$id"
  cp "$suite/programs/$3" "$work/$id/gitea-mcp"
  # A file that is not executable is no program.
  case $3 in *.txt) chmod 644 "$work/$id/gitea-mcp" ;; *) chmod 755 "$work/$id/gitea-mcp" ;; esac
  "$engine" cp "$work/$id/gitea-mcp" "$id:/usr/local/bin/gitea-mcp" >/dev/null
  says "$2" "$engine" start --attach "$id"
  "$engine" rm -f "$id" >/dev/null
}

registers_gitea() {
  local doctor='devbox doctor --wait 10'
  asks_gitea "$doctor" '^ok   mcp gitea        -t stdio --host https://git.example.org smoke-token answers' gitea-mcp.py
  asks_gitea "$doctor" '^ok   mcp gitea        switched off' gitea-mcp.py -e DEVBOX_MCP_GITEA=off
  # With an exit code of its own, which the line after it tells.
  asks_gitea 'devbox doctor --wait 1 | grep "mcp gitea"; echo "exit ${PIPESTATUS[0]}"' '^exit 1$' gitea-mute.sh
  asks_gitea 'devbox doctor --wait 1' '^BAD  mcp gitea        `gitea-mcp -t stdio --host https://git.example.org` does not answer' gitea-mute.sh
  # Neither without the program nor without an account is it reported.
  asks_gitea "$doctor | grep 'mcp gitea' || echo no gitea" '^no gitea$' plain.txt
  says '^no gitea$' run --network none "$image" bash -c 'devbox config show | grep mcp.gitea || echo no gitea'
}
