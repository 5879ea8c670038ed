"""Stands before opencode, pi and mempalace, which all read what the user can write: also `docker exec`, which passes the
entrypoint by, gets the user, folders and settings."""

import json
import os
import shlex
import shutil

from devbox import Refusal, config, guard, place, say, start, user, words, write
from devbox.table import Settings

# Words that make opencode answer and end.
ASKS = {"--version", "-v", "--help", "-h", "--get-yargs-completions"}


def program(name):
    """Where a component's own program lies."""
    component = name.partition("-")[0]
    candidates = (f"/opt/{component}/bin/{name}", f"/opt/{component}/node_modules/.bin/{name}")
    return next((path for path in candidates if os.path.exists(path)), None)


def main(name, argv):
    path = program(name)
    if path is None:
        say(f"{name} is not in this image; the variants that ship it are in the README")
        return 127
    environ = dict(os.environ)
    settings = Settings(environ)
    try:
        if os.getuid() == 0:
            as_user(environ)
    except Refusal as refusal:
        say(refusal)
        return 64
    os.umask(settings.umask())
    place.prepare(environ)
    if name == "opencode":
        try:
            password(settings, environ, argv)
        except Refusal as refusal:
            say(refusal)
            return 64
        # Questions about the program itself touch neither data nor configuration.
        if not ASKS & set(argv) and words.command(argv) != "completion":
            config.apply(settings, environ, os.getcwd(), shutil.which)
            environ["DEVBOX_MCP_OFF"] = ",".join(n for n, switch in config.SWITCHES.items() if not settings.switch(switch))
            if os.path.isdir(config.OMOS) and settings.switch("DEVBOX_OMOS"):
                # Its agents work in parallel, which opencode allows by a setting only.
                environ.setdefault("OPENCODE_EXPERIMENTAL_BACKGROUND_SUBAGENTS", "true")
            guard.watch(environ, version(name))
            # With a plugin, opencode waits for its packages; npm by itself gives up on an absent network after 70 s.
            environ.setdefault("NPM_CONFIG_FETCH_RETRY_MINTIMEOUT", "500")
            environ.setdefault("NPM_CONFIG_FETCH_RETRY_MAXTIMEOUT", "1000")
    elif name == "pi":
        pi_keys(settings, environ)
    return start.execute(path, [name, *argv], environ)


def as_user(environ):
    """`docker exec` comes in as root; the agents run as the user whom the container was started for."""
    if place.capabilities() == 0:
        # Root in name only, which the start has said.
        return
    info = os.stat(place.HOME)
    known = info.st_uid != 0 or place.root_is_a_user()
    user.drop(*(info.st_uid, info.st_gid) if known else (1000, 1000))
    environ.update(HOME=place.HOME, USER="developer", LOGNAME="developer")
    environ.pop("XDG_RUNTIME_DIR", None)


def version(name):
    try:
        with open(f"/usr/share/devbox/components/{name}.json", encoding="utf-8") as file:
            return json.load(file)["version"]
    except (OSError, ValueError, KeyError):
        return None


def password(settings, environ, argv):
    """The server's password is the one secret that opencode takes from its environment only.

    Refuses to start a server without the password that was meant for it, and one that everybody could use.
    """
    listens = words.listens(argv) and not ASKS & set(words.own(argv))
    if not listens and words.command(argv) not in words.CLIENTS:
        return
    value = settings.secret("OPENCODE_SERVER_PASSWORD")
    if value:
        environ["OPENCODE_SERVER_PASSWORD"] = value
        return
    file = environ.get("OPENCODE_SERVER_PASSWORD_FILE")
    if listens and file:
        raise Refusal(f"OPENCODE_SERVER_PASSWORD_FILE={file}: no password can be read from it, so the server does not start")
    address = words.hostname(argv, server_section(environ)) if listens else "localhost"
    if not words.is_loopback(address) and not settings.switch("DEVBOX_ALLOW_OPEN_SERVER"):
        raise Refusal(
            f"a server on {address or 'all addresses'} without a password would let everybody in who reaches this container:"
            " set OPENCODE_SERVER_PASSWORD_FILE or OPENCODE_SERVER_PASSWORD, or DEVBOX_ALLOW_OPEN_SERVER=on"
        )


def server_section(environ):
    """opencode takes the server's address from the user's files, and from no other layer."""
    merged = {}
    for path in config.user_files(environ):
        merged = config.merge(merged, config.read(path, tell=lambda line: None) or {})
    section = merged.get("server")
    return section if isinstance(section, dict) else {}


def pi_keys(settings, environ):
    """Adds providers whose key is in a file to pi's logins, as a command that reads the file. Others stay as they are."""
    folder = environ.get("PI_CODING_AGENT_DIR") or f"{environ['HOME']}/.pi/agent"
    path = f"{folder}/auth.json"
    try:
        with open(path, encoding="utf-8") as file:
            logins = json.load(file)
    except FileNotFoundError:
        logins = {}
    except (OSError, ValueError) as error:
        say(f"{path}: cannot be read, so keys from files are not added: {error}")
        return
    before = json.dumps(logins)
    for variable in settings.providers():
        name = variable["provider"].get("pi")
        file = settings.secret_file(variable["name"])
        if not name:
            continue
        if settings.given(variable["name"]):
            # pi takes it from its environment, unless a login says otherwise.
            file = None
        old = logins.get(name, {})
        ours = isinstance(old, dict) and str(old.get("key", "")).startswith("!cat -- ")
        if file and (not old or ours):
            logins[name] = {"type": "api_key", "key": f"!cat -- {shlex.quote(file)}"}
        elif ours and not file:
            del logins[name]
    if json.dumps(logins) != before:
        write(path, json.dumps(logins, indent=2) + "\n")
