#!/usr/bin/env bash
# A clone as the real action makes it: one ref, `fetch-depth` commits (0 for all branches and tags), and the token kept
# in the clone's settings unless persist-credentials is false. ACT_ORIGIN names the repository.
set -euo pipefail
unset GIT_DIR
cd "$GITHUB_WORKSPACE"
find . -mindepth 1 -delete
git init --quiet
git remote add origin "file://$ACT_ORIGIN"
wanted=$ORIGIN_REF
case $wanted in
  refs/*) ;;
  *) if git ls-remote --exit-code origin "refs/heads/$wanted" >/dev/null; then
       wanted=refs/heads/$wanted
     elif git ls-remote --exit-code origin "refs/tags/$wanted" >/dev/null; then
       wanted=refs/tags/$wanted
     fi ;;
esac
depth=("--depth=$DEPTH" --no-tags)
refs=("+$wanted:${wanted/refs\/heads/refs\/remotes\/origin}")
if [ "$DEPTH" = 0 ]; then
  depth=(--tags)
  refs=('+refs/heads/*:refs/remotes/origin/*')
fi
git fetch --quiet "${depth[@]}" origin "${refs[@]}"
case $wanted in
  refs/heads/*) git checkout --quiet -B "${wanted#refs/heads/}" "origin/${wanted#refs/heads/}" ;;
  refs/*) git checkout --quiet --detach "$wanted" ;;
  *) git checkout --quiet --detach "${ORIGIN_SHA:-FETCH_HEAD}" ;;
esac
if [ "$PERSIST" = true ]; then
  basic=$(printf 'x-access-token:%s' "$ORIGIN_TOKEN" | base64 -w0)
  git config --local "http.$GITHUB_SERVER_URL/.extraheader" "AUTHORIZATION: basic $basic"
fi
{ echo "ref=$ORIGIN_REF"; echo "commit=$(git rev-parse HEAD)"; } >>"$GITHUB_OUTPUT"
