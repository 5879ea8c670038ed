# shellcheck shell=bash
# What every start has to be able to do: write its home and data, run the agent, with tini as process 1.
touch ~/t ~/.config/opencode/t ~/.local/share/opencode/t && [ "$(cut -c 1-4 /proc/1/comm)" != pyth ] &&
  opencode --version && echo "works as $(id -u)"
