# shellcheck shell=bash
# A registry with a newer release, served here.
python3 -c "$1" 2>/dev/null &
for _ in $(seq 50); do
  curl -sf http://127.0.0.1:8000/ >/dev/null && break
  sleep 0.2
done
DEVBOX_UPDATE_REPOSITORY=127.0.0.1:8000/some/devbox devbox update-check
[ $? = 10 ]
