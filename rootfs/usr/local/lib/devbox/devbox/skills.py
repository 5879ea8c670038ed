"""Deploys skills to the agents' folders, those of a mounted repository and those that come with oh-my-opencode-slim, and
takes back what has vanished from there.

The list of what was deployed is kept in each target folder: only what is on it is ever removed or replaced.
"""

import json
import os
import shutil

from devbox import config, reason, say, write

LIST = ".devbox-skills.json"
LIST_OF_OMOS = ".devbox-omos-skills.json"


def targets(environ):
    home = environ["HOME"]
    config = environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
    found = [f"{config}/opencode/skills"]
    if os.path.isdir("/opt/pi"):
        found.append(f"{home}/.pi/agent/skills")
    return found


def deploy(settings, environ):
    source = settings.text("SKILLSET_PATH")
    if source and not os.path.isdir(source):
        say(f"SKILLSET_PATH={source}: no such folder; mount the repository there. The skills stay as they are")
    elif source:
        _deploy(source, targets(environ), LIST, say)
    bundled = f"{config.OMOS}/src/skills"
    if os.path.isdir(bundled) and settings.switch("DEVBOX_OMOS"):
        # Made for opencode. One of the same name that is there already is meant to be used instead.
        _deploy(bundled, targets(environ)[:1], LIST_OF_OMOS, lambda line: None)


def _deploy(source, folders, listing, tell):
    skills = find(source)
    for folder in folders:
        try:
            sync(skills, folder, listing, tell)
        except OSError as error:
            say(f"cannot deploy skills to {folder}: {reason(error)}")


def find(source):
    """Folders that hold a SKILL.md, by name; the first one wins where two have the same name. Links count as folders."""
    skills, seen = {}, set()
    for folder, folders, files in os.walk(source, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            # A link to a folder above it would never end.
            folders.clear()
            continue
        seen.add(real)
        for name in files:
            if not os.path.exists(f"{folder}/{name}"):
                say(f"{folder}/{name} is a link to nothing in this container: skipped")
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if "SKILL.md" in files:
            folders.clear()
            name = os.path.basename(folder)
            if name in skills and os.path.realpath(skills[name]) != real:
                say(f"skill {name} is in {folder} and in {skills[name]}: using the latter")
            skills.setdefault(name, folder)
    return skills


def sync(skills, target, listing=LIST, tell=say):
    known = deployed(f"{target}/{listing}")
    for name in sorted(known - skills.keys()):
        remove(f"{target}/{name}")
    new = {name for name in skills.keys() - known if not os.path.lexists(f"{target}/{name}")}
    for name in sorted(skills.keys() - known - new):
        tell(f"skill {name}: {target}/{name} is your own and stays")
    # Listed before they are there: what an interruption leaves half done is ours, and the next start goes on.
    known = (known & skills.keys()) | new
    if known or os.path.exists(f"{target}/{listing}"):
        write(f"{target}/{listing}", json.dumps(sorted(known)) + "\n", 0o644)
    for name in sorted(known):
        folder, path = skills[name], f"{target}/{name}"
        try:
            if os.path.isdir(path) and same(folder, path):
                continue
            os.makedirs(target, exist_ok=True)
            scratch = f"{target}/.{name}.new"
            remove(scratch)
            copy(folder, scratch)
            remove(path)
            os.rename(scratch, path)
        except OSError as error:
            # The others may still be deployed.
            say(f"cannot deploy skill {name} to {path}: {reason(error)}")


def copy(folder, scratch):
    try:
        shutil.copytree(folder, scratch, ignore=left_out, ignore_dangling_symlinks=True)
    except shutil.Error as error:
        # A part of a skill is of no use. The error holds a reason for each file; one says enough.
        remove(scratch)
        raise OSError(error.args[0][0][2]) from None


def left_out(folder, names):
    """git's own, and links to a folder that they lie in: a copy would never end."""
    real = os.path.realpath(folder) + "/"
    return [name for name in names if name == ".git" or real.startswith(os.path.realpath(f"{folder}/{name}") + "/")]


def deployed(listing):
    try:
        with open(listing, encoding="utf-8") as file:
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
        for folder, folders, files in os.walk(root, followlinks=True):
            skipped = left_out(folder, folders)
            folders[:] = [name for name in folders if name not in skipped]
            for name in files:
                if not os.path.exists(f"{folder}/{name}"):
                    continue
                info = os.stat(f"{folder}/{name}")
                found[os.path.relpath(f"{folder}/{name}", root)] = (info.st_size, info.st_mtime_ns)
        return found

    return facts(one) == facts(other)
