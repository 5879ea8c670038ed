"""The entrypoint: prepares the container, then becomes the command."""

import json
import os
import shutil
import signal
import time

from devbox import Refusal, access, place, reason, say, skills, user, versions, words, write
from devbox.table import Settings

# Their terminal interfaces take two to six seconds to end by themselves.
AGENTS = ("opencode", "pi")
GRACE_SECONDS = 0.2
PATIENT_SECONDS = 8
# The model that mempalace embeds text with, where the image was built with its host in reach.
MODEL = "/opt/mempalace-models/all-MiniLM-L6-v2"
SHELLS = ("bash", "sh", "zsh", "fish", "dash")


def main(argv):
    if argv[:1] == ["launcher"]:
        # Nothing to prepare: this prints a file for the host.
        from devbox import launcher

        return launcher.main(argv[1:])
    # As PID 1 this process would ignore SIGTERM; until the command runs there is nothing to save.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    command = argv or ["/bin/bash", "-l"]
    environ = dict(os.environ)
    settings = Settings(environ)
    try:
        if os.getuid() == 0:
            # Copies the keys too: only root can read what belongs to another user of the host.
            become_user(settings, environ)
            updated = prepare(settings, environ)
        else:
            updated = setup(settings, environ)
    except Refusal as refusal:
        say(refusal)
        return 64
    terminal = os.isatty(0) and os.isatty(1)
    if terminal and is_shell(command) and settings.switch("DEVBOX_GREETING"):
        from devbox import greet

        greet.main(settings, environ, updated)
    elif os.path.basename(command[0]) in AGENTS and (terminal or words.listens(command[1:])):
        from devbox import greet

        lost = greet.lost(settings, place.mounts())
        if lost:
            say(f"not mounted, so lost with this container: {', '.join(lost)}")
    shared = settings.switch("DEVBOX_SHARED") and shutil.which(command[0], path=environ.get("PATH", os.defpath))
    if shared or terminal and (is_shell(command) or os.path.basename(command[0]) in AGENTS):
        command = ["/usr/local/bin/devbox", "foreground", *command]
    return become(command, environ)


def become_user(settings, environ):
    uid, gid = user.ids(settings)
    if uid != 0:
        user.adopt(uid, gid)
    if place.capabilities() != 0:
        user.own(uid, gid, settings.table["volume"])
        user.secrets(settings, environ, uid, gid)
        user.agent(environ, uid, gid)
        # Some of the keys only root may be able to read.
        access.copy_keys(settings, place.HOME, (uid, gid))
    else:
        access.copy_keys(settings, place.HOME)
    user.last_resort(uid, gid)
    user.drop(uid, gid)
    environ.update(HOME=place.HOME, USER="developer", LOGNAME="developer")


def setup(settings, environ):
    """All that the user can do without root; the same at each start, and harmless to repeat. Returns what was updated."""
    place.prepare(environ)
    access.copy_keys(settings, environ["HOME"])
    return prepare(settings, environ)


def prepare(settings, environ):
    os.umask(settings.umask())
    place.prepare(environ)
    settings.check()
    keep(settings, environ)
    share_logins(settings, environ)
    locale(settings, environ)
    telemetry(settings, environ)
    environ.setdefault("HISTFILE", f"{state(environ)}/bash/history")
    if place.writable(state(environ)):
        for name in ("bash", "devbox", "ssh"):
            os.makedirs(f"{state(environ)}/{name}", mode=0o700, exist_ok=True)
    access.git(settings, environ)
    access.aws(settings, environ)
    skills.deploy(settings, environ)
    embedding_model(environ)
    if settings.given("DEVBOX_CALLBACK_PORTS") and settings.has_form("DEVBOX_CALLBACK_PORTS") and os.getpid() == 1:
        import subprocess

        # Beside the command; it goes with the container.
        subprocess.Popen(["/usr/local/bin/devbox", "forward", *settings.text("DEVBOX_CALLBACK_PORTS").replace(",", " ").split()], env=environ)
    return record(environ)


# Logins and settings that tools keep right in the home, where no volume is.
KEPT = (".gitconfig", ".git-credentials", ".config/git", ".config/gh", ".config/glab-cli", ".config/tea", ".config/gcloud", ".config/pip",
        ".config/uv", ".aws", ".azure", ".docker", ".kube", ".netrc", ".npmrc", ".pypirc", ".gnupg", ".cargo/credentials.toml")


def keep(settings, environ):
    """Moves them to the state volume, if there is one, and leaves links in their place."""
    home, found = environ["HOME"], place.mounts()
    folder = f"{home}/.local/state"
    if environ.get("XDG_STATE_HOME") or not place.covered(folder, found) or place.covered(home, found) or not place.writable(folder):
        return
    for name in KEPT:
        path, kept = f"{home}/{name}", f"{folder}/devbox/home/{name.replace('/', '-').strip('.')}"
        if path in found or os.path.islink(path):
            continue
        try:
            os.makedirs(os.path.dirname(kept), mode=0o700, exist_ok=True)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if os.path.lexists(path):
                if os.path.lexists(kept):
                    # The container's own, made before this start: it stays what programs see.
                    continue
                shutil.move(path, kept)
            elif name in FOLDERS:
                os.makedirs(kept, mode=0o700, exist_ok=True)
            os.symlink(kept, path)
        except OSError as error:
            say(f"{path} is lost with this container, since it cannot be kept in {folder}: {reason(error)}")


# opencode's own logins, and those of MCP servers.
LOGINS = ("auth.json", "mcp-auth.json")


def share_logins(settings, environ):
    """Moves them from the data volume to the state volume, for containers whose data volumes are their own."""
    data, folder = f"{environ['HOME']}/.local/share/opencode", f"{environ['HOME']}/.local/state"
    found = place.mounts()
    if not settings.switch("DEVBOX_SHARED_LOGINS") or data not in found or folder not in found or not place.writable(data):
        return
    for name in LOGINS:
        path, kept = f"{data}/{name}", f"{folder}/devbox/home/opencode-{name}"
        try:
            os.makedirs(os.path.dirname(kept), mode=0o700, exist_ok=True)
            if os.path.islink(path):
                continue
            if os.path.exists(path):
                if os.path.exists(kept):
                    # This project's own logins, made before they were shared.
                    continue
                shutil.move(path, kept)
            os.symlink(kept, path)
        except OSError as error:
            say(f"{path} is not shared with other projects: {reason(error)}")


# Programs make the others themselves, and look through a link that leads nowhere yet.
FOLDERS = (".config/git", ".config/gh", ".config/glab-cli", ".config/tea", ".config/gcloud", ".config/pip", ".config/uv", ".aws", ".azure",
           ".docker", ".kube", ".gnupg")


def record(environ):
    """Keeps the versions of this start beside the user's settings; returns what has changed since the last one."""
    path = f"{state(environ)}/devbox/versions.json"
    now = {fact["name"]: fact["version"] for fact in versions.components()}
    try:
        with open(path, encoding="utf-8") as file:
            before = json.load(file)
    except (OSError, ValueError):
        before = {}
    if now != before and place.writable(os.path.dirname(path)):
        write(path, json.dumps(now, indent=2) + "\n", 0o644)
    return [f"{name} {before[name]} → {version}" for name, version in now.items() if before.get(name, version) != version]


def embedding_model(environ):
    """Puts the image's model where chromadb looks for one before it downloads it; one that is there already stays."""
    wanted = f"{environ['HOME']}/.cache/chroma/onnx_models/{os.path.basename(MODEL)}"
    there = os.path.exists(f"{MODEL}/onnx/model.onnx")
    if there and not os.path.lexists(wanted) and place.writable(os.path.dirname(wanted)):
        os.symlink(MODEL, wanted)


def state(environ):
    return environ.get("XDG_STATE_HOME") or f"{environ['HOME']}/.local/state"


def locale(settings, environ):
    """A locale that the image does not have makes half of all programs complain; C.UTF-8 is always there."""
    import locale as system

    wanted = settings.text("LANG")
    try:
        system.setlocale(system.LC_CTYPE, wanted)
        environ["LANG"] = wanted
    except system.Error:
        say(f"LANG={wanted}: not in this image, which has en_US.UTF-8 and C.UTF-8; going on with C.UTF-8")
        environ["LANG"] = "C.UTF-8"


def telemetry(settings, environ):
    if not settings.switch("DEVBOX_TELEMETRY"):
        for name, value in (("DO_NOT_TRACK", "1"), ("PI_TELEMETRY", "0"), ("ANONYMIZED_TELEMETRY", "False")):
            environ.setdefault(name, value)
    # The image updates as a whole: tools that look for newer versions of themselves could not install them.
    for name in ("PI_SKIP_VERSION_CHECK", "GH_NO_UPDATE_NOTIFIER"):
        environ.setdefault(name, "1")


def is_shell(command):
    """Whether the command is an interactive shell: a shell's name and nothing but options that run nothing."""
    name = os.path.basename(command[0])
    return name in SHELLS and all(word in ("-l", "-i", "--login", "-li", "-il") for word in command[1:])


def become(command, environ):
    """Replaces this process by the command, under tini: no privileged process stays behind."""
    path = environ.get("PATH", os.defpath)
    if not shutil.which(command[0], path=path):
        there = shutil.which(command[0], mode=os.F_OK, path=path)
        say(f"{command[0]}: " + ("cannot be executed" if there else "there is no such command in this image"))
        return 126 if there else 127
    if os.getpid() == 1:
        command = ["/usr/bin/tini", "-g", "--", *command]
    return execute(shutil.which(command[0], path=path), command, environ)


def execute(path, argv, environ):
    # Python ignores these two; the program shall not inherit that.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(path, argv, environ)
    except OSError as error:
        say(f"{path}: {error.strerror}")
        return 126


def foreground(argv):
    """Runs what a person sits before, so that it ends at once when the container is stopped.

    An interactive shell ignores SIGTERM, but hangs up on SIGHUP and takes its jobs along. A terminal interface puts the
    screen right at once and then tidies up for seconds; sessions are in a database that survives to be cut off.
    """
    import subprocess

    child = subprocess.Popen(argv)
    last = signal.SIGHUP if is_shell(argv) else signal.SIGTERM
    # Without a terminal nobody waits, and a program may have work to finish. Agents keep theirs in a database.
    grace = GRACE_SECONDS if os.isatty(0) or os.path.basename(argv[0]) in AGENTS else PATIENT_SECONDS

    def stop(*_):
        child.send_signal(last)
        try:
            child.wait(grace)
        except subprocess.TimeoutExpired:
            child.kill()
        os._exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    # The keyboard's signals are for the child.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    code = child.wait()
    code = 128 - code if code < 0 else code
    if Settings(dict(os.environ)).switch("DEVBOX_SHARED"):
        await_sessions(code)
    return code


def await_sessions(code):
    """Stays until the sessions that joined with `docker exec` have ended: they end with this container."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: os._exit(code))
    told = False
    while (count := sessions()) > 0:
        if not told:
            who = "one more session uses" if count == 1 else f"{count} more sessions use"
            say(f"{who} this container, which stays until the end of it; Ctrl-C stops it now")
            told = True
        time.sleep(0.5)


def sessions(proc="/proc"):
    """How many processes came into this container beside the first: their parent is outside of it."""
    found = 0
    for pid in filter(str.isdigit, os.listdir(proc)):
        try:
            with open(f"{proc}/{pid}/status", encoding="utf-8", errors="replace") as file:
                outside = "\nPPid:\t0\n" in file.read()
            with open(f"{proc}/{pid}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            continue
        # The health check comes in as well.
        found += outside and pid != "1" and b"health" not in words[-2:]
    return found
