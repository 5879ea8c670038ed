# shellcheck shell=bash
# Programs and libraries: what depends on the architecture, and is therefore tested under emulation as well.
# shellcheck shell=bash disable=SC2154

# The longest first, so that they do not run alone at the end.
check 'opencode serves its pinned version and stops' opencode any serves_and_stops "$(pinned opencode)"
check 'every ELF file and native module of the base loads' base any loads /

loads() { run --network none --entrypoint /usr/bin/python3 "$image" -I -c "$(program loads.py)" "$@"; }

serves_and_stops() {
  local id version=$1
  begin listening "$image" opencode serve --port 4096
  says "\"healthy\":true,\"version\":\"${version//./\\.}\"" "$engine" exec "$id" curl -fsS -m 60 http://127.0.0.1:4096/global/health
  stops_by_sigterm "$id"
}

table "$suite/inside.tsv"
