"""The components of the image: version, source, licence and digest of each, recorded by the build."""

import glob
import json
import os
import re

FACTS = "/usr/share/devbox/components"
PACKAGES = "/usr/share/devbox/debian-packages.tsv"
# Debian's packages that a person calls by name; the whole list is in PACKAGES.
TOOLS = (
    "awscli bat build-essential eza fd-find fzf gh git git-lfs golang-go htop jq less make neovim openssh-client"
    " python3 ripgrep rsync shellcheck tini tmux tree yq zoxide zstd"
).split()


def components(facts=FACTS):
    found = []
    for path in sorted(glob.glob(f"{facts}/*.json")):
        with open(path, encoding="utf-8") as file:
            found.append(json.load(file))
    return found


def packages(path=PACKAGES):
    found = []
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                name, version, architecture, *rest = line.rstrip("\n").split("\t")
                if name in TOOLS:
                    source = f"debian:{name}={version}:{architecture}"
                    digest = rest[0] if rest and rest[0] else None
                    fact = {"name": name, "version": version, "source": source, "licence": licence(name), "digest": digest}
                    found.append(fact)
    except OSError:
        pass
    return found


def licence(package):
    """The licences that a Debian copyright file names, if it is in the machine-readable format."""
    try:
        with open(f"/usr/share/doc/{package}/copyright", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return None
    names = re.findall(r"^License: *(\S[^\n]*)", text, re.MULTILINE)
    return names[0].strip() if names else f"see /usr/share/doc/{package}/copyright"


def main(as_json):
    found = components() + packages()
    if as_json:
        print(json.dumps(found, indent=2))
        return 0
    for fact in found:
        digest = (fact["digest"] or "-")[:23]
        print(f"{fact['name']:<18} {fact['version']:<24} {fact['licence'] or '-':<28.28} {digest:<24} {fact['source']}")
    return 0


def installed(name):
    return os.path.exists(f"{FACTS}/{name}.json")
