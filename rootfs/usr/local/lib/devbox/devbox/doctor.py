"""`devbox doctor`: one line for each thing that work depends on. Exit code 1 if one of them is broken."""

import functools
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.parse

from devbox import access, config, greet, place, update
from devbox import network as network_of_tools

OK, NOTE, BAD = "ok", "note", "BAD"
# For an MCP server to answer; one that runs under emulation needs minutes.
WAIT_SECONDS = 30


def image(settings, environ):
    me = update.identity()
    if me:
        yield OK, "image", f"{me['variant']} with content key {me['key']}, on the base {me.get('base_key')}, of {me['repository']}"


def mounts(settings, environ):
    found = place.mounts()
    for volume in settings.table["volume"]:
        path = volume["path"]
        if not place.covered(path, found):
            yield NOTE, volume["name"], f"{path} is not mounted, so this is lost with the container: {volume['holds']}"
        elif not place.writable(path):
            yield BAD, volume["name"], f"user {os.getuid()} cannot write {path}: {owner(path)}, {place.remedy(path)}"
        else:
            yield OK, volume["name"], f"{path}, {owner(path)}"
    spaces = place.workspaces(found)
    for path in spaces:
        can = os.access(path, os.W_OK)
        mend = "" if can else f": user {os.getuid()} cannot write it; {place.remedy(path)}"
        yield OK if can else NOTE, "workspace", f"{path}, {owner(path)}{mend}"
    if not spaces:
        yield NOTE, "workspace", f'nothing is mounted to work on: start with -v "$PWD:{place.WORKSPACE}"'


def owner(path):
    info = os.stat(path)
    return f"owner {info.st_uid}:{info.st_gid}"


def folders(settings, environ):
    home = environ["HOME"]
    can = place.writable(home)
    yield OK if can else NOTE, "home", home if can else f"{home} cannot be written: mount a volume or a tmpfs on it"
    temp = environ["BUN_TMPDIR"]
    can = place.writable(temp) and place.executable(temp)
    yield OK if can else BAD, "temp dir", f"{temp} {'can' if can else 'cannot'} be written and executed from"
    free = shutil.disk_usage(home).free
    yield OK if free > 1 << 30 else BAD, "disk", f"{free >> 20} MB free on {home}"


def ssh(settings, environ):
    path = environ.get("SSH_AUTH_SOCK")
    if not path:
        yield NOTE, "ssh agent", 'none: mount one with -v "$SSH_AUTH_SOCK:/run/ssh-agent" -e SSH_AUTH_SOCK=/run/ssh-agent'
        return
    answer = run(["ssh-add", "-l"], environ)
    if answer.returncode == 0:
        yield OK, "ssh agent", f"{len(answer.stdout.splitlines())} keys"
    elif answer.returncode == 1:
        yield NOTE, "ssh agent", "answers, and holds no key: run ssh-add on the host"
    else:
        yield BAD, "ssh agent", f"{path} does not answer user {os.getuid()}, an agent answers its own user only: {last(answer.stderr) or 'no reason given'}"


def git(settings, environ):
    name, address = (run(["git", "config", f"user.{key}"], environ).stdout.strip() for key in ("name", "email"))
    if name and address:
        yield OK, "git identity", f"{name} <{address}>"
    else:
        yield NOTE, "git identity", "none: set GIT_USER_NAME and GIT_USER_EMAIL"
    for path in place.workspaces(place.mounts()):
        if os.path.exists(f"{path}/.git"):
            answer = run(["git", "-C", path, "status", "--porcelain"], environ)
            good = answer.returncode == 0
            yield OK if good else BAD, "git", f"{path} {'is usable' if good else last(answer.stderr)}"
    if settings.given("GITEA_URL"):
        token = access.credential(settings, "protocol={}\nhost={}\n".format(*split(settings.text("GITEA_URL"))))
        yield OK if token else NOTE, "gitea", "token given" if token else "GITEA_URL is set, GITEA_TOKEN is not"


def split(url):
    protocol, _, rest = url.partition("://")
    return protocol, rest.split("/")[0]


def shadows(settings, environ):
    """Programs of the image that the user has installed once more."""
    for path, remedy, wins in greet.shadows(environ):
        yield NOTE, "program", f"{path} {greet.SHADOW[wins]}: {remedy}"


def keys(settings, environ):
    found = [v["name"] for v in settings.providers() if settings.has(v["name"])]
    if found:
        yield OK, "keys", ", ".join(found)
    elif greet.keys(settings, environ):
        yield OK, "keys", "an AWS profile or a saved login"
    else:
        yield NOTE, "keys", "none: set a provider's key, or run `opencode auth login`"


def servers(settings, environ, wait):
    """Every MCP server of the configuration as opencode would see it, old entries of the user's files included."""
    merged = {}
    for _, layer in config.layers(settings, environ, os.getcwd(), shutil.which):
        merged = config.merge(merged, layer)
    for name, server in sorted(merged.get("mcp", {}).items()):
        label = f"mcp {name}"
        if not server.get("enabled", True):
            yield OK, label, "switched off"
        elif server.get("type") == "remote":
            yield remote(label, server)
        else:
            yield local(label, server, environ, wait)


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "devbox", "version": "1"}},
}


def substitute(value, environ):
    """opencode's {env:NAME} and {file:PATH}."""
    import re

    def content(match):
        try:
            with open(os.path.expanduser(match[1]), encoding="utf-8") as file:
                return file.read().strip()
        except OSError:
            return ""

    value = re.sub(r"\{env:([^}]+)\}", lambda match: environ.get(match[1], ""), value)
    return re.sub(r"\{file:([^}]+)\}", content, value)


def local(label, server, environ, wait):
    command = server.get("command") or ["?"]
    if not shutil.which(command[0], path=environ.get("PATH")):
        return BAD, label, f"{command[0]}: there is no such command"
    extra = {key: substitute(value, environ) for key, value in server.get("environment", {}).items()}
    start = time.monotonic()
    # In memory, since nothing may be writable here.
    with open(os.memfd_create("log"), "w+", encoding="utf-8") as log:
        # A group of its own, so that what the server started ends with it.
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**environ, **extra},
            text=True,
            start_new_session=True,
        )
        try:
            child.stdin.write(json.dumps(INITIALIZE) + "\n")
            child.stdin.flush()
            answer = first_answer(child.stdout, wait)
        except OSError:
            answer = None
        finally:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        log.seek(0)
        rest = log.read()
    if answer and "result" in answer:
        info = answer["result"].get("serverInfo", {})
        took = time.monotonic() - start
        return OK, label, f"{info.get('name', command[0])} {info.get('version', '')} answers after {took:.1f} s"
    return BAD, label, f"`{' '.join(command)}` does not answer `initialize`: {last(rest) or 'no answer'}"


def first_answer(lines, wait):
    """The reply to our message; a server may log other lines first. A thread reads, since a line may never end."""
    answers = queue.SimpleQueue()

    def read():
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if isinstance(message, dict) and message.get("id") == 1:
                answers.put(message)
                return
        answers.put(None)

    threading.Thread(target=read, daemon=True).start()
    try:
        return answers.get(timeout=wait)
    except queue.Empty:
        return None


def remote(label, server):
    import urllib.error
    import urllib.request

    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    headers.update({key: substitute(value, os.environ) for key, value in server.get("headers", {}).items()})
    request = urllib.request.Request(server["url"], json.dumps(INITIALIZE).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            good = b'"result"' in answer.read(65536)
        return OK if good else BAD, label, f"{server['url']} {'answers' if good else 'does not answer `initialize`'}"
    except (OSError, ValueError) as error:
        return NOTE, label, f"{server['url']}: {error}"


def registry_host():
    """A host that an agent's container has to reach in any case: the one that npm installs from."""
    try:
        told = subprocess.run(["npm", "config", "get", "registry"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    return urllib.parse.urlsplit(told.strip()).hostname


def network(settings, environ):
    host = registry_host()
    if not host:
        yield NOTE, "dns", "npm names no registry, so there is no host to try"
        return
    import urllib.error
    import urllib.request

    proxy = environ.get("https_proxy")
    skips = urllib.request.proxy_bypass_environment(host, {"no": environ.get("no_proxy", "")})
    if proxy and not skips:
        # It looks the name up; without one, this container has to.
        yield OK, "proxy", f"{urllib.parse.urlsplit(proxy).hostname} for {host}"
    else:
        try:
            socket.getaddrinfo(host, 443)
        except OSError as error:
            yield NOTE, "dns", f"{host}: {error}; without a network, agents reach no model"
            return
        yield OK, "dns", f"{host} has an address"
    url = f"https://{host}/"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=20) as answer:
            date = answer.headers["Date"]
    except urllib.error.HTTPError as error:
        date = error.headers["Date"]
    except OSError as error:
        if "CERTIFICATE" in str(error).upper():
            yield BAD, "tls", f"{host}: {getattr(error, 'reason', error)}; {INSPECTED}"
        else:
            yield NOTE, "tls", f"{host}: {getattr(error, 'reason', error)}"
            return
    else:
        yield OK, "tls", f"{host} is trusted"
        yield clock(date)
    yield from tools(url, environ)


INSPECTED = "behind a proxy that inspects TLS, mount its certificate and set DEVBOX_CA_FILE to it"


def tools(url, environ):
    """Whether each tool that fetches something trusts the network: they do not share one list of certificates."""
    from concurrent.futures import ThreadPoolExecutor

    scratch = f"{environ['BUN_TMPDIR']}/doctor"
    with ThreadPoolExecutor() as pool:
        asked = {tool: pool.submit(network_of_tools.probe, tool, url, environ, scratch) for tool in network_of_tools.PROBES}
    wrong = {tool: answer.result() for tool, answer in asked.items() if answer.result()}
    for tool, line in wrong.items():
        yield BAD, f"tls of {tool}", f"{line[:160]}; {INSPECTED}"
    good = [tool for tool in asked if tool not in wrong]
    if good:
        yield OK, "tls of tools", ", ".join(good)


def clock(date):
    from email.utils import parsedate_to_datetime

    if not date:
        return NOTE, "clock", "cannot tell: the answer has no date"
    apart = abs(time.time() - parsedate_to_datetime(date).timestamp())
    far = apart > 300
    return BAD if far else OK, "clock", f"{apart:.0f} s from the network's" + ("; signatures and TLS need it right" if far else "")


def run(argv, environ):
    return subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=120, check=False)


def last(text):
    return text.strip().splitlines()[-1] if text and text.strip() else ""


def main(settings, environ, wait=WAIT_SECONDS):
    worst = 0
    waiting = functools.partial(servers, wait=wait)
    for check in (image, mounts, folders, shadows, ssh, git, keys, waiting, network):
        try:
            for status, name, text in check(settings, environ):
                print(f"{status:<5}{name:<16} {text}", flush=True)
                worst = max(worst, status == BAD)
        except (OSError, subprocess.SubprocessError) as error:
            name = getattr(check, "__name__", "mcp")
            print(f"{BAD:<5}{name:<16} {error}", flush=True)
            worst = 1
    return int(worst)
