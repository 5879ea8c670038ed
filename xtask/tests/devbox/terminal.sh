# shellcheck shell=bash
# The terminal interface in a terminal of its own: a prompt is typed, and its answer is shown.
screen() { tmux capture-pane -p -t agent; }
shows() {
  local end=$((SECONDS + $1))
  until screen | grep -qF -- "$2"; do
    [ "$SECONDS" -lt "$end" ] || { echo "no $2 on the screen:"; screen; return 1; }
    sleep 0.5
  done
}
tmux new-session -d -s agent -x 120 -y 40 opencode
shows 200 'Ask anything' || exit
tmux send-keys -t agent -l 'make the file'
shows 60 'make the file' || exit
tmux send-keys -t agent Enter
shows 200 'The file is made.' || exit
echo 'the answer is on the screen'
tmux kill-server
