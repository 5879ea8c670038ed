"""Where things lie: home, mounts, and folders that a container can write to whatever it was started with."""

import os
import re
import stat
import time

from devbox import network, reason, say, write

HOME = "/home/developer"
WORKSPACE = "/workspace"
# Below the home: programs that the user installs.
PROGRAMS = (".local/bin", ".pi/npm-global/bin", "go/bin")
# Tools whose cache would otherwise lie outside of ~/.cache.
CACHES = (("GOMODCACHE", ".cache/go/mod"), ("BUN_INSTALL_CACHE_DIR", ".cache/bun"))
# Made by root at each start, for containers in which all else is read-only or noexec: /dev is neither.
LAST_RESORT = "/dev/devbox"
# A library that Bun has unpacked is loaded at once; deleting its file after that disturbs nobody. Programs that are
# killed leave 14 MB each.
LEFTOVER = re.compile(r"\.[0-9a-f]{16}-[0-9a-f]{8}\.(so|node)")
LEFTOVER_SECONDS = 60
# In the user's folder in memory: the socket that leads to an agent which the user itself cannot ask.
AGENT = "ssh-agent"
NAMES = "libnss_wrapper.so"
LIBRARIES = "/usr/lib"
# File systems that nobody works on.
KERNEL = ("proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "securityfs", "debugfs", "tracefs", "bpf", "fusectl", "autofs")


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


def covered(path, mounts):
    """Whether the folder outlives the container: it, or a folder above it, is mounted and not in memory only."""
    while path != "/":
        if path in mounts:
            return mounts[path].kind != "tmpfs"
        path = os.path.dirname(path)
    return False


def workspaces(found):
    """Mounts that a person brought in to work on: not the engine's own, not the image's volumes."""
    return sorted(path for path, mount in found.items() if _is_workspace(path, mount))


# Below these the engine, or the image's own documentation, has people mount what is not work.
SYSTEM = ("/proc", "/sys", "/dev", "/run", "/var/run", "/mnt/ssh")
# Folders of the home that hold settings, so a mount there is none to work on; any other is.
SETTINGS = re.compile(re.escape(HOME) + r"(/\.[^/]+(/.*)?)?")


def _is_workspace(path, mount):
    if path == "/" or any(path == system or path.startswith(system + "/") for system in SYSTEM):
        return False
    if SETTINGS.fullmatch(path) or mount.kind in KERNEL or mount.kind == "tmpfs":
        return False
    return os.path.isdir(path) if os.path.lexists(path) else True


def remedy(folder):
    """How the user gets to write a folder of the host. In a user namespace the host's user may be root here, or have no
    id at all, which is shown as nobody's."""
    owner = os.stat(folder).st_uid
    if owner == 0 and root_is_a_user():
        return "set PUID=0 and PGID=0, since root in this container is your own user on the host; rootless Podman also has --userns keep-id"
    if owner in (0, 65534):
        return "give it another owner, or start with --userns keep-id (rootless Podman) or --userns host (Docker's userns-remap)"
    return "set PUID and PGID to its owner"


def root_is_a_user(text=None):
    """Whether root of this container is a user of the host without privileges: rootless Docker and Podman."""
    if text is None:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            text = file.read()
    rows = [[int(field) for field in line.split()] for line in text.splitlines()]
    return any(inside == 0 and outside != 0 for inside, outside, _ in rows)


def writable(folder):
    """Whether the folder is there, or can be made, and takes files."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def executable(folder):
    return not os.statvfs(folder).f_flag & os.ST_NOEXEC


def capabilities(status=None):
    """The effective capabilities of this process, as the bits that the kernel keeps."""
    if status is None:
        with open("/proc/self/status", encoding="utf-8") as file:
            status = file.read()
    return next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))


def container():
    """A name of this container that all its processes share and no other running one has: its process namespace."""
    return "".join(filter(str.isdigit, os.readlink("/proc/self/ns/pid")))


def runtime():
    """A private folder in memory that goes with the container: generated configuration, sockets, copies of secrets.

    /dev/shm is a tmpfs in every container, a read-only one too.
    """
    uid = os.geteuid()
    for parent in ("/dev/shm", "/tmp", f"{HOME}/.cache"):
        path = f"{parent}/devbox-{uid}-{container()}"
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
        except OSError:
            continue
        info = os.lstat(path)
        if stat.S_ISDIR(info.st_mode) and info.st_uid == uid and not info.st_mode & 0o077:
            return path
    return None


def prepare(environ):
    """Completes the environment of a user's process: home, folders for state and caches, a temp dir for Bun.

    A missing folder is reported once: not again by programs that a prepared process starts.
    """
    tell = (lambda line: None) if "XDG_RUNTIME_DIR" in environ else say
    # Podman takes the folder that a program starts in for the home of a user whom it adds to passwd.
    if environ.get("HOME", "/") in ("/", "/root", WORKSPACE) or not writable(environ["HOME"]):
        # Even where the image's home is read-only, the volumes in it may be mounted.
        environ["HOME"] = HOME
    user_path(environ)
    for name, folder in CACHES:
        environ.setdefault(name, f"{environ['HOME']}/{folder}")
    # By itself it would lie beside everybody's configuration, in no volume.
    environ.setdefault("MEMPALACE_CONFIG_DIR", f"{environ['HOME']}/.mempalace")
    environ.setdefault("USER", "developer")
    environ.setdefault("LOGNAME", environ["USER"])
    private = environ.get("XDG_RUNTIME_DIR") or runtime()
    if private:
        environ["XDG_RUNTIME_DIR"] = private
    if private and not os.access(environ.get("SSH_AUTH_SOCK", "/"), os.W_OK) and os.path.exists(f"{private}/{AGENT}"):
        environ["SSH_AUTH_SOCK"] = f"{private}/{AGENT}"
    names(environ)
    terminal(environ)
    network.prepare(environ)
    if private and "TMPDIR" not in environ and not os.access("/tmp", os.W_OK) and writable(f"{private}/tmp"):
        environ["TMPDIR"] = f"{private}/tmp"
    spare = []
    for name, folder in (
        ("XDG_CONFIG_HOME", ".config"),
        ("XDG_DATA_HOME", ".local/share"),
        ("XDG_STATE_HOME", ".local/state"),
        ("XDG_CACHE_HOME", ".cache"),
    ):
        # opencode writes one level below; that folder may be a volume although its parent is read-only.
        if name in environ or writable(f"{environ['HOME']}/{folder}/opencode"):
            continue
        if private and writable(f"{private}/{folder}/opencode"):
            environ[name] = f"{private}/{folder}"
            spare.append(f"~/{folder}")
    if spare:
        tell(
            f"user {os.getuid()} cannot write {', '.join(spare)}: what goes there is lost with this container;"
            f" mount volumes there, or one on {HOME}"
        )
    environ["BUN_TMPDIR"] = temp_dir(environ, tell) or environ.get("BUN_TMPDIR", "/tmp")


def user_path(environ):
    """Adds the user's own program folders. They are in no PATH that root has, and come after the image's own."""
    known = environ.get("PATH", os.defpath).split(":")
    own = [f"{environ['HOME']}/{folder}" for folder in PROGRAMS]
    if os.getuid() != 0 or capabilities() == 0:
        environ["PATH"] = ":".join(known + [folder for folder in own if folder not in known])


def names(environ):
    """A user whom passwd does not know, as a container's often is (--user 1234), has no name, and programs end for it.

    A library then answers in passwd's place. It counts for programs of the user alone: those with rights of their own,
    such as sudo, are started without it.
    """
    import glob
    import grp
    import pwd

    private, uid = environ.get("XDG_RUNTIME_DIR"), os.getuid()
    if not private or "NSS_WRAPPER_PASSWD" in environ:
        return
    try:
        pwd.getpwuid(uid)
        return
    except KeyError:
        pass
    if not glob.glob(f"{LIBRARIES}/*/{NAMES}"):
        return
    gid, home = os.getgid(), environ["HOME"]
    people = [f"developer:x:{uid}:{gid}::{home}:/bin/bash"]
    people += [":".join(map(str, entry)) for entry in pwd.getpwall() if entry.pw_name != "developer"]
    groups = [f"{entry.gr_name}:x:{entry.gr_gid}:{','.join(entry.gr_mem)}" for entry in grp.getgrall() if entry.gr_name != "developer"]
    if gid not in {entry.gr_gid for entry in grp.getgrall()}:
        groups.insert(0, f"developer:x:{gid}:")
    for file, lines in (("passwd", people), ("group", groups)):
        if not write(f"{private}/{file}", "\n".join(lines) + "\n"):
            return
    preload = environ.get("LD_PRELOAD")
    environ["LD_PRELOAD"] = f"{NAMES}:{preload}" if preload else NAMES
    environ.update(NSS_WRAPPER_PASSWD=f"{private}/passwd", NSS_WRAPPER_GROUP=f"{private}/group")


def terminal(environ):
    """Colours for a terminal, and a description that programs find: each terminal brings a name of its own."""
    name = environ.get("TERM")
    if not name or name == "dumb" or not os.isatty(1):
        return
    folders = ("/usr/share/terminfo", "/lib/terminfo", "/etc/terminfo", f"{environ['HOME']}/.terminfo")
    if not any(os.path.exists(f"{folder}/{name[0]}/{name}") for folder in folders):
        environ["TERM"] = "xterm-256color"
    if "NO_COLOR" not in environ:
        environ.setdefault("COLORTERM", "truecolor")


def temp_dir(environ, tell=say):
    """A folder that can be written and executed from: Bun unpacks libraries and loads them, and /tmp may be noexec."""
    cache = environ.get("XDG_CACHE_HOME") or f"{environ['HOME']}/.cache"
    for path in (environ.get("BUN_TMPDIR"), f"{cache}/devbox/tmp", "/tmp/devbox", "/var/tmp/devbox", LAST_RESORT):
        if path and writable(path) and executable(path):
            sweep(path)
            return path
    tell("no folder can both be written and executed from: opencode's terminal interface needs one, add --tmpfs /tmp:exec")
    return None


def sweep(folder, now=None):
    """Deletes the libraries that killed programs left behind."""
    limit = (now or time.time()) - LEFTOVER_SECONDS
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if LEFTOVER.fullmatch(entry.name) and entry.stat(follow_symlinks=False).st_mtime < limit:
                    os.unlink(entry.path)
    except OSError as error:
        say(f"cannot clean {folder}: {reason(error)}")
