"""Whether a newer image is out. The greeting only reads what an earlier look has found."""

import json
import os
import re
import subprocess
import time

from devbox import say, versions
from devbox.guard import key

TAGS = "https://hub.docker.com/v2/repositories/joakimp/opencode-devbox/tags?page_size=100"
DAY = 86400


def current():
    return next((fact["version"] for fact in versions.components() if fact["name"] == "opencode"), None)


def newest(tags):
    """The newest release among tags: v1.2.3 for the first build of a version, v1.2.3b for the second, and so on."""
    found = [match for match in (re.fullmatch(r"v(\d+\.\d+\.\d+)([b-z]?)", tag) for tag in tags) if match]
    best = max(found, key=lambda match: (key(match[1]), match[2]), default=None)
    return (best[0], best[1]) if best else None


def ask():
    import urllib.request

    url = os.environ.get("DEVBOX_TEST_TAGS", TAGS)
    with urllib.request.urlopen(url, timeout=10) as answer:
        return newest(entry["name"] for entry in json.load(answer)["results"])


def check(environ):
    """`devbox update-check`: 0 up to date, 10 a newer image is out, 3 cannot tell."""
    mine = current()
    try:
        found = ask()
    except (OSError, ValueError, KeyError, TypeError) as error:
        say(f"cannot tell whether a newer image is out: {error}")
        return 3
    if mine is None or found is None:
        say("cannot tell whether a newer image is out: " + ("no release is published" if mine else "no opencode in this image"))
        return 3
    text = notice(mine, found)
    remember(environ, found)
    print(text or f"up to date: opencode {mine}")
    return 10 if text else 0


def notice(mine, found):
    tag, version = found
    return f"a newer image is out: {tag}; this one has opencode {mine}" if key(version) > key(mine) else None


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
    try:
        with open(_cache(environ), encoding="utf-8") as file:
            tag, version = json.load(file)
        return notice(current(), (tag, version)) if current() else None
    except (OSError, ValueError, TypeError):
        return None


def refresh(environ):
    """Looks again in the background, once a day."""
    try:
        if time.time() - os.stat(_cache(environ)).st_mtime < DAY:
            return
    except OSError:
        pass
    subprocess.Popen(
        ["/usr/local/bin/devbox", "update-check"],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
