"""Where things lie: home, mounts, and folders that a container can write to whatever it was started with."""

import os
import stat
import time

from devbox import reason, say

HOME = "/home/developer"
WORKSPACE = "/workspace"
# A leftover of Bun is mapped into memory as soon as it is written; deleting it later disturbs nobody.
LEFTOVER_SECONDS = 3600


class Mount:
    """A line of /proc/self/mountinfo (proc_pid_mountinfo(5))."""

    def __init__(self, line):
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        self.root = _unescape(fields[3])
        self.path = _unescape(fields[4])
        self.options = fields[5].split(",")
        self.kind = right.split(" ")[0]

    @property
    def named(self):
        """Whether it is a volume that an engine made: Docker and Podman both keep it under volumes/NAME/_data."""
        return "/volumes/" in self.root and self.root.endswith("/_data")

    @property
    def private(self):
        """Whether its contents belong to the container, so that it may change their owner."""
        return self.named or self.kind == "tmpfs"


def _unescape(text):
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def mounts(text=None):
    """Mount points by path; the last mount on a path is the one that is seen."""
    if text is None:
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            text = file.read()
    return {mount.path: mount for mount in map(Mount, text.splitlines())}


def workspaces(found):
    """Mounts that a person brought in to work on: not the engine's own, not the image's volumes."""
    system = ("/proc", "/sys", "/dev", "/etc", "/run", "/usr", "/var", "/tmp", "/opt", "/home", "/mnt/ssh")
    return sorted(p for p in found if p != "/" and not any(p == s or p.startswith(s + "/") for s in system))


def writable(folder):
    """Whether the folder is there, or can be made, and takes files."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def executable(folder):
    return not os.statvfs(folder).f_flag & os.ST_NOEXEC


def container():
    """A name of this container that all its processes share and no other running one has: its process namespace."""
    return "".join(filter(str.isdigit, os.readlink("/proc/self/ns/pid")))


def runtime(uid=None, gid=None):
    """A private folder in memory that goes with the container: generated configuration, sockets, copies of secrets.

    /dev/shm is a tmpfs in every container, a read-only one too. Root makes it for the user that it will become.
    """
    uid = os.getuid() if uid is None else uid
    for parent in ("/dev/shm", "/tmp", f"{HOME}/.cache"):
        path = f"{parent}/devbox-{uid}-{container()}"
        try:
            os.mkdir(path, 0o700)
            if gid is not None:
                os.chown(path, uid, gid)
        except FileExistsError:
            pass
        except OSError:
            continue
        info = os.lstat(path)
        if stat.S_ISDIR(info.st_mode) and info.st_uid == uid and not info.st_mode & 0o077:
            return path
    return None


def prepare(environ):
    """Completes the environment of a user's process: home, folders for state and caches, a temp dir for Bun."""
    uid = os.getuid()
    if environ.get("HOME", "/") in ("/", "/root") or not writable(environ["HOME"]):
        # Even where the image's home is read-only, the volumes in it may be mounted.
        environ["HOME"] = HOME
    environ.setdefault("USER", "developer")
    environ.setdefault("LOGNAME", environ["USER"])
    private = runtime()
    if private:
        environ.setdefault("XDG_RUNTIME_DIR", private)
    home = environ["HOME"]
    spare = []
    for name, folder in (
        ("XDG_CONFIG_HOME", ".config"),
        ("XDG_DATA_HOME", ".local/share"),
        ("XDG_STATE_HOME", ".local/state"),
        ("XDG_CACHE_HOME", ".cache"),
    ):
        # What opencode writes is one level below; that folder may be a volume although its parent is read-only.
        mine = f"{home}/{folder}"
        if name in environ or writable(f"{mine}/opencode"):
            continue
        if private and writable(f"{private}/{folder}/opencode"):
            environ[name] = f"{private}/{folder}"
            spare.append(f"~/{folder}")
    environ["BUN_TMPDIR"] = temp_dir(environ) or environ.get("BUN_TMPDIR", "/tmp")
    if spare and not environ.get("DEVBOX_TEST_QUIET"):
        whom = "it" if len(spare) == 1 else "them"
        say(
            f"user {uid} cannot write {', '.join(spare)}: what goes there is lost with this container;"
            f" mount a volume on {whom}, or one on {HOME}"
        )
    return environ


def temp_dir(environ):
    """A folder that can be written and executed from: Bun unpacks libraries and loads them, and /tmp may be noexec."""
    for path in (environ.get("BUN_TMPDIR"), f"{environ['HOME']}/.cache/devbox/tmp", "/tmp/devbox", "/var/tmp/devbox"):
        if path and writable(path) and executable(path):
            sweep(path)
            return path
    say("no folder can both be written and executed from: opencode's terminal interface needs one, add --tmpfs /tmp:exec")
    return None


def sweep(folder, now=None):
    """Deletes what killed programs left behind. Only files, only old ones, only at the top."""
    limit = (now or time.time()) - LEFTOVER_SECONDS
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mtime < limit:
                    os.unlink(entry.path)
    except OSError as error:
        say(f"cannot clean {folder}: {reason(error)}")
