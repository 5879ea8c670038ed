"""Runs one of the image's programs as root and lists every path that it resolves before it becomes the user; fails if
the user can write one of them, or if one lies in a volume. Given to the image's python3 with -ISc, then the program."""

import os
import sys

# Mounted by the engine itself, at each start.
ENGINE = ("/proc", "/sys", "/dev", "/etc/resolv.conf", "/etc/hostname", "/etc/hosts", "/usr/sbin/docker-init", "/")
# Root opens them without following links, and changes owners through what it has opened.
HELD = os.O_NOFOLLOW
found = {}


def hook(event, args):
    if os.geteuid() != 0 or event not in EVENTS:
        return
    path = args[0]
    if isinstance(path, int) or path is None:
        return
    held = args[2] & HELD if event == "open" and len(args) > 2 else event in IN_FOLDER and args[-1] != -1
    if not held:
        found.setdefault(os.fsdecode(path), event)


# Their last argument is the opened folder that the path is in, or -1.
IN_FOLDER = ("os.chown", "os.remove")
# The files of an imported module are opened.
EVENTS = (*IN_FOLDER, "open", "os.exec", "os.posix_spawn", "subprocess.Popen", "os.listdir", "os.scandir", "os.chdir", "os.mkdir",
          "os.chmod", "os.rename", "os.symlink", "os.link", "os.truncate", "os.utime", "shutil.copyfile")


def problem(path, mounts):
    """Why root must not resolve this path; None if it may."""
    if not path.startswith("/"):
        return "is looked for in the work folder or by PATH"
    real = os.path.realpath(path)
    if real.startswith(("/proc/", "/sys/", "/dev/")) or real == "/dev":
        return None
    for each in {path, real}:
        while True:
            if os.path.lexists(each):
                info = os.lstat(each)
                link = os.path.islink(each)
                if info.st_uid != 0 or (not link and info.st_mode & 0o022 and not info.st_mode & 0o1000):
                    return f"{each} can be changed by others: owner {info.st_uid}, mode {info.st_mode & 0o7777:o}"
                if each in mounts and each not in ENGINE:
                    return f"{each} is mounted"
            if each == "/":
                break
            each = os.path.dirname(each)
    return None


def judge():
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        mounts = {line.split()[4] for line in file}
    allowed = [path for path in os.environ.get("ALLOWED", "").split(":") if path]
    wrong = []
    for path, event in sorted(found.items()):
        why = None if path in allowed else problem(path, mounts)
        if why:
            wrong.append(f"{event} {path}: {why}")
    for folder in os.environ["PATH"].split(":"):
        why = problem(folder, mounts)
        if why:
            wrong.append(f"PATH {folder}: {why}")
    print(f"resolved {len(found)} paths as root", *wrong, sep="\n", file=sys.stderr)
    os._exit(3 if wrong else 0)


def main():
    program = sys.argv[1]
    sys.argv = sys.argv[1:]
    setuid = os.setuid

    def last_moment(uid):
        if uid:
            # From here on it is the user.
            judge()
        setuid(uid)

    os.setuid = last_moment
    with open(program, encoding="utf-8") as file:
        code = compile(file.read(), program, "exec")
    sys.addaudithook(hook)
    hook("open", (program,))
    try:
        exec(code, {"__name__": "__main__", "__file__": program})
    except SystemExit:
        pass
    judge()


main()
