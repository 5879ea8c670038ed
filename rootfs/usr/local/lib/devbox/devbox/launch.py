"""Stands before opencode and pi: also `docker exec`, which passes the entrypoint by, gets the user, folders and settings."""

import json
import os
import shlex
import shutil

from devbox import Refusal, config, guard, place, say, start, user, write
from devbox.table import Settings

SERVERS = ("serve", "web", "acp")


def program(name):
    """Where a component's own program lies."""
    candidates = (f"/opt/{name}/bin/{name}", f"/opt/{name}/node_modules/.bin/{name}")
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
    place.prepare(environ)
    if name == "opencode":
        # Questions about the program itself touch neither data nor configuration.
        if not {"--version", "-v", "--help", "-h", "completion", "--get-yargs-completions"} & set(argv):
            config.apply(settings, environ, os.getcwd(), shutil.which)
            environ["DEVBOX_MCP_OFF"] = ",".join(n for n, switch in config.SWITCHES.items() if not settings.switch(switch))
            if os.path.isdir(config.OMOS) and settings.switch("DEVBOX_OMOS"):
                # Its agents work side by side, which opencode has to be told to allow.
                environ.setdefault("OPENCODE_EXPERIMENTAL_BACKGROUND_SUBAGENTS", "true")
            guard.watch(environ, version(name))
            # With a plugin, opencode waits for its packages; npm by itself gives up on an absent network after 70 s.
            environ.setdefault("NPM_CONFIG_FETCH_RETRY_MINTIMEOUT", "500")
            environ.setdefault("NPM_CONFIG_FETCH_RETRY_MAXTIMEOUT", "1000")
        password(settings, environ, argv)
    elif name == "pi":
        pi_keys(settings, environ)
    return start.execute(path, [name, *argv], environ)


def as_user(environ):
    """`docker exec` comes in as root; the agents run as the user whom the container was started for."""
    if user.capabilities() == 0:
        # Root in name only, which the start has said.
        return
    info = os.stat(place.HOME)
    uid, gid = (info.st_uid, info.st_gid) if info.st_uid else (1000, 1000)
    user.drop(uid, gid)
    environ.update(HOME=place.HOME, USER="developer", LOGNAME="developer")
    environ.pop("XDG_RUNTIME_DIR", None)


def version(name):
    try:
        with open(f"/usr/share/devbox/components/{name}.json", encoding="utf-8") as file:
            return json.load(file)["version"]
    except (OSError, ValueError, KeyError):
        return None


def password(settings, environ, argv):
    """The server's password is the one secret that opencode takes from its environment only."""
    if argv[:1] and argv[0] in (*SERVERS, "attach", "run"):
        value = settings.secret("OPENCODE_SERVER_PASSWORD")
        if value:
            environ["OPENCODE_SERVER_PASSWORD"] = value


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
        if not name or settings.given(variable["name"]):
            continue
        old = logins.get(name, {})
        ours = isinstance(old, dict) and str(old.get("key", "")).startswith("!cat -- ")
        if file and (not old or ours):
            logins[name] = {"type": "api_key", "key": f"!cat -- {shlex.quote(file)}"}
        elif ours and not file:
            del logins[name]
    if json.dumps(logins) != before:
        write(path, json.dumps(logins, indent=2) + "\n")
