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

# Programs that the user installs come after the image's own: /etc/profile has just reset PATH.
if [ -n "$_devbox_user" ]; then
  for _devbox_value in .local/bin .pi/npm-global/bin go/bin; do
    case ":$PATH:" in
      *":$HOME/$_devbox_value:"*) ;;
      *) PATH="$PATH:$HOME/$_devbox_value" ;;
    esac
  done
fi
case ${UMASK-} in [0-7][0-7][0-7] | 0[0-7][0-7][0-7]) umask "$UMASK" ;; esac
: "${GOMODCACHE:=$HOME/.cache/go/mod}" "${BUN_INSTALL_CACHE_DIR:=$HOME/.cache/bun}" "${MEMPALACE_CONFIG_DIR:=$HOME/.mempalace}"
export GOMODCACHE BUN_INSTALL_CACHE_DIR MEMPALACE_CONFIG_DIR

# A user whom passwd does not know: the start has written a passwd with a name for it.
if [ -n "${UID-}" ] && [ -z "${NSS_WRAPPER_PASSWD-}" ]; then
  for _devbox_value in /dev/shm/devbox-"$UID"-*/passwd; do
    if [ -O "$_devbox_value" ]; then
      export LD_PRELOAD=libnss_wrapper.so
      export NSS_WRAPPER_PASSWD="$_devbox_value" NSS_WRAPPER_GROUP="${_devbox_value%passwd}group"
    fi
  done
fi
# Certificates of the container's own, which the start has put together.
if [ -n "${UID-}" ]; then
  for _devbox_value in /dev/shm/devbox-"$UID"-*/ca.crt; do
    if [ -O "$_devbox_value" ]; then
      : "${SSL_CERT_FILE:=$_devbox_value}" "${CURL_CA_BUNDLE:=$_devbox_value}" "${GIT_SSL_CAINFO:=$_devbox_value}" \
        "${REQUESTS_CA_BUNDLE:=$_devbox_value}" "${PIP_CERT:=$_devbox_value}" "${AWS_CA_BUNDLE:=$_devbox_value}" \
        "${CARGO_HTTP_CAINFO:=$_devbox_value}" "${NODE_EXTRA_CA_CERTS:=${_devbox_value%.crt}-extra.crt}"
      export SSL_CERT_FILE CURL_CA_BUNDLE GIT_SSL_CAINFO REQUESTS_CA_BUNDLE PIP_CERT AWS_CA_BUNDLE CARGO_HTTP_CAINFO
      export NODE_EXTRA_CA_CERTS
      if [ -e "${_devbox_value%ca.crt}wgetrc" ]; then export SYSTEM_WGETRC="${SYSTEM_WGETRC:-${_devbox_value%ca.crt}wgetrc}"; fi
    fi
  done
fi
# A terminal that nothing here knows, as `docker exec -e TERM` may name one.
if [ -t 1 ] && [ "${TERM:-dumb}" != dumb ]; then
  _devbox_value=${TERM%"${TERM#?}"}/$TERM
  [ -e "/usr/share/terminfo/$_devbox_value" ] || [ -e "/lib/terminfo/$_devbox_value" ] || [ -e "/etc/terminfo/$_devbox_value" ] ||
    [ -e "$HOME/.terminfo/$_devbox_value" ] || export TERM=xterm-256color
fi
if [ -n "${PS1-}" ] && [ -t 1 ] && [ "${TERM:-dumb}" != dumb ]; then export COLORTERM="${COLORTERM-truecolor}"; fi
if [ -n "${PS1-}" ] && [ -n "$_devbox_user" ] && [ "$HOME" = /home/developer ] && ! [ -w "$HOME" ]; then
  echo "devbox: this is not the container's user, who has other ids: use docker exec -it NAME devbox shell" >&2
fi
unset _devbox_user _devbox_name _devbox_value

if [ -n "${BASH_VERSION-}" ] && [ -n "${PS1-}" ] && [ -z "${DEVBOX_SHELL_READY-}" ]; then
  DEVBOX_SHELL_READY=1
  # shellcheck source=/dev/null
  . /usr/local/lib/devbox/interactive.bash
fi
