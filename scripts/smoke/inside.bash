# Helpers of the table's lines, inside the container.
# shellcheck shell=bash disable=SC2016,SC2154

# answers VERSION COMMAND…: passes if the command prints that version.
answers() {
  local version=$1 found
  shift
  found=$("$@")
  grep -qE "(^|[^0-9.])${version//./\\.}([^0-9.]|$)" <<<"$found" || { echo "expected $version, got: $found"; return 1; }
}

# listed NAME VERSION: `devbox versions` has the component with its source, licence and digest.
listed() {
  devbox versions --json | jq -e --arg name "$1" --arg version "$2" 'any(.[]; .name == $name and .version == $version and .source and .licence and
    (.digest | startswith("sha256:")))' >/dev/null || { echo "$1 $2 is not listed"; return 1; }
}

# licensed COMPONENT: every package that came with it has a text of its licence in the image.
licensed() {
  local without
  without=$(devbox licences --json | jq -r --arg of "$1" 'map(select(.of == $of)) | if length == 0 then "nothing came with it" else
    .[] | select(.licence == null or .texts == []) | .name end') || return 1
  [ -z "$without" ] || { echo "$1: no text of a licence: $without"; return 1; }
}

# free PATH…: nothing of the base is where a component has its files.
free() {
  local path
  for path; do
    if [ -e "$path" ] || [ -L "$path" ]; then echo "$path is the base's"; return 1; fi
  done
}

# Every certificate of the image has to be Debian's own: one that only the host's bundle has came in by the build.
no_host_certificates() {
  local bodies='/^-----BEGIN/{body="";next} /^-----END/{print body;next} {body=body $0}' foreign
  foreign=$(comm -13 <(awk "$bodies" /usr/share/ca-certificates/mozilla/*.crt | sort) \
    <(awk "$bodies" /etc/ssl/certs/ca-certificates.crt | sort))
  [ -z "$foreign" ] || { echo "foreign certificates: $foreign"; return 1; }
  [ ! -e /run/secrets/ca ] && [ -z "$(ls -A /usr/local/share/ca-certificates)" ]
}

stores_pointers() {
  cd "$(mktemp -d)" || return
  git init -q
  git lfs track '*.bin'
  echo x > a.bin
  git add .
  git cat-file -p :a.bin | grep -q git-lfs
}
