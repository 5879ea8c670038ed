"""opencode's configuration as layers, and which layer each value comes from.

From low to high, as opencode merges them: the user's files, the layer that is generated here, the project's files,
OPENCODE_CONFIG_CONTENT, /etc/opencode. opencode has no layer below the user's; so what the image proposes is left out
of the generated one where the user's files say something of their own, and what the environment says stays in.
"""

import json
import os
import re

from devbox import say, write

SCHEMA = "https://opencode.ai/config.json"
POLICY = "/etc/opencode"
OMOS = "/opt/omos/node_modules/oh-my-opencode-slim"
# Loaded after oh-my-opencode-slim, whose servers it switches off where the environment says so.
SWITCHES_PLUGIN = "file:///usr/local/lib/devbox/switches.js"
LAYER = "opencode.json"


def parse(text):
    """JSON with comments and trailing commas, as opencode takes it."""
    # A string, or a comment: strings come first, so that what looks like a comment in one stays.
    plain = re.sub(
        r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', lambda match: match[1] or " ", text.removeprefix("\ufeff"), flags=re.DOTALL
    )
    plain = re.sub(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])', lambda match: match[1] or "", plain)
    found = json.loads(plain or "{}")
    if not isinstance(found, dict):
        raise ValueError("expected an object")
    return found


def read(path, tell=say):
    """The file's content; None if there is none. An unreadable file is reported, since opencode refuses it too."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        # Paths in it are relative to it, and the layer that it becomes part of lies elsewhere.
        folder = os.path.dirname(os.path.abspath(path))
        return parse(re.sub(r"\{file:(?![/~])", lambda _: f"{{file:{folder}/", text))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        tell(f"{path}: not valid JSON: {error}" if isinstance(error, ValueError) else f"{path}: {error.strerror}")
        return None


def merge(low, high):
    """opencode's rule: objects by key, plugins and instructions added up, all else replaced."""
    merged = dict(low)
    for key, value in high.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[key] = merge(old, value)
        elif key in ("plugin", "instructions") and isinstance(old, list) and isinstance(value, list):
            merged[key] = old + [item for item in value if item not in old]
        else:
            merged[key] = value
    return merged


def user_files(environ):
    folder = (environ.get("XDG_CONFIG_HOME") or f"{environ['HOME']}/.config") + "/opencode"
    return [f"{folder}/{name}" for name in ("config.json", "opencode.json", "opencode.jsonc")]


def project_files(folder):
    """From the top of the work tree down to the folder, then those in .opencode folders."""
    chain = []
    current = os.path.abspath(folder)
    while True:
        chain.insert(0, current)
        parent = os.path.dirname(current)
        if os.path.exists(f"{current}/.git") or parent == current:
            break
        current = parent
    names = ("opencode.json", "opencode.jsonc")
    return [f"{f}/{n}" for f in chain for n in names] + [f"{f}/.opencode/{n}" for f in chain for n in names]


def generated_path(environ):
    folder = environ.get("XDG_RUNTIME_DIR")
    return f"{folder}/{LAYER}" if folder else None


def proposals(settings, which):
    """What the image proposes: MCP servers that are there, oh-my-opencode-slim. The user's files may say otherwise."""
    proposed = {"mcp": {}}
    if which("mempalace-mcp"):
        proposed["mcp"]["mempalace"] = {"type": "local", "command": ["mempalace-mcp"], "enabled": True}
    if which("gitea-mcp") and settings.given("GITEA_URL") and settings.has("GITEA_TOKEN"):
        proposed["mcp"]["gitea"] = {
            "type": "local",
            "command": ["gitea-mcp", "-t", "stdio", "--host", settings.text("GITEA_URL")],
            "environment": {"GITEA_ACCESS_TOKEN": reference(settings, "GITEA_TOKEN")},
            "enabled": True,
        }
    context7 = {"type": "remote", "url": "https://mcp.context7.com/mcp", "enabled": True}
    if settings.has("CONTEXT7_API_KEY"):
        context7["headers"] = {"CONTEXT7_API_KEY": reference(settings, "CONTEXT7_API_KEY")}
    proposed["mcp"]["context7"] = context7
    if os.path.isdir(OMOS):
        proposed["plugin"] = [f"file://{OMOS}", SWITCHES_PLUGIN]
    return proposed


def reference(settings, name):
    """How opencode gets a secret without any process carrying it in its environment."""
    path = settings.secret_file(name)
    return f"{{file:{path}}}" if path and not settings.given(name) else f"{{env:{name}}}"


# The switch of each server, by the server's name.
SWITCHES = {"mempalace": "DEVBOX_MCP_MEMPALACE", "gitea": "DEVBOX_MCP_GITEA", "context7": "DEVBOX_MCP_CONTEXT7"}


def generate(settings, others, which):
    """The generated layer, given what the other layers' files say."""
    proposed = proposals(settings, which)
    layer = {"$schema": SCHEMA, "mcp": {}}
    for name, server in proposed["mcp"].items():
        if not settings.switch(SWITCHES[name]):
            known = name in others.get("mcp", {})
            layer["mcp"][name] = {"enabled": False} if known else {**server, "enabled": False}
        elif name not in others.get("mcp", {}) or settings.given(SWITCHES[name]):
            layer["mcp"][name] = server
    taken = any("oh-my-opencode-slim" in str(plugin) for plugin in others.get("plugin", []))
    if "plugin" in proposed and not taken and settings.switch("DEVBOX_OMOS"):
        layer["plugin"] = proposed["plugin"]
    for key, name in (("model", "DEVBOX_MODEL"), ("small_model", "DEVBOX_SMALL_MODEL")):
        if settings.given(name):
            layer[key] = settings.text(name)
    providers = {}
    for variable in settings.providers():
        if settings.secret_file(variable["name"]) and not settings.given(variable["name"]):
            key = {"apiKey": reference(settings, variable["name"])}
            providers[variable["provider"]["opencode"]] = {"options": key}
    if providers:
        layer["provider"] = providers
    return layer


def layers(settings, environ, folder, which):
    """Name and content of each layer, from low to high."""
    found = [(path, read(path)) for path in user_files(environ)]
    custom = environ.get("OPENCODE_CONFIG")
    custom = read(custom) if custom and custom != generated_path(environ) else None
    above = [(path, read(path)) for path in project_files(folder)]
    try:
        content = parse(environ.get("OPENCODE_CONFIG_CONTENT", ""))
    except ValueError as error:
        say(f"OPENCODE_CONFIG_CONTENT: not valid JSON: {error}")
        content = None
    above.append(("OPENCODE_CONFIG_CONTENT", content))
    others = {}
    for _, layer in found + [("", custom)] + above:
        others = merge(others, layer or {})
    found.append(("the environment and the image", generate(settings, others, which)))
    found.append(("OPENCODE_CONFIG", custom))
    found += above
    found += [(path, read(path)) for path in (f"{POLICY}/opencode.json", f"{POLICY}/opencode.jsonc")]
    return [(name, layer) for name, layer in found if layer]


def apply(settings, environ, folder, which):
    """Writes the generated layer, and the user's OPENCODE_CONFIG over it, where OPENCODE_CONFIG then points."""
    path = generated_path(environ)
    if path is None:
        say("no folder for the generated configuration: opencode runs with your own files only")
        return
    layer = {}
    for name, content in layers(settings, environ, folder, which):
        if name in ("the environment and the image", "OPENCODE_CONFIG"):
            layer = merge(layer, content)
    if write(path, json.dumps(layer, indent=2) + "\n"):
        environ["OPENCODE_CONFIG"] = path


def origins(found):
    """Each value of the merged configuration by its dotted path: the value and the names of its layers."""
    values = {}

    def walk(prefix, value, name):
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else key, inner, name)
            return
        if isinstance(value, list) and prefix.split(".")[-1] in ("plugin", "instructions") and prefix in values:
            old, names = values[prefix]
            values[prefix] = (old + [item for item in value if item not in old], f"{names}, {name}")
            return
        for path in [path for path in values if path.startswith(f"{prefix}.")]:
            del values[path]
        values[prefix] = (value, name)

    for name, layer in found:
        walk("", layer, name)
    values.pop("$schema", None)
    return values


def show(settings, environ, folder, which):
    values = origins(layers(settings, environ, folder, which))
    if not values:
        print("no configuration at all")
    for path in sorted(values):
        value, name = values[path]
        print(f"{path} = {json.dumps(value)}  # {name}")
    print(f"# the user's own file: {user_files(environ)[1]} (or .jsonc), which the image never writes")
    return 0
