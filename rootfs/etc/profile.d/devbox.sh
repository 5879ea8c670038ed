# Set up a shell. Read by login shells through /etc/profile and by others through /etc/bash.bashrc; nothing here starts
# a program, so that a shell is there at once.
# shellcheck shell=sh

# /etc/profile sets PATH anew; what the user installed comes first again.
case ":$PATH:" in
  *":$HOME/.pi/npm-global/bin:"*) ;;
  *) PATH="$HOME/.pi/npm-global/bin:$HOME/.local/bin:$PATH" ;;
esac

if [ -n "${BASH_VERSION-}" ] && [ -n "${PS1-}" ] && [ -z "${DEVBOX_SHELL_READY-}" ]; then
  DEVBOX_SHELL_READY=1
  # shellcheck source=/dev/null
  . /usr/local/lib/devbox/interactive.bash
fi
