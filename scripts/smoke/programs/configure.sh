# shellcheck shell=bash
# Expects a model and a switched-off server from the environment, and another model in the user's file.
set -e
mine=~/.config/opencode/opencode.json
cat > "$mine" <<'JSON'
{ // mine
 "$schema": "https://opencode.ai/config.json", "small_model": "c/d", "mcp": {"mempalace": {"type": "local", "command": ["x"]},}}
JSON
before=$(sha256sum "$mine")
devbox config show > /tmp/show
grep -q '^model = "a/b"  # the environment' /tmp/show
grep -q '^small_model = "c/d"  # /home/developer/.config/opencode/opencode.json' /tmp/show
grep -q '^mcp.context7.enabled = false  # the environment' /tmp/show
grep -q '^mcp.mempalace.command = \["x"\]  # /home' /tmp/show
grep -q '^autoupdate = false  # /etc/opencode' /tmp/show
opencode debug config > /tmp/debug
jq '{model, small_model, mcp, autoupdate}' /tmp/debug
jq -e '.model == "a/b" and .small_model == "c/d" and .mcp.context7.enabled == false and .autoupdate == false and
  .mcp.mempalace.command == ["x"]' /tmp/debug >/dev/null
printf '%s\n' "$before" | sha256sum --check --quiet
