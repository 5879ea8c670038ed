"""Whether a newer image is out: the content key of this image against that of its floating tag in the registry.

The greeting only reads what an earlier check has found.
"""

import json
import os
import subprocess
import time

from devbox import say, versions
from devbox.guard import key as order

# Written by the build of a variant.
IDENTITY = "/usr/share/devbox/image.json"
DAY = 86400


def identity():
    """Variant, content key, repository and floating tag of this image; nothing for an image that no release has built."""
    try:
        with open(IDENTITY, encoding="utf-8") as file:
            found = json.load(file)
        return found if all(isinstance(found[name], str) for name in ("variant", "key", "repository", "tag")) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def current():
    return next((fact["version"] for fact in versions.components() if fact["name"] == "opencode"), None)


def check(environ):
    """`devbox update-check`: 0 up to date, 10 a newer image is out, 3 cannot tell."""
    # Here, since greetings do without a network.
    from devbox import published

    me = identity()
    if me is None:
        say(f"cannot tell whether a newer image is out: this image has no {IDENTITY}, so no release has built it")
        return 3
    try:
        found = published.bounded(published.ask, me, environ.get("DEVBOX_UPDATE_REPOSITORY") or me["repository"])
    except published.Unknown as error:
        say(f"cannot tell whether a newer image is out: {error}")
        return 3
    mine = current()
    text = notice(me, mine, found)
    remember(environ, {"key": me["key"], "notice": text})
    print(text or up_to_date(me, mine, found))
    return 10 if text else 0


def notice(me, mine, found):
    """A line about a newer image; nothing if this one is the published one, or newer than that."""
    if found["key"] == me["key"]:
        return None
    name, version = found["release"] or me["tag"], found["version"]
    if mine and version and order(version) < order(mine):
        return None
    if version == mine:
        return f"a newer image is out: {name}, another build with the same opencode {mine}"
    with_version = "" if found["release"] else f" with opencode {version}"
    return f"a newer image is out: {name}{with_version}; this one has opencode {mine}"


def up_to_date(me, mine, found):
    name = found["release"] or me["tag"]
    if found["key"] == me["key"]:
        return f"up to date: this is {name}, with opencode {mine}"
    return f"up to date: this image has opencode {mine}, and {name} has {found['version']}"


def _cache(environ):
    return (environ.get("XDG_CACHE_HOME") or f"{environ['HOME']}/.cache") + "/devbox/update.json"


def remember(environ, found):
    path = _cache(environ)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(found, file)
    except OSError:
        # Only a cache.
        pass


def known(environ):
    """The line that the last check of this very image has found."""
    me = identity()
    try:
        with open(_cache(environ), encoding="utf-8") as file:
            found = json.load(file)
        return found["notice"] if me and found["key"] == me["key"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def refresh(environ):
    """Looks again in the background: once a day, and when the image is another one."""
    me = identity()
    if me is None:
        return
    try:
        with open(_cache(environ), encoding="utf-8") as file:
            same = json.load(file).get("key") == me["key"]
        if same and time.time() - os.stat(_cache(environ)).st_mtime < DAY:
            return
    except (OSError, ValueError, AttributeError):
        pass
    subprocess.Popen(
        ["/usr/local/bin/devbox", "update-check"],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
