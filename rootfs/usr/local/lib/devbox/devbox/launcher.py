"""Prints the launcher for the host, with the facts of the image that it comes from."""

import re

from devbox import say, versions

LAUNCHER = "/usr/share/devbox/opencode-devbox"
# What a registry, a port and a path are made of; anything else could be a command for the shell that reads the file.
IMAGE = re.compile(r"[a-z0-9][a-z0-9._-]*(:[0-9]+)?(/[a-z0-9][a-z0-9._-]*)*")


def main(argv):
    match argv:
        case []:
            image = ""
        case ["--image", image] if IMAGE.fullmatch(image):
            pass
        case ["--image", image]:
            say(f"launcher --image {image}: expected a repository in lower case, without tag")
            return 64
        case _:
            say("usage: launcher [--image REPOSITORY]")
            return 64
    with open(LAUNCHER, encoding="utf-8") as file:
        print(stamped(file.read(), image, versions.components()), end="")
    return 0


def stamped(text, image, components):
    """The launcher with its origin: repository, variant, and the versions of what is in the image."""
    facts = {
        "origin_image": image,
        "origin_variant": variant(text, {fact["name"] for fact in components}),
        "origin_versions": "\n".join(f"{fact['name']} {fact['version']}" for fact in components),
    }
    for name, value in facts.items():
        value = value.replace("'", "")
        text = re.sub(f"^{name}=''$", lambda _, line=f"{name}='{value}'": line, text, count=1, flags=re.MULTILINE)
    return text


def variant(text, present):
    """The variant with the most components, all of which are in this image."""
    rows = re.findall(r"^(?:variants=')?([a-z0-9-]+)\|[^|\n]*\|([a-z0-9 -]+)'?$", text, re.MULTILINE)
    fitting = [(len(components.split()), name) for name, components in rows if set(components.split()) <= present]
    return max(fitting, default=(0, ""))[1]
