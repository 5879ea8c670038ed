"""The health check. A server has to answer as healthy; a shell or terminal interface is healthy while it runs."""

import base64
import json
import os
import socket

from devbox import say, words


def processes(proc="/proc"):
    """Process id and arguments of every opencode server."""
    for name in os.listdir(proc):
        if not name.isdigit():
            continue
        try:
            with open(f"{proc}/{name}/cmdline", "rb") as file:
                argv = file.read().decode(errors="replace").removesuffix("\0").split("\0")
        except OSError:
            continue
        if is_server(argv):
            yield int(name)


def is_server(argv):
    """Whether a command line is an opencode server's. An emulator stands before the program, and repeats its name."""
    rest = argv[1:] if "qemu" in argv[0] else argv
    names = 0
    while names < len(rest) and os.path.basename(rest[names]) == "opencode":
        names += 1
    return names > 0 and words.listens(rest[names:])


def listening(pid, proc="/proc"):
    """Addresses that a process listens on: its sockets, looked up in the kernel's tables."""
    sockets = set()
    for name in os.listdir(f"{proc}/{pid}/fd"):
        try:
            sockets.add(os.readlink(f"{proc}/{pid}/fd/{name}"))
        except OSError:
            continue
    addresses = set()
    for table in ("tcp", "tcp6"):
        try:
            with open(f"{proc}/{pid}/net/{table}", encoding="ascii") as file:
                rows = file.read().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                host, port = fields[1].split(":")
                addresses.add(f"{readable(host)}:{int(port, 16)}")
    return sorted(addresses)


def readable(address):
    """An address of the kernel's table, which writes it in the machine's byte order; any becomes loopback."""
    if not address.strip("0"):
        return "127.0.0.1"
    if len(address) == 8:
        return socket.inet_ntoa(bytes.fromhex(address)[::-1])
    words = [bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, 32, 8)]
    return f"[{socket.inet_ntop(socket.AF_INET6, b''.join(words))}]"


def environment(pid):
    with open(f"/proc/{pid}/environ", "rb") as file:
        pairs = file.read().decode(errors="replace").split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def healthy(address, environ):
    import urllib.error
    import urllib.request

    request = urllib.request.Request(f"http://{address}/global/health")
    password = environ.get("OPENCODE_SERVER_PASSWORD")
    if password:
        login = f"{environ.get('OPENCODE_SERVER_USERNAME') or 'opencode'}:{password}"
        request.add_header("Authorization", "Basic " + base64.b64encode(login.encode()).decode())
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=5) as answer:
            return json.load(answer).get("healthy") is True
    except (OSError, ValueError, AttributeError) as error:
        say(f"opencode on {address}: {error}")
        return False


def main():
    servers = list(processes())
    if not servers:
        # Shell or terminal interface: the container runs as long as it does.
        print("running")
        return 0
    for pid in servers:
        info = os.stat(f"/proc/{pid}")
        if os.getuid() == 0 and info.st_uid != 0:
            # Only the owner may look into a process, and this check may run as root.
            os.setgroups([info.st_gid])
            os.setgid(info.st_gid)
            os.setuid(info.st_uid)
        addresses = listening(pid)
        if not any(healthy(address, environment(pid)) for address in addresses):
            say(f"opencode (process {pid}) does not answer as healthy" + ("" if addresses else ": it listens on no port"))
            return 1
    print("serving")
    return 0
