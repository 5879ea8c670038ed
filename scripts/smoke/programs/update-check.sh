# shellcheck shell=bash
# A list of tags with a newer release, served here.
mkdir /tmp/hub
echo '{"results": [{"name": "v99.0.0b"}, {"name": "latest"}]}' > /tmp/hub/tags
cd /tmp/hub || exit 1
python3 -m http.server --bind 127.0.0.1 8000 2>/dev/null &
for _ in $(seq 50); do
  curl -sf http://127.0.0.1:8000/tags >/dev/null && break
  sleep 0.2
done
DEVBOX_TEST_TAGS=http://127.0.0.1:8000/tags devbox update-check
