#!/usr/bin/env bash
# Makes an equivalent of the official debian:<suite>-slim image from Debian's archive, for several platforms, and
# pushes it. For places that do not reach Docker Hub. mmdebstrap checks the archive's signatures.
# Prints the digest reference of the index on standard output.
set -euo pipefail

usage() {
  echo "usage: bootstrap-debian.sh --suite NAME --date YYYYMMDD --repository REPOSITORY --platform OS/ARCH …" >&2
  exit 2
}

suite='' date='' repository='' platforms=()
while [ $# -gt 0 ]; do
  [ $# -ge 2 ] || usage
  case $1 in
    --suite) suite=$2 ;;
    --date) date=$2 ;;
    --repository) repository=$2 ;;
    --platform) platforms+=("$2") ;;
    *) usage ;;
  esac
  shift 2
done
if [ -z "$suite" ] || [ -z "$date" ] || [ -z "$repository" ] || [ ${#platforms[@]} -eq 0 ]; then usage; fi

work=$(mktemp -d)
# What still runs after a failure ends by itself, and uses the folder until then.
trap 'wait; rm -rf "$work"' EXIT

# The stamp of the image is the time of every file in it, so that the same packages give the same bytes.
SOURCE_DATE_EPOCH=$(date -u -d "$date" +%s)
export SOURCE_DATE_EPOCH

# Slim images leave out what nobody reads in a container; copyright files stay, as licences ask.
dpkg=(--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright')
for folder in groff info linda lintian locale man; do
  dpkg+=("--dpkgopt=path-exclude=/usr/share/$folder/*")
done

# An interrupted build starts over: no package has to reach the disk before the next. Docker's images do the same.
dpkg+=(--dpkgopt=force-unsafe-io)

# Docker's habits for apt: no cache of packages or indexes is left in a layer, no translations are fetched.
apt=(
  --aptopt='Acquire::Languages "none"'
  --aptopt='Acquire::GzipIndexes "true"'
  --aptopt='Apt::AutoRemove::SuggestsImportant "false"'
  --aptopt='Dir::Cache::pkgcache ""'
  --aptopt='Dir::Cache::srcpkgcache ""'
)

# mmdebstrap gives the hook the folder of the new system as $1.
# shellcheck disable=SC2016
unwanted='rm -f "$1/etc/resolv.conf" "$1/etc/hostname"'

# Programs of this machine's system do most of the work for other platforms, as in the build of the base. Packages of all
# platforms are fetched and extracted meanwhile.
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")/../images" && pwd)/native-tools native=$work/native
export tools native
# shellcheck disable=SC2016 # for the hooks
on='until [ -e "$native" ]; do kill -0 "$first" 2>/dev/null || [ -e "$native" ] || exit 1; sleep 0.2; done
cp -a "$native" "$1/native" && cp "$tools" "$1/native-tools" && chroot "$1" /native-tools on /native'
# shellcheck disable=SC2016
off='chroot "$1" /native-tools off /native && rm -r "$1/native" "$1/native-tools"'

# Makes the system of one architecture; further arguments are mmdebstrap's.
bootstrap() {
  local arch=$1
  shift
  echo "bootstrapping $suite for $arch" >&2
  mmdebstrap --variant=minbase --architectures="$arch" "${dpkg[@]}" "${apt[@]}" "$@" \
    --customize-hook="$unwanted" "$suite" "$work/$arch.tar" >&2
}

push() {
  local arch=$1
  gzip -1 -n -k "$work/$arch.tar"
  # A layer on nothing, then the platform in its configuration: an image as any other.
  crane append --oci-empty-base --new_layer "$work/$arch.tar.gz" --new_tag "$repository:$suite-$date-$arch" >&2
  crane mutate --set-platform "linux/$arch" --cmd bash --tag "$repository:$suite-$date-$arch" \
    "$repository:$suite-$date-$arch" >&2
}

host=$(dpkg --print-architecture)
{
  bootstrap "$host"
  mkdir "$work/unpacked"
  tar -C "$work/unpacked" -xf "$work/$host.tar"
  mv "$work/unpacked" "$native"
} &
first=$!
export first
others=()
for platform in "${platforms[@]}"; do
  arch=${platform#linux/}
  if [ "$arch" = "$host" ]; then continue; fi
  { bootstrap "$arch" --extract-hook="$on" --customize-hook="$off" && push "$arch"; } &
  others+=($!)
done
wait "$first"
case " ${platforms[*]} " in *" linux/$host "*) push "$host" ;; esac
for other in "${others[@]}"; do wait "$other"; done

manifests=()
for platform in "${platforms[@]}"; do
  manifests+=(--manifest "$repository:$suite-$date-${platform#linux/}")
done
crane index append "${manifests[@]}" --tag "$repository:$suite-$date-slim" >&2
crane tag "$repository:$suite-$date-slim" "$suite-slim" >&2
echo "$repository@$(crane digest "$repository:$suite-slim")"
