"""The program of the image: it starts, configures and checks the container.

Standard library only, and quick to import: all of it runs before the user's command does.
"""

import errno
import os
import sys

_full = set()


class Refusal(Exception):
    """The container cannot start like this; the message names the thing, the reason and the mend."""


def say(line):
    """One line to standard error, marked as coming from the image. Lines are gone if nobody can read them."""
    try:
        print(f"devbox: {line}", file=sys.stderr, flush=True)
    except OSError:
        pass


def reason(error):
    """The reason of an OSError, in the words of the system."""
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def write(path, text, mode=0o600):
    """Replaces a small file as a whole; leaves it alone if it says that already. False if that is not possible."""
    try:
        with open(path, encoding="utf-8") as file:
            if file.read() == text:
                return True
    except (OSError, UnicodeDecodeError):
        pass
    scratch = f"{path}.{os.getpid()}.new"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(scratch, "w", encoding="utf-8", opener=lambda p, f: os.open(p, f, mode)) as file:
            file.write(text)
        os.replace(scratch, path)
        return True
    except OSError as error:
        if error.errno != errno.ENOSPC or not _full:
            say(f"cannot write {path}: {reason(error)}")
        # A full disk is one piece of news, however much is to be written.
        _full.update([path] if error.errno == errno.ENOSPC else [])
        try:
            os.unlink(scratch)
        except OSError:
            pass
        return False
