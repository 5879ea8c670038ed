# shellcheck shell=bash disable=SC2154 # smoke-test.sh sets the options
# The runner of the smoke suite: which checks apply to an image, running them side by side, TAP and JUnit. A change here
# runs every check again.
# shellcheck shell=bash disable=SC2016,SC2154

# Sets what the checks may refer to: image, platform, pins (NAME=VERSION lines), variant, max_mb, config.
begin_run() {
  engine=${CONTAINER_ENGINE:-$(command -v docker >/dev/null && echo docker || echo podman)}
  case $("$engine" --version) in
    podman*) native=$("$engine" info --format '{{.Host.OS}}/{{.Host.Arch}}') ;;
    *) native=$("$engine" version --format '{{.Server.Os}}/{{.Server.Arch}}') ;;
  esac
  platform=${platform:-$native}
  emulated=
  [ "$native" = "$platform" ] || emulated=yes
  name="devbox-smoke-$$-$RANDOM" work=$(mktemp -d) count=0 pulled='' starts='' used=() queue=()
  tap=${tap:-$work/tap} jobs=${jobs:-$(($(getconf _NPROCESSORS_ONLN) + 1))}
  # Every container of this run carries its name as a label, every volume begins with it.
  trap '"$engine" ps -aq --filter "label=$name" | xargs -r "$engine" rm -f >/dev/null 2>&1 || true
    "$engine" volume ls -q --filter "name=$name" | xargs -r "$engine" volume rm >/dev/null 2>&1 || true
    rm -rf "$work"' EXIT
  : > "$tap"
  if [ -n "$chosen" ]; then cat -- "$chosen" > "$work/chosen"; fi
  : > "$work/table"
  components=$(read_components)
  free=$(while IFS=$'\t' read -r component _ _ paths; do
    if [ "$(subject_of "$component")" != base ]; then printf '%s ' "$paths"; fi
  done <<<"$components")
  read_image
  [ -n "$list" ] || say 'TAP version 13'
}

# Name, version command, where to run it and paths of each component that devbox.toml has a version command for,
# tab-separated.
read_components() {
  awk -F' = ' '
    function text(value) { gsub(/^["\047]|["\047]$/, "", value); return value }
    function words(value) { gsub(/[][",]/, "", value); return value }
    function flush() { if (name && command) print name "\t" command "\t" place "\t" paths; name = command = paths = "" }
    /^\[/ { flush(); here = $0 == "[[component]]"; place = "any" }
    !here { next }
    $1 == "name" { name = text($2) }
    $1 == "version_command" { command = text(substr($0, index($0, " = ") + 3)) }
    $1 == "version_in_health" && $2 == "true" { place = "native" }
    $1 == "paths" { paths = words($2) }
    END { flush() }' "$root/images/devbox.toml"
}

# The image's own description; it replaces options that were not given on the command line.
read_image() {
  local labels
  # A tag of several platforms: the engine shows that of its own.
  config=$([ -z "$emulated" ] && inspected) || config=$(crane config --platform "$platform" "$image" 2>/dev/null | jq -ce .config) ||
    { pull; config=$(inspected); }
  labels=$(jq -r '.Labels // {} | to_entries[] | "\(.key)=\(.value)"' <<<"$config")
  [ -n "$pins" ] || pins=$(sed -n 's/^opencode-devbox\.version\.//p' <<<"$labels")
  variant=$(sed -n 's/^opencode-devbox\.variant=//p' <<<"$labels")
  [ -n "$max_mb" ] || max_mb=$(awk -v name="name = \"$variant\"" '
    /^\[/ { here = $0 == "[[variant]]"; ours = 0 }
    here && $0 == name { ours = 1 }
    ours && /^budget_mb = / { print $3 }' "$root/images/devbox.toml")
}

# Podman has the health check beside the configuration.
inspected() {
  "$engine" image inspect "$image" 2>/dev/null |
    jq -ce '.[0] | .Config + {Healthcheck: (.Config.Healthcheck // .HealthCheck // .Healthcheck)}'
}

pull() {
  [ -n "$pulled" ] || "$engine" image inspect "$image" >/dev/null 2>&1 ||
    "$engine" pull --quiet --platform "$platform" "$image" >/dev/null
  pulled=yes
}

say() {
  printf '%s\n' "$1" >> "$tap"
  printf '%s\n' "$prefix${1//$'\n'/$'\n'$prefix}"
}

# pinned NAME: the version that a component has to have; fails for one that the image does not have.
pinned() { sed -n "s/^$1=//p" <<<"$pins" | grep .; }

# applies NAME SUBJECT WHERE: true if this run is to judge that check. SUBJECT is base,
# components joined by +, image for a variant as a whole, or bare for the base without any component.
applies() {
  local part
  if [ -n "$emulated" ] && [ "$3" != any ]; then return 1; fi
  case $2 in
    base) ;;
    bare) [ -z "$variant" ] || return 1 ;;
    image) [ -n "$variant" ] || return 1 ;;
    *) for part in ${2//+/ }; do pinned "$part" >/dev/null || { skipped "$1" "$part"; return 1; }; done ;;
  esac
  if [ -n "$chosen" ]; then grep -qxF -- "$1" "$work/chosen" || return 1; fi
  if [ -n "$list" ]; then printf '%s\n' "$1"; return 1; fi
  used+=("$1")
  count=$((count + 1))
}

# skipped NAME COMPONENT: a line for a part of the base that this image was built without.
skipped() {
  if [ -z "$list" ] && [ "$(subject_of "$2")" = base ]; then say "# $1: skipped: image without $2"; fi
}

# judge NUMBER NAME COMMAND…: a line of TAP that says whether the command passes, and how long it took; its output
# explains a failure. Known inside the container as well.
judge() {
  local number=$1 description=$2 output code verdict=ok began=${EPOCHREALTIME/[.,]/} took
  shift 2
  # Not `if output=…`: under a condition bash would go on after a failing line of a check, and only its last would count.
  set +e
  output=$(set -e; "$@" 2>&1)
  code=$?
  set -e
  if [ "$code" != 0 ]; then verdict='not ok'; fi
  took=$(((${EPOCHREALTIME/[.,]/} - began) / 100000))
  # TAP diagnostics are lines that start with a number sign.
  if [ "$verdict" = ok ]; then output=; else output=$'\n'$(tail -n 15 <<<"$output" | cut -c 1-240 | sed 's/^/# /'); fi
  printf '%s\n' "$verdict $number - $description # $((took / 10)).$((took % 10)) s$output"
}

# Waits until there is room for one more check: they also wait, so there are more than processors. Numbers come out of
# order, which TAP allows.
room() { while [ "$(jobs -rp | wc -l)" -ge "${jobs:-3}" ]; do wait -n || true; done; }

# check NAME SUBJECT WHERE COMMAND…: passes if the command does. WHERE is any, or native for a check that does not depend
# on the architecture. It runs once all topics are read.
check() {
  applies "$1" "$2" "$3" || return 0
  starts=yes
  enqueue "$@"
}

# static NAME SUBJECT WHERE COMMAND…: the same for a command that starts no container.
static() { if applies "$1" "$2" "$3"; then enqueue "$@"; fi; }

enqueue() { queue+=("$(printf '%q ' "$count" "$1" "${@:4}")"); }

report() {
  local text
  text=$(judge "$@")
  say "$text"
}

# table FILE: checks that are one line of shell each, in one container and one exec. Columns: subject, where, name, line.
# The subject `each` stands for every component; {component}, {version}, {command} and {paths} are filled in,
# and {free} with the paths of all components of variants.
table() {
  local subject where title line component command place paths of at
  while IFS=$'\t' read -r subject where title line; do
    case $subject in '' | '#'*) continue ;; esac
    while IFS=$'\t' read -r component command place paths; do
      of=$subject at=$where
      if [ "$subject" = each ]; then
        of=$(subject_of "$component")
        pinned "$component" >/dev/null || continue
        case $line in *'{paths}'*) [ -n "$paths" ] || continue ;; esac
      fi
      case $line in *'{command}'*) if [ "$place" = native ]; then at=native; fi ;; esac
      applies "${title//'{component}'/$component}" "$of" "$at" || continue
      printf '%s\t%s\t%s\n' "$count" "${title//'{component}'/$component}" \
        "$(fill "$line" "$component" "$command" "$paths")" >> "$work/table"
    done < <(if [ "$subject" = each ]; then printf '%s\n' "$components"; else echo; fi)
  done < "$1"
}

# fill LINE COMPONENT COMMAND PATHS: the line with its placeholders filled in.
fill() {
  local line=${1//'{component}'/$2}
  line=${line//'{version}'/$(pinned "$2" || true)}
  line=${line//'{command}'/$3}
  line=${line//'{free}'/$free}
  printf '%s' "${line//'{paths}'/$4}"
}

# A component that no variant names belongs to the base.
subject_of() {
  if grep -q "^components = \[.*\"$1\"" "$root/images/devbox.toml"; then echo "$1"; else echo base; fi
}

run_table() {
  local line
  "$engine" run --detach --name "$name" --label "$name" --platform "$platform" "$image" sleep 3600 >/dev/null
  "$engine" cp "$suite/programs" "$name:/tmp/programs" >/dev/null
  "$engine" exec --interactive --user developer --env HOME=/home/developer --env "jobs=$jobs" "$name" bash -lc \
    "$(cat "$suite/inside.bash"); $(declare -f judge room judge_lines); judge_lines" < "$work/table" |
    while IFS= read -r line; do say "$line"; done
}

# What runs inside the container: each line of standard input is a number, a name and a line of shell.
judge_lines() {
  local number title line
  while IFS=$'\t' read -r number title line; do
    room
    judge "$number" "$title" eval "$line" </dev/null &
  done
  wait
}

end_run() {
  local failed results command unknown=''
  if [ -n "$list" ]; then return; fi
  if [ -n "$starts" ] || [ -s "$work/table" ]; then pull; fi
  if [ -s "$work/table" ]; then run_table & fi
  for command in "${queue[@]}"; do
    room
    eval "report $command" &
  done
  wait
  if [ -n "$chosen" ]; then unknown=$(printf '%s\n' "${used[@]}" | grep -vxFf - "$work/chosen" || true); fi
  say "1..$count"
  [ -z "$junit" ] || write_junit > "$junit"
  failed=$(grep -c '^not ok ' "$tap" || true)
  results=$(grep -cE '^(not )?ok ' "$tap" || true)
  if [ -n "$unknown" ]; then
    echo "smoke-test.sh: no such check for $image on $platform: $unknown" >&2
    exit 2
  fi
  if [ "$failed" != 0 ] || [ "$results" != "$count" ]; then
    # A check without a result is one whose container went away.
    echo "# $image on $platform: $failed of $count failed, $((count - results)) gave no result:"
    sed -n 's/^not ok /#   /p' "$tap"
    exit 1
  fi
  echo "# $image on $platform: all $count passed"
}

# The TAP as JUnit's XML.
write_junit() {
  awk -v suite="$image on $platform" '
    function xml(text) { gsub(/&/, "\\&amp;", text); gsub(/</, "\\&lt;", text); gsub(/"/, "\\&quot;", text); return text }
    function close_case() { if (open) print (failed ? "</failure>" : "") "</testcase>"; open = failed = 0 }
    BEGIN { print "<?xml version=\"1.0\"?>\n<testsuite name=\"" xml(suite) "\">" }
    /^(not )?ok / {
      close_case()
      failed = /^not/; open = 1
      sub(/^(not )?ok [0-9]+ - /, "")
      seconds = name = $0
      sub(/.* # /, "", seconds); sub(/ s$/, "", seconds); sub(/ # [^#]*$/, "", name)
      printf "<testcase name=\"%s\" time=\"%s\">%s", xml(name), seconds, failed ? "<failure>" : ""
      next
    }
    /^# / && open { print xml(substr($0, 3)) }
    /^1\.\./ { close_case() }
    END { close_case(); print "</testsuite>" }' "$tap"
}
