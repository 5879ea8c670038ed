"""Certificates and proxies, in the settings of each tool."""

import base64
import os
import re

from devbox import reason, say, write

SYSTEM = "/etc/ssl/certs/ca-certificates.crt"
# Each names a file that takes the place of the system's certificates: OpenSSL, Go and uv; curl; git; Python's requests;
# pip; aws; cargo.
BUNDLE = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "REQUESTS_CA_BUNDLE", "PIP_CERT", "AWS_CA_BUNDLE", "CARGO_HTTP_CAINFO")
# This one comes on top of those that Node and Bun bring.
EXTRA = "NODE_EXTRA_CA_CERTS"
# wget reads no variable, but the place of its system's settings from one.
WGET_FILE, WGET = "SYSTEM_WGETRC", "/etc/wgetrc"
# Where people say it without our own variable.
GIVEN = ("DEVBOX_CA_FILE", "SSL_CERT_FILE", EXTRA, "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
LOCAL = ("localhost", "127.0.0.1", "::1")
PEM = re.compile(r"-----BEGIN (?:TRUSTED )?CERTIFICATE-----.+?-----END (?:TRUSTED )?CERTIFICATE-----", re.DOTALL)


def prepare(environ):
    proxies(environ)
    certificates(environ)


def proxies(environ):
    """Some tools read the variables in small letters only, some in capitals only."""
    for small in PROXIES:
        value = environ.get(small) or environ.get(small.upper())
        if value:
            environ[small] = environ[small.upper()] = value
    if any(environ.get(name) for name in PROXIES[:3]):
        known = [host for host in environ.get("no_proxy", "").split(",") if host]
        # An agent talks to its own server, and to MCP servers beside it.
        hosts = ",".join(known + [host for host in LOCAL if host not in known]) if "*" not in known else "*"
        environ["no_proxy"] = environ["NO_PROXY"] = hosts
        environ.setdefault("NODE_USE_ENV_PROXY", "1")


def source(environ):
    """The variable that names the user's certificates, and its value."""
    name = next((name for name in GIVEN if environ.get(name)), None)
    return (name, environ[name]) if name else (None, None)


def certificates(environ):
    """A bundle of the system's certificates and the user's, in memory, for all tools."""
    name, path = source(environ)
    private = environ.get("XDG_RUNTIME_DIR")
    if not path or not private or path == f"{private}/ca.crt":
        return
    try:
        own = read(path)
    except OSError as error:
        say(f"{name}={path}: {reason(error)}; going on with the image's certificates")
        return
    if not own:
        say(f"{name}={path}: there is no certificate in it; going on with the image's certificates")
        return
    with open(SYSTEM, encoding="ascii", errors="replace") as file:
        system = PEM.findall(file.read())
    extra = "\n".join(own) + "\n"
    both = "\n".join(dict.fromkeys(system + own)) + "\n"
    if not (write(f"{private}/ca.crt", both, 0o644) and write(f"{private}/ca-extra.crt", extra, 0o644)):
        return
    for variable in BUNDLE:
        if name == "DEVBOX_CA_FILE" or variable not in environ:
            environ[variable] = f"{private}/ca.crt"
    with open(WGET, encoding="utf-8", errors="replace") as file:
        own = file.read()
    if WGET_FILE not in environ and write(f"{private}/wgetrc", f"{own}\nca_certificate = {private}/ca.crt\n", 0o644):
        environ[WGET_FILE] = f"{private}/wgetrc"
    if name == "DEVBOX_CA_FILE" or EXTRA not in environ:
        environ[EXTRA] = f"{private}/ca-extra.crt"


def read(path):
    """The certificates of a file, or of all files in a folder, each as text."""
    if not os.path.isdir(path):
        return certificates_in(path)
    files = sorted(f"{path}/{name}" for name in os.listdir(path) if name.endswith((".crt", ".pem", ".cer", ".der")))
    return [found for file in files if os.path.isfile(file) for found in certificates_in(file)]


def certificates_in(path):
    with open(path, "rb") as file:
        content = file.read()
    found = PEM.findall(content.decode("latin-1").replace("\r\n", "\n"))
    if not found and content[:2] == b"\x30\x82":
        # The binary form, as Windows writes it.
        body = base64.encodebytes(content).decode()
        found = [f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----"]
    return found


def are_ports(words):
    """Whether the words are ports; what is wrong is reported."""
    wrong = [word for word in words if not (word.isdecimal() and 0 < int(word) < 65536)]
    if wrong or not words:
        say(f"{' '.join(['forward', *wrong])}: expected ports, numbers from 1 to 65535, such as 1455")
    return bool(words) and not wrong


def forward(ports):
    """Lets the host reach ports that programs open on this container's loopback only: logins by browser call them back.

    `docker run -p` leads to the container's own address, which is another one, so both can have the same port.
    """
    import asyncio
    import socket

    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            # Nothing is sent: the kernel only says which address it would send from.
            asked.connect(("192.0.2.1", 9))
            address = asked.getsockname()[0]
    except OSError as error:
        say(f"forward: this container has no network: {reason(error)}")
        return 1
    from devbox import egress

    try:
        asyncio.run(egress.forward(address, [int(port) for port in ports]))
    except OSError as error:
        say(f"forward: {reason(error)}")
    return 1


# How each tool asks for a page; each ends with a word on the certificate if it does not trust the host.
PROBES = {
    "curl": ["curl", "-sS", "-o", "/dev/null", "-m", "20", "{url}"],
    "wget": ["wget", "-nv", "-O", "/dev/null", "-t", "1", "-T", "20", "{url}"],
    "git": ["git", "ls-remote", "{url}none.git"],
    "node": ["node", "-e", "fetch(process.argv[1]).catch(e => {{ console.error(e.cause?.code, e.cause?.message); process.exit(1) }})", "{url}"],
    "python": ["python3", "-c", "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=20)", "{url}"],
    "aws": ["aws", "sts", "get-caller-identity", "--no-sign-request", "--region", "us-east-1", "--endpoint-url", "{url}"],
    "uv": ["uv", "pip", "install", "--no-config", "--dry-run", "--target", "{scratch}", "--index-url", "{url}simple", "pip"],
    "npm": ["npm", "ping", "--registry", "{url}", "--fetch-retries", "0"],
}
UNTRUSTED = re.compile(r"certificate|self.signed|UNABLE_TO_|unknown ?issuer|SSL (routines|peer)|x509", re.IGNORECASE)


def probe(tool, url, environ, scratch):
    """Whether the tool trusts the host; None, or the line in which it says that it does not."""
    import subprocess

    argv = [word.format(url=url, scratch=scratch) for word in PROBES[tool]]
    environ = {**environ, "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines()]
    return next((line for line in lines if UNTRUSTED.search(line)), None)
