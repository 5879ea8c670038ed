"""The proxy of `--egress allowlist`: TLS tunnels to named hosts, and nothing else. It runs in a container of its own, which
is on the internal network of the agent's container and on one with a way out."""

import asyncio
import functools
import ipaddress
import re
import signal
import socket

from devbox import say

PORT = 8888
TLS = 443
SECONDS = 20
HEADER = 16384
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)+")
ANSWERS = {
    200: "Connection established",
    400: "Bad request",
    403: "Forbidden: the host is not on the list of --egress allowlist",
    405: "Method not allowed: only CONNECT",
    502: "Bad gateway",
}


def main(argv):
    hosts = {host.lower() for host in argv}
    wrong = [host for host in argv if not NAME.fullmatch(host)]
    if wrong or not hosts:
        say(f"egress: not the name of a host: {wrong[0]}" if wrong else "usage: devbox egress HOST…")
        return 64
    try:
        asyncio.run(serve(hosts))
    except asyncio.CancelledError:
        pass
    return 0


async def serve(hosts, port=PORT):
    server = await asyncio.start_server(lambda reader, writer: client(hosts, reader, writer), "0.0.0.0", port, limit=HEADER)
    task = asyncio.current_task()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    print(f"listening on {server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await server.serve_forever()


async def client(hosts, reader, writer):
    upstream = None
    try:
        code, upstream = await answer(hosts, reader)
        writer.write(f"HTTP/1.1 {code} {ANSWERS[code]}\r\n\r\n".encode())
        await writer.drain()
        if upstream:
            await tunnel((reader, writer), upstream)
    except* (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
        # The other side has gone, or sends no request.
        pass
    finally:
        writer.close()
        if upstream:
            upstream[1].close()


async def forward(address, ports):
    """Passes what comes to these ports of an address on to the same ports of localhost, which may have two addresses."""

    async def passed(port, *caller):
        try:
            own = await asyncio.open_connection("localhost", port)
        except OSError:
            # Nobody listens yet.
            caller[1].close()
            return
        try:
            await tunnel(caller, own)
        except* OSError:
            # One side has gone.
            pass
        finally:
            caller[1].close()
            own[1].close()

    servers = [await asyncio.start_server(functools.partial(passed, port), address, port) for port in ports]
    await asyncio.gather(*(server.serve_forever() for server in servers))


async def answer(hosts, reader):
    """The code of the answer, and the connection to the host if there is one."""
    request = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), SECONDS)
    words = request.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    if len(words) != 3:
        return 400, None
    if words[0] != "CONNECT":
        return 405, None
    host, _, port = words[1].rpartition(":")
    if host.lower() not in hosts or port != str(TLS):
        say(f"egress: refused {words[1]!r}")
        return 403, None
    addresses = await reachable(host)
    if not addresses:
        return 502, None
    try:
        return 200, await asyncio.wait_for(connect(addresses), SECONDS)
    except (OSError, TimeoutError):
        return 502, None


async def reachable(host):
    """Addresses of a host, without those of this container and of a cloud's metadata: the owner of a name could point it
    there. Private networks stay, since a company's own registry may be on the list."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, TLS, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [entry[4][0] for entry in found if not _is_local(ipaddress.ip_address(entry[4][0]))]


def _is_local(address):
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast


async def connect(addresses):
    for address in addresses[:-1]:
        try:
            return await asyncio.open_connection(address, TLS)
        except OSError:
            continue
    return await asyncio.open_connection(addresses[-1], TLS)


async def tunnel(one, other):
    async with asyncio.TaskGroup() as both:
        both.create_task(pump(one[0], other[1]))
        both.create_task(pump(other[0], one[1]))


async def pump(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    # The other direction may still have something to send.
    writer.write_eof()
