# shellcheck shell=bash
# As root: an image without the embedding model gets a small one where the real one would be. The rest runs as the user.
model=/opt/mempalace-models/all-MiniLM-L6-v2/onnx
[ -e "$model/model.onnx" ] || python3 -I -c "$1" "$model" || exit
exec /usr/local/bin/devbox-entrypoint python3 -c "$2"
