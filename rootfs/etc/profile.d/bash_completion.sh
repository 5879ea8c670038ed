# Takes the place of the package's file, which reads all of bash-completion when a shell starts: devbox.sh does that when
# Tab is first pressed.
# shellcheck shell=sh
