"""Asks a registry for tags, digests and labels (OCI distribution-spec), anonymously, with a token where it wants one.

Nothing is sent but names. Every answer has a limit of time and of size, since a proxy or a login page may be in its place.
"""

import hashlib
import http.client
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request

INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
SECONDS = 10
BYTES = 4 << 20
PAGES = 50
NAME = re.compile(r"[a-z0-9][a-z0-9.-]*(:[0-9]+)?(/[a-z0-9][a-z0-9._-]*)*")


class Unknown(Exception):
    """The registry did not give an answer that can be used; the message tells why."""


class Absent(Unknown):
    """The registry says that it does not have it."""


class Repository:
    def __init__(self, name):
        if not NAME.fullmatch(name):
            raise Unknown(f"{name} is no repository: expected a name in lower case without a tag, such as ghcr.io/you/opencode-devbox")
        host, _, path = name.partition("/")
        if not path or not (re.search("[.:]", host) or host == "localhost"):
            host, path = "docker.io", name
        if host in ("docker.io", "index.docker.io"):
            # Its registry has another host than its names.
            host, path = "registry-1.docker.io", path if "/" in path else f"library/{path}"
        scheme = "http" if re.fullmatch(r"(localhost|127\.[0-9.]+)(:[0-9]+)?", host) else "https"
        self.name, self.host, self.path, self.root = name, host, path, f"{scheme}://{host}"
        self.token = None

    def digest(self, tag):
        """The digest that a tag has now; the request counts as no pull."""
        headers, _ = self._get(f"manifests/{tag}", INDEXES + MANIFESTS, method="HEAD")
        found = headers.get("Docker-Content-Digest", "")
        if not found.startswith("sha256:"):
            raise Unknown(f"{self.host} does not name the digest of {tag}")
        return found

    def labels(self, tag, architecture):
        """The digest of a tag and the labels of its image for an architecture."""
        headers, body = self._get(f"manifests/{tag}", INDEXES + MANIFESTS)
        digest = headers.get("Docker-Content-Digest") or f"sha256:{hashlib.sha256(body).hexdigest()}"
        manifest = _object(body, f"the manifest of {tag}")
        if isinstance(manifest.get("manifests"), list):
            fitting = [it for it in manifest["manifests"] if _is_for(it, architecture)]
            if not fitting:
                raise Unknown(f"{tag} has no image for {architecture}")
            _, body = self._get(f"manifests/{fitting[0].get('digest')}", MANIFESTS)
            manifest = _object(body, f"the manifest of {tag}")
        config = manifest.get("config")
        name = config.get("digest") if isinstance(config, dict) else None
        if not isinstance(name, str) or not re.fullmatch("sha256:[0-9a-f]{64}", name):
            raise Unknown(f"{self.host} answers with something other than an image for {tag}")
        _, body = self._get(f"blobs/{name}", ())
        settings = _object(body, f"the configuration of {tag}").get("config")
        labels = settings.get("Labels") if isinstance(settings, dict) else None
        return digest, labels if isinstance(labels, dict) else {}

    def tags(self):
        """All tags, page by page."""
        found, url = [], "tags/list?n=1000"
        for _ in range(PAGES):
            headers, body = self._get(url, ())
            page = _object(body, "the list of tags").get("tags")
            found += [tag for tag in page or [] if isinstance(tag, str)] if isinstance(page, list) else []
            following = re.search(r'<([^>]*)>\s*;[^,]*rel="?next"?', headers.get("Link") or "")
            if not following:
                break
            url = urllib.parse.urljoin(f"{self.root}/v2/{self.path}/tags/list", following[1])
            if not url.startswith(f"{self.root}/"):
                # The token is for this host only.
                break
        return found

    def _get(self, what, accept, method="GET"):
        url = what if what.startswith("http") else f"{self.root}/v2/{self.path}/{what}"
        try:
            return self._ask(url, accept, method)
        except _Challenge as challenge:
            self.token = self._authorize(challenge)
        try:
            return self._ask(url, accept, method)
        except _Challenge:
            raise Unknown(f"{self.host} wants a login for {self.path}") from None

    def _authorize(self, challenge):
        fields = dict(re.findall(r'([a-z]+)="([^"]*)"', challenge.text))
        realm = fields.pop("realm", "")
        if not challenge.text.lower().startswith("bearer ") or not realm.startswith(("https://", f"{self.root}/", "http://127.", "http://localhost")):
            raise Unknown(f"{self.host} wants a login for {self.path}")
        query = {"service": fields.get("service", ""), "scope": fields.get("scope") or f"repository:{self.path}:pull"}
        try:
            _, body = self._ask(f"{realm}{'&' if '?' in realm else '?'}{urllib.parse.urlencode(query)}", (), "GET", token=None)
        except _Challenge:
            raise Unknown(f"{self.host} wants a login for {self.path}") from None
        answer = _object(body, "the token")
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str) or not token.isprintable():
            raise Unknown(f"{self.host} gives no token for {self.path}")
        return token

    def _ask(self, url, accept, method, **other):
        request = urllib.request.Request(url, method=method, headers={"Accept": ", ".join(accept) or "*/*", "User-Agent": "opencode-devbox"})
        token = other.get("token", self.token)
        if token:
            # Not for the storage that a registry sends on to, which refuses a second authorization.
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        host = urllib.parse.urlsplit(url).netloc
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                return answer.headers, b"" if method == "HEAD" else _read(answer, host)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 401:
                raise _Challenge(error.headers.get("WWW-Authenticate") or "") from None
            if error.code == 404:
                raise Absent(f"{host} has no {url.rpartition('/')[2]} of {self.path}") from None
            raise Unknown(f"{host} answers {error.code} {error.reason}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            cause = getattr(error, "reason", error)
            raise Unknown(f"{host}: {getattr(cause, 'strerror', None) or cause or type(cause).__name__}") from None


class _Challenge(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.text = text


def _read(answer, host):
    """The body, unless it is too large or comes too slowly."""
    end, parts, size = time.monotonic() + SECONDS, [], 0
    while part := answer.read1(65536):
        parts.append(part)
        size += len(part)
        if size > BYTES or time.monotonic() > end:
            raise Unknown(f"{host}: the answer is too {'large' if size > BYTES else 'slow'}")
    return b"".join(parts)


def _object(body, what):
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Unknown(f"{what} is not what a registry answers")
    return found


def _is_for(entry, architecture):
    platform = entry.get("platform") if isinstance(entry, dict) else None
    return isinstance(platform, dict) and (platform.get("os"), platform.get("architecture")) == ("linux", architecture)
