"""The greeting of an interactive shell: what this is, what will last, what is missing. Few lines, no waiting."""

import os
import shutil

from devbox import place, update, versions


def lines(settings, environ, mounts, components):
    parts = [f"{fact['name']} {fact['version']}" for fact in components if fact["name"] in ("opencode", "omos", "pi")]
    yield "opencode-devbox: " + (", ".join(parts) or "the base, without an agent")
    mounted = [v["name"] for v in settings.table["volume"] if place.covered(v["path"], mounts)]
    work = place.workspaces(mounts)
    yield f"  mounted: {', '.join(work + mounted) or 'nothing'}"
    gone = lost(settings, mounts)
    if gone:
        yield f"  lost with this container: {', '.join(gone)}"
    if not work:
        yield '  no workspace: start with -v "$PWD:/workspace"'
    for path, remedy, wins in shadows(environ):
        yield f"  {path} {SHADOW[wins]}: {remedy}"
    if not keys(settings, environ):
        yield "  no provider key: set one, such as ANTHROPIC_API_KEY or ANTHROPIC_API_KEY_FILE, or run `opencode auth login`"
    yield "  `devbox doctor` checks everything; DEVBOX_GREETING=off silences this"


def lost(settings, mounts):
    """Folders with state that nothing is mounted on, as a person would write them."""
    return [v["path"].replace(place.HOME, "~") for v in settings.table["volume"] if not place.covered(v["path"], mounts)]


# npm's names of the packages that bring the image's programs.
PACKAGES = {"opencode": "opencode-ai", "pi": "@earendil-works/pi-coding-agent", "oh-my-opencode-slim": "oh-my-opencode-slim", "bun": "bun"}
IMAGE = "/usr/local/bin"
SHADOW = {True: "runs instead of the image's own", False: "is not used, since the image has its own"}


def shadows(environ):
    """Path of each agent that the user has installed although the image has one, how to remove it, and whether it runs."""
    for name, package in PACKAGES.items():
        if not os.path.exists(f"{IMAGE}/{name}"):
            continue
        runs = shutil.which(name, path=environ.get("PATH"))
        for folder in place.PROGRAMS:
            path = f"{environ['HOME']}/{folder}/{name}"
            if os.path.lexists(path):
                remedy = f"npm uninstall -g {package}" if "npm-global" in folder else f"rm {path}"
                yield path, f"`{remedy}` removes it", runs == path


def keys(settings, environ):
    """Whether any provider can be used: a key, an AWS profile, or a login that opencode or pi keeps."""
    data = environ.get("XDG_DATA_HOME") or f"{environ['HOME']}/.local/share"
    logins = (f"{data}/opencode/auth.json", f"{environ['HOME']}/.pi/agent/auth.json")
    by_key = any(settings.has(variable["name"]) for variable in settings.providers())
    return by_key or settings.given("AWS_PROFILE") or any(os.path.exists(path) for path in logins)


def main(settings, environ, updated):
    for line in lines(settings, environ, place.mounts(), versions.components()):
        print(line, flush=True)
    if updated:
        print(f"  new since the last start: {', '.join(updated)}", flush=True)
    if settings.switch("DEVBOX_UPDATE_NOTICE"):
        notice = update.known(environ)
        if notice:
            print(f"  {notice}", flush=True)
        update.refresh(environ)
