# shellcheck shell=bash
# The image as a whole: configuration, labels, identity and size.
# shellcheck shell=bash disable=SC2016,SC2154

static 'health check and dev container metadata are there' image any has_metadata
static 'the labels name the pinned versions' image any names_versions
static 'the compressed size is within its budget' image any is_within_budget
check 'the image knows its own content key' image native knows_its_key

has_metadata() {
  jq -e '.Healthcheck.Test == ["CMD", "/usr/local/bin/devbox", "health"] and .Entrypoint == ["/usr/local/bin/devbox-entrypoint"] and
    (.Labels["devcontainer.metadata"] | fromjson | .[0].remoteUser == "developer")' <<<"$config" >/dev/null ||
    { echo "$config"; return 1; }
}

names_versions() {
  local pin
  while IFS= read -r pin; do
    [ -z "$pin" ] || jq -e --arg name "opencode-devbox.version.${pin%%=*}" --arg version "${pin#*=}" '.Labels[$name] == $version' \
      <<<"$config" >/dev/null || { echo "no label for $pin"; return 1; }
  done <<<"$pins"
}

# What labels tell to the registry's side, a file tells to the container.
knows_its_key() {
  local key
  key=$(jq -re '.Labels["opencode-devbox.key"]' <<<"$config")
  says "^ok +image +$variant with content key $key, " run --network none "$image" devbox doctor --wait 1
}

# An image that is in no registry has no compressed size.
is_within_budget() {
  local bytes
  bytes=$(crane manifest --platform "$platform" "$image" 2>/dev/null | jq '[.layers[].size] | add') || return 0
  [ "$bytes" -le $((max_mb * 1000000)) ] || { echo "$bytes bytes, budget $max_mb MB"; return 1; }
}
