"""The part that needs root: adopt the ids of the host's user, mend owners of volumes, give up all privileges."""

import errno
import os
import shutil

from devbox import Refusal, place, reason, say
from devbox.place import HOME, mounts, runtime

MARKER = ".devbox-owner"


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


def own(uid, gid, volumes):
    """Mends the owner of the home and of each volume, where it is wrong."""
    found = mounts()
    for path in (f"{HOME}/.config", f"{HOME}/.local", f"{HOME}/.local/share"):
        try:
            if path not in found:
                close(path)
        except OSError:
            # Not there, or read-only.
            continue
    for path in [HOME] + [volume["path"] for volume in volumes]:
        mount = found.get(path)
        if not os.path.isdir(path):
            continue
        wrong = _owner(path) != (uid, gid)
        if mount and not mount.private:
            if wrong and "ro" not in mount.options:
                owner = "{}:{}".format(*_owner(path))
                say(f"{path} is a folder of the host and belongs to {owner}, not to {uid}:{gid}: {place.remedy(path)}")
            continue
        if mount and "ro" in mount.options:
            say(f"{path} is mounted read-only: what is changed there cannot be kept")
            continue
        try:
            mend(path, uid, gid)
        except OSError as error:
            if error.errno == errno.EROFS and not mount:
                # A read-only container: what cannot be written there is said later.
                continue
            say(f"{path}: cannot give it to {uid}:{gid}: {reason(error)}; its files stay as they are")


def mend(path, uid, gid):
    """Gives a tree to the user, if it is not the user's. The top comes last: as long as it is wrong, so is the rest.

    The marker says whom the contents belong to; with it, a volume costs two system calls however full it is.
    """
    marker, mine = f"{path}/{MARKER}", f"{uid}:{gid}\n"
    try:
        with open(marker, encoding="ascii") as file:
            known = file.read()
    except (OSError, UnicodeDecodeError):
        known = None
    if _owner(path) == (uid, gid) and known in (None, mine):
        if known is None:
            close(path)
            _mark(marker, mine, uid, gid)
        return
    device = os.lstat(path).st_dev
    pending = [path]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                info = entry.stat(follow_symlinks=False)
                if info.st_dev != device:
                    continue
                if (info.st_uid, info.st_gid) != (uid, gid):
                    os.chown(entry.path, uid, gid, follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
    _mark(marker, mine, uid, gid)
    close(path)
    os.chown(path, uid, gid)


def close(path):
    """Open to all in the image, for users that passwd does not know; with a known owner there is no need for that."""
    mode = os.stat(path).st_mode
    if mode & 0o002:
        os.chmod(path, mode & 0o755)


def _mark(marker, text, uid, gid):
    try:
        with open(marker, "w", encoding="ascii") as file:
            file.write(text)
        os.chown(marker, uid, gid)
    except OSError:
        # A full or odd file system: the next start looks again.
        pass


def _owner(path):
    info = os.stat(path)
    return info.st_uid, info.st_gid


def last_resort(uid, gid):
    """An executable folder for Bun in /dev, which is in memory and writable for root even in a read-only container."""
    try:
        os.makedirs(place.LAST_RESORT, mode=0o700, exist_ok=True)
        os.chown(place.LAST_RESORT, uid, gid)
    except OSError:
        # Only needed where nothing else will do, and then that is said.
        pass


def secrets(settings, environ, uid, gid):
    """Copies secrets that only root can read into a folder in memory that only the user can read."""
    folder = None
    for variable in settings.table["variable"]:
        name = f"{variable['name']}_FILE"
        path = environ.get(name)
        if variable["kind"] != "secret" or not path or not os.path.isfile(path) or _readable(path, uid, gid):
            continue
        folder = folder or runtime(uid, gid)
        if folder is None:
            say(f"{name}={path}: only root can read it, and there is no folder in memory for a copy; going on without this key")
            continue
        copy = f"{folder}/{variable['name']}"
        try:
            shutil.copyfile(path, copy)
            os.chmod(copy, 0o400)
            os.chown(copy, uid, gid)
            environ[name] = copy
        except OSError as error:
            say(f"{name}={path}: {reason(error)}; going on without this key")


def _readable(path, uid, gid):
    """Asked in a child that has become the user: owners, groups and mount options decide together."""
    child = os.fork()
    if child == 0:
        os.setgroups([gid])
        os.setgid(gid)
        os.setuid(uid)
        os._exit(0 if os.access(path, os.R_OK) else 1)
    return os.waitpid(child, 0)[1] == 0


def drop(uid, gid):
    """Becomes the user for good. Groups that the engine was asked to add (--group-add) stay."""
    try:
        os.setgroups(sorted({gid} | {group for group in os.getgroups() if group != 0}))
        os.setgid(gid)
        os.setuid(uid)
    except PermissionError:
        if capabilities() != 0:
            raise Refusal(
                "root without the capabilities SETUID and SETGID cannot become another user: add --cap-add SETUID"
                ' --cap-add SETGID, or start with --user "$(id -u):$(id -g)"'
            ) from None
        # Root in name only: it may do nothing that another user may not.
        say(
            f"no capability to become user {uid}: going on as root without any privilege, which cannot write your"
            ' files; better start with --user "$(id -u):$(id -g)"'
        )


def capabilities(status=None):
    """The effective capabilities of this process, as the bits that the kernel keeps."""
    if status is None:
        with open("/proc/self/status", encoding="utf-8") as file:
            status = file.read()
    return next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
