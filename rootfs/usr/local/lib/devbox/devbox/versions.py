"""The components of the image: version, source, licence and digest of each, recorded by the build."""

import json
import os

from devbox import parts

FACTS = parts.FACTS
COLUMNS = ("name", "version", "source", "licence", "digest")
# Debian's packages that a person calls by name; `--json` has all of them.
TOOLS = (
    "awscli bat build-essential eza fd-find fzf gh git git-lfs golang-go htop jq less make neovim openssh-client"
    " python3 ripgrep rsync shellcheck tini tmux tree yq zoxide zstd"
).split()


def components():
    return parts.facts()


def main(as_json):
    if as_json:
        print(json.dumps([{name: part[name] for name in COLUMNS} for part in parts.everything()], indent=2))
        return 0
    for part in components() + [part for part in parts.debian() if part["name"] in TOOLS]:
        digest = (part["digest"] or "-")[:23]
        print(f"{part['name']:<18} {part['version']:<24} {part['licence'] or '-':<28.28} {digest:<24} {part['source']}")
    return 0


def installed(name):
    return os.path.exists(f"{FACTS}/{name}.json")
