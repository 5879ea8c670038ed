"""Deploys a mounted repository of skills to the agents' folders, and takes back what vanished from it.

The list of what was deployed is kept in each target folder: only what is on it is ever removed or replaced.
"""

import json
import os
import shutil

from devbox import reason, say, write

LIST = ".devbox-skills.json"


def targets(environ):
    home = environ["HOME"]
    config = environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
    found = [f"{config}/opencode/skills"]
    if os.path.isdir("/opt/pi"):
        found.append(f"{home}/.pi/agent/skills")
    return found


def deploy(settings, environ):
    source = settings.text("SKILLSET_PATH")
    if not source:
        return
    if not os.path.isdir(source):
        say(f"SKILLSET_PATH={source}: no such folder; mount the repository there. The skills stay as they are")
        return
    skills = find(source)
    for target in targets(environ):
        try:
            sync(skills, target)
        except OSError as error:
            say(f"cannot deploy skills to {target}: {reason(error)}")


def find(source):
    """Folders that hold a SKILL.md, by name; the first one wins where two have the same name."""
    skills = {}
    for folder, folders, files in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if "SKILL.md" in files:
            folders.clear()
            name = os.path.basename(folder)
            if name in skills:
                say(f"skill {name} is in {folder} and in {skills[name]}: using the latter")
            skills.setdefault(name, folder)
    return skills


def sync(skills, target):
    known = deployed(target)
    for name in sorted(known - skills.keys()):
        remove(f"{target}/{name}")
    new = {name for name in skills.keys() - known if not os.path.lexists(f"{target}/{name}")}
    for name in sorted(skills.keys() - known - new):
        say(f"skill {name}: {target}/{name} is your own and stays")
    # Listed before they are there: what an interruption leaves half done is ours, and the next start goes on.
    known = (known & skills.keys()) | new
    if known or os.path.exists(f"{target}/{LIST}"):
        write(f"{target}/{LIST}", json.dumps(sorted(known)) + "\n", 0o644)
    for name in sorted(known):
        folder, path = skills[name], f"{target}/{name}"
        if os.path.isdir(path) and same(folder, path):
            continue
        os.makedirs(target, exist_ok=True)
        scratch = f"{target}/.{name}.new"
        remove(scratch)
        shutil.copytree(folder, scratch, ignore=shutil.ignore_patterns(".git"))
        remove(path)
        os.rename(scratch, path)


def deployed(target):
    try:
        with open(f"{target}/{LIST}", encoding="utf-8") as file:
            return {name for name in json.load(file) if isinstance(name, str) and name and "/" not in name and name[0] != "."}
    except (OSError, ValueError, TypeError):
        return set()


def remove(path):
    if os.path.islink(path) or os.path.isfile(path):
        os.unlink(path)
    elif os.path.isdir(path):
        shutil.rmtree(path)


def same(one, other):
    """Whether both trees hold the same files, by name, size and time: copies keep their times."""

    def facts(root):
        found = {}
        for folder, folders, files in os.walk(root):
            folders[:] = [name for name in folders if name != ".git"]
            for name in files:
                info = os.stat(f"{folder}/{name}")
                found[os.path.relpath(f"{folder}/{name}", root)] = (info.st_size, info.st_mtime_ns)
        return found

    return facts(one) == facts(other)
