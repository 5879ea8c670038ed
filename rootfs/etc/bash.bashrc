# Read by interactive shells that are no login shells.
# shellcheck source=/dev/null
[ -z "${PS1-}" ] || . /etc/profile.d/devbox.sh
