"""Looks at opencode's data before opencode does: written by a newer version, or in use by another container."""

import fcntl
import os
import re
import sqlite3
import sys

from devbox import place, say

USE = ".devbox-in-use-"


def watch(environ, version):
    data = (environ.get("XDG_DATA_HOME") or f"{environ['HOME']}/.local/share") + "/opencode"
    if not os.path.isdir(data):
        return
    newest = newest_writer(f"{data}/opencode.db")
    notices = []
    if version and newest and key(newest) > key(version):
        notices.append(
            f"the data in {data} was written by opencode {newest}, and this image has {version}, which may not read it"
            " or may damage it: use the newer image, or copy the volume first"
        )
    if others(data):
        notices.append(
            f"another container uses {data} as well: sessions of both go into one database;"
            " give each container a volume of its own if they shall not meet"
        )
    for notice in notices:
        say(notice)
    # The terminal interface will cover these lines, so a person gets the time to read them.
    if notices and os.isatty(0) and os.isatty(2):
        try:
            print("devbox: Enter to go on, Ctrl-C to stop ", end="", file=sys.stderr, flush=True)
            sys.stdin.readline()
        except KeyboardInterrupt:
            sys.exit(130)


def newest_writer(path):
    """The newest version that sessions were written by; None if there is no database that says so."""
    if not os.path.exists(path):
        return None
    try:
        # Read-only: nothing is created or migrated by looking.
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1)
        try:
            versions = [row[0] for row in database.execute("select distinct version from session")]
        finally:
            database.close()
    except sqlite3.Error:
        return None
    return max((v for v in versions if re.match(r"\d+\.\d+", v or "")), key=key, default=None)


def key(version):
    """Orders versions by number; a pre-release comes before its release."""
    release, _, pre = version.partition("-")
    return [int(part) for part in re.findall(r"\d+", release)[:3]], not pre


def others(data):
    """Names of other containers that hold the data now. This one's own hold lasts as long as the process, over exec."""
    own = f"{USE}{place.container()}"
    found = []
    try:
        for name in os.listdir(data):
            if name.startswith(USE) and name != own and held(f"{data}/{name}"):
                found.append(name.removeprefix(USE))
        hold = os.open(f"{data}/{own}", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(hold, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.set_inheritable(hold, True)
    except OSError:
        # A read-only or full volume: opencode will say more about that than we can.
        pass
    return found


def held(path):
    """Whether a process holds the file; one that nobody holds was left by a container that is gone, and goes too."""
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
        return False
    except OSError:
        return True
    finally:
        os.close(file)
