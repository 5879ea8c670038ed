# shellcheck shell=bash
# Data, tools and volumes: skills, databases, git, SSH, completions, mempalace, the update check.
# shellcheck shell=bash disable=SC2016,SC2154

check 'newer data and a second container are reported' opencode native guards_data
check 'doctor works offline' base native says '^note dns ' run --network none "$image" devbox doctor --wait 1
check 'mempalace answers offline' base native says '^ok +mcp mempalace ' run --network none "$image" devbox doctor --wait 400
check 'mempalace survives its first use offline' base native says '"id": ?3.*tools' \
  run --network none "$image" bash -c "$(program mempalace-offline.sh)"
check 'mempalace stores and finds offline' base native says '^found the right memory$' run --network none --entrypoint /bin/bash \
  "$image" -c "$(program mempalace-stores.sh)" stores "$(program tiny-model.py)" "$(program mempalace-stores.py)"
check 'skills are deployed, and only theirs removed' base native deploys_skills
check 'git has identity and credentials' base native uses_git
check 'git works in mounted repositories of any owner' base native trusts_mounts
check 'SSH keys are tight' base native keeps_keys_tight
check 'any user has SSH' base native gives_ssh_to_all
check 'known hosts are kept in the state volume' base native keeps_known_hosts
check 'completions cost nothing at the start' base native completes_late
check 'all tools complete their words' base native completes 'aws bat curl devbox eza fd gcc gh git git-lfs gpg jq make
  node npm rg rsync shellcheck ssh tree unzip uv uvx wget xz'
check 'opencode completes its words' opencode native completes opencode
check 'bun completes its words' bun native completes bun
check 'pi completes its words' pi native completes pi
check 'update-check cannot tell offline' opencode native says '^devbox: cannot tell whether a newer image is out: ' \
  run --network none "$image" devbox update-check
check 'update-check finds a newer image' opencode native says '^a newer image is out: v99.0.0b' \
  run --network none "$image" bash -c "$(program update-check.sh)" update-check "$(program registry.py)"
check 'the launcher is printed, and a shell reads it' base native says '^label=opencode-devbox$' run "$image" \
  bash -c 'devbox launcher | sh -n && devbox launcher'
check 'nothing is baked under a volume path' base any silent run --entrypoint /bin/sh "$image" -c \
  'cd /home/developer && find .pi .config .local .cache .mempalace /workspace -type f 2>/dev/null'

guards_data() {
  local id
  # A database such as opencode's, written by a version to come, is reported before opencode opens it.
  says 'written by opencode 99.0.0, and this image has' run "$image" bash -c \
    'python3 -c "$1" && opencode debug paths' newer "$(program newer-database.py)"
  begin listening -v "$name-data:/home/developer/.local/share/opencode" "$image" opencode serve
  says 'another container uses /home/developer/.local/share/opencode as well' \
    run -v "$name-data:/home/developer/.local/share/opencode" "$image" opencode debug paths
  "$engine" rm -f "$id" >/dev/null
}

deploys_skills() {
  mkdir -p "$work/skills/one" "$work/skills/group/two"
  echo 1 > "$work/skills/one/SKILL.md"
  echo 2 > "$work/skills/group/two/SKILL.md"
  volume source "$work/skills"
  rm -r "$work/skills/one"
  volume source-later "$work/skills"
  local skills=/home/developer/.config/opencode/skills options
  options=(-v "$name-skills:/home/developer/.config/opencode" -e SKILLSET_PATH=/skills)
  says '(^| )one own (.* )?two ' run "${options[@]}" -v "$name-source:/skills:ro" "$image" bash -c "mkdir -p $skills/own; ls $skills | tr '\n' ' '"
  says '^0 0 1 1$' run "${options[@]}" -v "$name-source-later:/skills:ro" "$image" bash -c "cd $skills; for n in one nix own two; do find . -name \$n | wc -l; done | xargs"
}

uses_git() {
  says '^Ann <ann@example.org> commit$' run -e GIT_USER_NAME=Ann -e GIT_USER_EMAIL=ann@example.org "$image" bash -c '
    cd /tmp && git init -q r && cd r && git commit -q --allow-empty -m m && git log -1 --format="%an <%ae> commit"'
  says '^password=smoke$' run -e GH_TOKEN=smoke "$image" bash -c 'printf "protocol=https\nhost=github.com\n\n" | git credential fill'
}

# A repository of another owner, as a mounted one is; git by itself refuses it.
trusts_mounts() {
  run -v "$name-workspace:/repository" --entrypoint /usr/bin/git "$image" init -q /repository
  says '^usable$' run -e PUID=4242 -v "$name-workspace:/workspace" -v "$name-workspace:/elsewhere" "$image" bash -c \
    'git -C /workspace status && git -C /elsewhere status && echo usable'
}

keeps_keys_tight() {
  mkdir -p "$work/ssh"
  echo key > "$work/ssh/id_ed25519"
  chmod 644 "$work/ssh/id_ed25519"
  volume ssh "$work/ssh"
  says '^700 600$' run -v "$name-ssh:/mnt/ssh:ro" "$image" bash -c 'echo "$(stat -c %a ~/.ssh) $(stat -c %a ~/.ssh/id_ed25519)"'
}

# OpenSSH by itself refuses a user whom passwd does not know.
gives_ssh_to_all() {
  says '^made$' run --user 4242:4242 "$image" bash -c 'ssh-keygen -q -t ed25519 -N "" -f /tmp/key && ssh -V && echo made'
}

keeps_known_hosts() {
  local file='$(ssh -G host.example | sed -n "s/^userknownhostsfile \([^ ]*\).*/\1/p")' state
  state=(-v "$name-state:/home/developer/.local/state")
  says '^userknownhostsfile /home/developer/.local/state/ssh/known_hosts ' run "$image" ssh -G host
  # The line that ssh writes when a host is accepted.
  run "${state[@]}" "$image" bash -c "ssh-keygen -q -t ed25519 -N '' -f /tmp/k && echo host.example \$(cut -d' ' -f 1,2 /tmp/k.pub) >> $file"
  says 'host.example ssh-ed25519' run --read-only "${state[@]}" "$image" bash -c "ssh-keygen -F host.example -f $file"
  says '^forgotten$' run --read-only "$image" bash -c "ssh-keygen -F host.example -f $file || echo forgotten"
}

completes_late() {
  run "$image" bash -c 'bash -lic "declare -F _comp_load __load_completion" 2>/dev/null && exit 1
    bash -lic "_devbox_completion; _comp_load git && complete -p git" 2>/dev/null | grep -q git'
}

# Each program with words of its own to complete has a file that is read at the first Tab after its name.
completes() {
  run -e TOOLS="$1" "$image" bash -lic '_devbox_completion
    for tool in $TOOLS; do
      _comp_load $tool
      complete -p $tool >/dev/null 2>&1 || { echo "$tool completes nothing"; failed=1; }
    done
    [ -z "$failed" ]'
}
