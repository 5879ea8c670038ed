# shellcheck shell=bash
# Programs and libraries: what depends on the architecture, and is therefore tested under emulation as well.
# shellcheck shell=bash disable=SC2154

# The longest first, so that they do not run alone at the end.
check 'opencode serves its pinned version, works and stops' opencode any serves_and_stops "$(pinned opencode)"
check 'every ELF file and native module of the base loads' base any loads /

loads() { run --network none --entrypoint /usr/bin/python3 "$image" -I -c "$(program loads.py)" "$@"; }

# One server for all of it, since a start under emulation takes half a minute. The model's server is in the container.
serves_and_stops() {
  local id version=$1
  begin listening --network none -e PUID=4242 -e PGID=4343 -e "OPENCODE_CONFIG_CONTENT=$(program agent-config.json)" \
    -e DEVBOX_MCP_CONTEXT7=off -e DEVBOX_MCP_MEMPALACE=off --tmpfs /workspace:mode=777 "$image" opencode serve --port 4096
  says "\"healthy\":true,\"version\":\"${version//./\\.}\"" "$engine" exec "$id" curl -fsS -m 60 http://127.0.0.1:4096/global/health
  "$engine" exec --detach "$id" python3 -c "$(program model-server.py)" 8000
  says '^answer: The file is made\. $' "$engine" exec "$id" python3 -c "$(program agent-works.py)"
  says '^4242:4343$' "$engine" exec "$id" bash -c 'grep -q "made by the agent" /workspace/made.txt && stat -c %u:%g /workspace/made.txt'
  stops_by_sigterm "$id"
}

table "$suite/inside.tsv"
