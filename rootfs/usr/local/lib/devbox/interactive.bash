# Prompt, history and completion of an interactive bash.
# shellcheck shell=bash

HISTFILE="${HISTFILE:-$HOME/.local/state/bash/history}"
HISTSIZE=100000
HISTFILESIZE=100000
HISTCONTROL=ignoreboth
shopt -s histappend checkwinsize
# Written at each prompt, since a container may go at any time.
PROMPT_COMMAND='history -a 2>/dev/null'

PS1='\[\e[36m\]devbox\[\e[0m\] \[\e[1;34m\]\w\[\e[0m\] \$ '

# bash-completion takes longer to read than the rest of this shell's start, so it is read when Tab is first pressed. The
# variable marks its own file in /etc/profile.d as read.
# shellcheck disable=SC2034 # read by bash-completion
BASH_COMPLETION_VERSINFO=(later)
_devbox_completion() {
  complete -r -D
  unset BASH_COMPLETION_VERSINFO
  # shellcheck source=/dev/null
  . /usr/share/bash-completion/bash_completion
  # 124 makes bash look again, now with everything loaded.
  return 124
}
complete -D -F _devbox_completion
