"""How to verify this image. An image cannot vouch for itself, so this prints commands for another machine."""

import os

from devbox import say, update

# What Go, and with it cosign and crane, calls the machines that the image is built for.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

COMMANDS = """An image cannot vouch for itself: run this where you start it, with cosign.pub from the project's Git repository.

# The key has signed this tag:
cosign verify --key cosign.pub --insecure-ignore-tlog=true -a variant={variant} {repository}:{tag}
# How it was built, and which checks it has passed:
cosign verify-attestation --key cosign.pub --insecure-ignore-tlog=true --type slsaprovenance1 {repository}:{tag} | {read}
cosign verify-attestation --key cosign.pub --insecure-ignore-tlog=true --type https://in-toto.io/attestation/test-result/v0.1 {repository}:{tag} | {read}
# What it contains on this platform, as CycloneDX (SPDX: --type spdxjson):
cosign verify-attestation --key cosign.pub --insecure-ignore-tlog=true --type cyclonedx {repository}@$(crane digest --platform linux/{arch} {repository}:{tag}) | {read}
# What you run has the digest that cosign has printed:
docker image inspect --format '{{{{json .RepoDigests}}}}' {repository}:{tag}
# The address of the Git repository, as the image states it:
docker image inspect --format '{{{{index .Config.Labels "org.opencontainers.image.source"}}}}' {repository}:{tag}"""


# The predicate of a statement that cosign prints.
READ = "jq -r .payload | base64 -d | jq .predicate"


def main():
    """`devbox verify`: 0, or 3 for an image that no release has built."""
    me = update.identity()
    if me is None:
        say(f"nothing to verify: this image has no {update.IDENTITY}, so no release has built and signed it")
        return 3
    machine = os.uname().machine
    print(COMMANDS.format(**me, read=READ, arch=ARCHITECTURES.get(machine, machine)))
    return 0
