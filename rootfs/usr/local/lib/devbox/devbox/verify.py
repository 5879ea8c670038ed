"""How to verify this image. An image cannot vouch for itself, so this prints commands for another machine."""

from devbox import say, update

COMMANDS = """An image cannot vouch for itself: run this where you start it, with cosign.pub from the project's Git repository.

# The key has signed this tag:
cosign verify --key cosign.pub --insecure-ignore-tlog=true -a variant={variant} {repository}:{tag}
# What you run has the digest that cosign has printed:
docker image inspect --format '{{{{json .RepoDigests}}}}' {repository}:{tag}
# The address of the Git repository, as the image states it:
docker image inspect --format '{{{{index .Config.Labels "org.opencontainers.image.source"}}}}' {repository}:{tag}"""


def main():
    """`devbox verify`: 0, or 3 for an image that no release has built."""
    me = update.identity()
    if me is None:
        say(f"nothing to verify: this image has no {update.IDENTITY}, so no release has built and signed it")
        return 3
    print(COMMANDS.format(**me))
    return 0
