# Set up a shell. Read by login shells through /etc/profile and by others through /etc/bash.bashrc; nothing here starts
# a program, so that a shell is ready at once.
# shellcheck shell=sh

# Root gets none of the user's folders. Root in name only, without any capability, is the user of its container.
_devbox_user=yes
if [ -O /etc/passwd ] && [ -r /proc/self/status ]; then
  while read -r _devbox_name _devbox_value; do
    case $_devbox_name=${_devbox_value#"${_devbox_value%%[!0]*}"} in CapEff:=?*) _devbox_user= ;; esac
  done < /proc/self/status
fi

# Programs that the user installs come after the image's own: /etc/profile has just set PATH anew.
if [ -n "$_devbox_user" ]; then
  for _devbox_value in .local/bin .pi/npm-global/bin go/bin; do
    case ":$PATH:" in
      *":$HOME/$_devbox_value:"*) ;;
      *) PATH="$PATH:$HOME/$_devbox_value" ;;
    esac
  done
fi
unset _devbox_user _devbox_name _devbox_value

if [ -n "${BASH_VERSION-}" ] && [ -n "${PS1-}" ] && [ -z "${DEVBOX_SHELL_READY-}" ]; then
  DEVBOX_SHELL_READY=1
  # shellcheck source=/dev/null
  . /usr/local/lib/devbox/interactive.bash
fi
