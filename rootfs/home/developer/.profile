# Yours. /etc/profile.d/devbox.sh has set PATH: what you install in ~/.local/bin comes after the image's own programs.
# shellcheck shell=sh source=/dev/null
if [ -n "${BASH_VERSION-}" ] && [ -f ~/.bashrc ]; then . ~/.bashrc; fi
