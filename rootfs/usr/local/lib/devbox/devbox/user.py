"""The part that needs root: adopt the ids of the host's user, correct the owners of volumes, give up all privileges.

The user may have left anything in a volume, links to the system's own files included. So root opens no file that the
user can put in its way: it changes owners through folders that it has opened without following links, and whatever is
to be written to the user's folders is written as the user.
"""

import contextlib
import errno
import os
import stat

from devbox import Refusal, place, reason, say
from devbox.place import HOME, capabilities, mounts, runtime

MARKER = ".devbox-owner"
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def ids(settings):
    return settings.id("PUID"), settings.id("PGID")


def with_ids(passwd, group, uid, gid):
    """The texts of passwd and group with developer's new ids.

    Developer comes first, so that a lookup by id finds it even where the id belongs to somebody else. usermod is not
    used, since it walks over the whole home, volumes included.
    """
    own, others = [], []
    for line in passwd.splitlines():
        fields = line.split(":")
        if fields[0] == "developer":
            fields[2:4] = [str(uid), str(gid)]
        (own if fields[0] == "developer" else others).append(":".join(fields))
    mine, rest = [], []
    for line in group.splitlines():
        fields = line.split(":")
        if fields[0] == "developer":
            fields[2] = str(gid)
        (mine if fields[0] == "developer" else rest).append(":".join(fields))
    return "\n".join(own + others) + "\n", "\n".join(mine + rest) + "\n"


def adopt(uid, gid, passwd="/etc/passwd", group="/etc/group"):
    """Gives developer the ids; a read-only system keeps the old ones, which only names on screen suffer from."""
    texts = []
    for path in (passwd, group):
        with open(path, encoding="utf-8") as file:
            texts.append(file.read())
    new = with_ids(*texts, uid, gid)
    if f"developer:x:{uid}:{gid}:" in texts[0] and f"developer:x:{gid}:" in texts[1]:
        return
    try:
        for path, text in zip((passwd, group), new):
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
    except OSError:
        pass


@contextlib.contextmanager
def acting_as(uid, gid):
    """Does what follows with the rights of the user, and becomes root again."""
    if uid == 0:
        # Root of this container is the user.
        yield
        return
    groups = os.getgroups()
    try:
        os.setgroups([gid])
        os.setegid(gid)
        os.seteuid(uid)
    except PermissionError:
        refuse()
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def own(uid, gid, volumes):
    """Corrects the owner of the home and of each volume, where it is wrong."""
    found = mounts()
    for path in (f"{HOME}/.config", f"{HOME}/.local", f"{HOME}/.local/share"):
        try:
            if path not in found:
                with folder(path) as opened:
                    close(opened)
        except OSError:
            # Not there, a link of the user's, or read-only.
            continue
    _own_workspace(found.get(place.WORKSPACE), uid, gid)
    for path in [HOME] + [volume["path"] for volume in volumes]:
        try:
            with folder(path) as opened:
                _own(path, opened, found.get(path), uid, gid)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                # A link is the user's own doing, and what it leads to is the user's to look after.
                continue
            if error.errno == errno.EROFS and path not in found:
                # A read-only container: what cannot be written there is reported later.
                continue
            say(f"{path}: cannot give it to {uid}:{gid}: {reason(error)}; its files stay as they are")


def _own_workspace(mount, uid, gid):
    """A new volume to work in is the user's. One with files has its owner already, and they are left alone."""
    with contextlib.suppress(OSError):
        if mount and mount.private and "ro" not in mount.options:
            with folder(mount.path) as opened:
                if not os.listdir(opened):
                    os.fchown(opened, uid, gid)


def _own(path, opened, mount, uid, gid):
    if mount and not mount.private:
        if owner(opened) != (uid, gid) and "ro" not in mount.options:
            found = "{}:{}".format(*owner(opened))
            say(f"{path} is a folder of the host and belongs to {found}, not to {uid}:{gid}: {place.remedy(path)}")
    elif mount and "ro" in mount.options:
        say(f"{path} is mounted read-only: what is changed there cannot be kept")
    else:
        correct(opened, uid, gid, apart=mount is not None)


@contextlib.contextmanager
def folder(path):
    """Opens a folder below /, none of whose parts may be a link."""
    opened = os.open("/", FOLDER)
    try:
        for name in path.strip("/").split("/"):
            below = os.open(name, FOLDER, dir_fd=opened)
            os.close(opened)
            opened = below
        yield opened
    finally:
        os.close(opened)


def correct(opened, uid, gid, apart=True):
    """Gives a tree to the user, if it is not the user's. The top comes last: as long as it is wrong, so is the rest.

    The marker says whom the contents belong to; with it, a volume costs a few system calls however full it is.
    apart: whether the tree is a file system of its own, so that no file in it can have a second name elsewhere.
    """
    mine = f"{uid}:{gid}\n"
    known = _read_marker(opened)
    if owner(opened) == (uid, gid) and known in (None, mine):
        if known is None:
            close(opened)
            _mark(opened, mine, uid, gid)
        return
    _give(opened, os.fstat(opened).st_dev, uid, gid, apart)
    _mark(opened, mine, uid, gid)
    close(opened)
    os.fchown(opened, uid, gid)


def _give(opened, device, uid, gid, apart):
    pending = [os.dup(opened)]
    while pending:
        current = pending.pop()
        try:
            with os.scandir(current) as entries:
                for entry in entries:
                    info = entry.stat(follow_symlinks=False)
                    if info.st_dev != device:
                        continue
                    is_folder = entry.is_dir(follow_symlinks=False)
                    # A second name of a system file would give that file away.
                    second_name = not apart and not is_folder and info.st_nlink > 1 and info.st_uid == 0
                    if (info.st_uid, info.st_gid) != (uid, gid) and not second_name:
                        os.chown(entry.name, uid, gid, dir_fd=current, follow_symlinks=False)
                    if is_folder:
                        pending.append(os.open(entry.name, FOLDER, dir_fd=current))
        finally:
            os.close(current)


def close(opened):
    """Open to all in the image, for users that passwd does not know; with a known owner there is no need for that."""
    mode = os.fstat(opened).st_mode
    if mode & 0o002:
        os.fchmod(opened, mode & 0o755)


def _read_marker(opened):
    try:
        file = os.open(MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=opened)
    except FileNotFoundError:
        return None
    except OSError:
        return "a link, or nothing that can be read"
    with open(file, "rb") as text:
        return text.read(64).decode(errors="replace")


def _mark(opened, text, uid, gid):
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(MARKER, dir_fd=opened)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with open(os.open(MARKER, flags, 0o644, dir_fd=opened), "w", encoding="ascii") as file:
            file.write(text)
            os.fchown(file.fileno(), uid, gid)
    except OSError:
        # A full or odd file system: the next start looks again.
        pass


def owner(opened):
    info = os.fstat(opened)
    return info.st_uid, info.st_gid


def last_resort(uid, gid):
    """An executable folder for Bun in /dev, which is in memory and writable for root even in a read-only container."""
    try:
        os.makedirs(place.LAST_RESORT, mode=0o700, exist_ok=True)
        os.chown(place.LAST_RESORT, uid, gid)
    except OSError:
        # Only needed where nothing else will do, and then that is reported.
        pass


def secrets(settings, environ, uid, gid):
    """Copies secrets that only root can read into a folder in memory that only the user can read."""
    for variable in settings.table["variable"]:
        name = f"{variable['name']}_FILE"
        path = environ.get(name)
        if variable["kind"] != "secret" or not path or not os.path.isfile(path):
            continue
        try:
            content = read_for(path, uid, gid)
            if content is None:
                continue
            with acting_as(uid, gid):
                private = runtime()
                if private is None:
                    say(f"{name}={path}: only root can read it, and there is no folder in memory for a copy; going on without this key")
                    continue
                copy = f"{private}/{variable['name']}"
                replace(copy, content, 0o400)
            environ[name] = copy
        except OSError as error:
            say(f"{name}={path}: {reason(error)}; going on without this key")


def read_for(path, uid, gid):
    """The content of a file that the user cannot read; None if the user can, or could have put it there."""
    with acting_as(uid, gid):
        if os.access(path, os.R_OK, effective_ids=True) or movable(path) or movable(os.path.realpath(path)):
            return None
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        return file.read()


def movable(path):
    """Whether this process can replace the file, or any folder above it."""
    while path not in ("", "/"):
        parent = os.path.dirname(path)
        if os.access(parent, os.W_OK, effective_ids=True):
            info = os.stat(parent)
            # In a folder such as /tmp everybody may only replace what is their own.
            if not info.st_mode & stat.S_ISVTX or os.geteuid() in (info.st_uid, os.lstat(path).st_uid):
                return True
        path = parent
    return False


def replace(path, content, mode):
    """Writes a file under a new name first, so that neither a link nor an older file is in the way."""
    scratch = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(scratch)
    with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "wb") as file:
        file.write(content)
    os.replace(scratch, path)


def agent(environ, uid, gid):
    """An SSH agent whose socket is open to a group only, as Docker Desktop's is to root's, gets a door for the user: a
    process of the user's id that is in that group, and in no other."""
    path = environ.get("SSH_AUTH_SOCK")
    try:
        info = os.stat(path) if path else None
    except OSError:
        return
    if info is None or not stat.S_ISSOCK(info.st_mode) or info.st_mode & 0o060 != 0o060:
        return
    with acting_as(uid, gid):
        if os.access(path, os.W_OK, effective_ids=True):
            return
        private = runtime()
    if private is None:
        return
    door = f"{private}/{place.AGENT}"
    if os.fork() == 0:
        try:
            os.setgroups([info.st_gid])
            os.setgid(gid)
            os.setuid(uid)
            quiet = os.open(os.devnull, os.O_RDWR)
            for number in range(3):
                os.dup2(quiet, number)
            listen = f"UNIX-LISTEN:{door},fork,mode=0600,unlink-early"
            os.execv("/usr/bin/socat", ["socat", listen, f"UNIX-CONNECT:{path}"])
        finally:
            os._exit(1)
    environ["SSH_AUTH_SOCK"] = door


def drop(uid, gid):
    """Becomes the user for good. Groups that the engine was asked to add (--group-add) stay."""
    if uid == 0:
        lose_capabilities()
        return
    try:
        os.setgroups(sorted({gid} | {group for group in os.getgroups() if group != 0}))
        os.setgid(gid)
        os.setuid(uid)
    except PermissionError:
        if capabilities() != 0:
            refuse()
        # Root in name only: it may do nothing that another user may not.
        say(
            f"no capability to become user {uid}: going on as root without any privilege, which cannot write your"
            ' files; better start with --user "$(id -u):$(id -g)"'
        )


def lose_capabilities():
    """Root without any privilege: the right user where the host's user is root in here."""
    import ctypes

    class Header(ctypes.Structure):
        _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))

    libc = ctypes.CDLL(None, use_errno=True)
    # PR_CAPBSET_DROP: what a program could get back when it starts. It fails at the first number that is none.
    for number in range(64):
        if libc.prctl(24, number, 0, 0, 0) != 0:
            break
    # _LINUX_CAPABILITY_VERSION_3, this process, and no bit in any of the three sets.
    if libc.capset(ctypes.byref(Header(0x20080522, 0)), (ctypes.c_uint32 * 6)()) != 0 or capabilities() != 0:
        raise Refusal("the privileges of root cannot be given up: start with --cap-drop ALL")


def refuse():
    raise Refusal(
        "root without the capabilities SETUID and SETGID cannot become another user: add --cap-add SETUID"
        ' --cap-add SETGID, or start with --user "$(id -u):$(id -g)"'
    ) from None
