"""What the registry has under the floating tag of this image's variant, and which release that is."""

import platform
import re
import threading

from devbox.guard import key as order
from devbox.registry import Repository, Unknown

KEY = "opencode-devbox.key"
OPENCODE = "opencode-devbox.version.opencode"
VERSION = re.compile(r"\d+\.\d+\.\d+[0-9A-Za-z.-]*")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# For all requests together, a name server that does not answer included.
SECONDS = 40


def releases(tags, suffix):
    """The releases of a variant among tags, newest first: v1.2.3 is the first of a version, v1.2.3b the second."""
    found = [match for match in (re.fullmatch(rf"v(\d+\.\d+\.\d+)([b-z]?){re.escape(suffix)}", tag) for tag in tags) if match]
    found.sort(key=lambda match: (order(match[1]), match[2]), reverse=True)
    return [(match[0], match[1]) for match in found]


def release_of(repository, digest, version, suffix):
    """The newest release tag with that digest, and nothing where none has it or the registry does not tell."""
    try:
        candidates = [tag for tag, of in releases(repository.tags(), suffix) if version in (None, of)]
        return next((tag for tag in candidates[:10] if repository.digest(tag) == digest), None)
    except Unknown:
        return None


def ask(me, name):
    """What the floating tag of this image's variant holds: key, opencode's version, and the release that it is."""
    repository = Repository(name)
    digest, labels = repository.labels(me["tag"], ARCHITECTURES.get(platform.machine(), platform.machine()))
    if KEY not in labels:
        raise Unknown(f"{name}:{me['tag']} does not name its content key, as images of this project do")
    version = labels.get(OPENCODE)
    if not isinstance(version, str) or not VERSION.fullmatch(version):
        version = None
    release = release_of(repository, digest, version, me["tag"].removeprefix("latest"))
    return {"key": labels[KEY], "version": version, "release": release}


def bounded(function, *arguments):
    """The result of a function that may wait for the network, within SECONDS."""
    results = []

    def run():
        try:
            results.append((function(*arguments), None))
        except Exception as error:
            # Raised again where it is waited for.
            results.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(SECONDS)
    if not results:
        raise Unknown(f"no answer within {SECONDS} seconds")
    result, error = results[0]
    if error:
        raise error
    return result
