"""The `devbox` command, and the other names that the same program has."""

import os
import shutil
import sys

from devbox import say

USAGE = """usage: devbox COMMAND
  doctor [--wait S]  check mounts, keys, MCP servers, network and more; exit code 1 if something is broken.
                     A server gets 30 seconds to answer, or S
  versions [--json]  what is in the image: version, licence, digest, source; with --json every package
  licences [NAME]    the licence of every package, or the text of one; --json lists the files that hold the texts
  config show        opencode's configuration, and where each value comes from
  update-check       whether a newer image is out: 0 no, 10 yes, 3 cannot tell
  verify             how to verify this image and its signature from outside
  launcher           print opencode-devbox, the program that starts this image on the host:
                     docker run --rm IMAGE launcher > ~/.local/bin/opencode-devbox
  aws-login [ARG…]   log in to AWS IAM Identity Center with a code that you enter in any browser
  shell [ARG…]       a shell as the container's user, for `docker exec -it NAME devbox shell`
  egress HOST…       a proxy that lets TLS through to these hosts only, for `opencode-devbox --egress allowlist`
  forward PORT…      let the host reach what listens on this container's 127.0.0.1, such as a login's callback
  setup              apply the environment again; the entrypoint does this at each start
  health             what the image's HEALTHCHECK asks"""


def main(name, argv):
    if name == "devbox-entrypoint":
        from devbox import start

        return start.main(argv)
    if name in ("opencode", "pi") or name.startswith("mempalace"):
        from devbox import launch

        return launch.main(name, argv)
    return command(argv)


def command(argv):
    match argv:
        case ["doctor"]:
            from devbox import doctor

            return doctor.main(*session())
        case ["doctor", "--wait", seconds] if seconds.isdecimal():
            from devbox import doctor

            return doctor.main(*session(), int(seconds))
        case ["versions"] | ["versions", "--json"]:
            from devbox import versions

            return versions.main(len(argv) == 2)
        case ["licences"] | ["licences", "--json"]:
            from devbox import licences

            return licences.list_all(len(argv) == 2)
        case ["licences", name] if not name.startswith("-"):
            from devbox import licences

            return licences.show(name)
        case ["config", "show"]:
            from devbox import config

            return config.show(*session(), os.getcwd(), shutil.which)
        case ["update-check"]:
            from devbox import update

            return update.check(session()[1])
        case ["verify"]:
            from devbox import verify

            return verify.main()
        case ["launcher", *rest]:
            from devbox import launcher

            return launcher.main(rest)
        case ["aws-login", *rest]:
            from devbox import start

            settings, environ = session()
            return start.become(["aws", "sso", "login", "--use-device-code", "--no-browser", *rest], environ)
        case ["setup"]:
            from devbox import start

            start.setup(*session())
            return 0
        case ["egress", *hosts]:
            from devbox import egress

            return egress.main(hosts)
        case ["forward", *ports]:
            from devbox import network

            if not network.are_ports(ports):
                return 64
            session()
            return network.forward(ports)
        case ["shell", *rest]:
            from devbox import start

            return start.become(["/bin/bash", "-l", *rest], session()[1])
        case ["health"]:
            from devbox import health

            return health.main()
        case ["foreground", *rest]:
            from devbox import start

            return start.foreground(rest)
        case ["credential", action]:
            return credential(action)
        case ["--help"] | ["-h"] | ["help"]:
            print(USAGE)
            return 0
    return refuse(argv)


# What each command that takes a fixed kind of arguments expects.
EXPECTED = {
    "doctor": "nothing or --wait SECONDS",
    "versions": "nothing or --json",
    "licences": "nothing, --json or the name of a package",
    "config": "show",
    "credential": "one action",
}


def refuse(argv):
    """One line about words that are no command, with the one that lists them."""
    # Only here, since every start would pay for them.
    import difflib
    import re

    if not argv:
        print(USAGE, file=sys.stderr)
        return 64
    name = argv[0]
    if f"\n  {name} " in USAGE or name in EXPECTED:
        say(f"{' '.join(argv)}: expected {EXPECTED.get(name, 'nothing')} after {name}")
    else:
        near = difflib.get_close_matches(name, re.findall(r"^  ([a-z-]+)", USAGE, re.MULTILINE), 1)
        say(f"{name}: no such command; {f'did you mean {near[0]}?' if near else '`devbox --help` lists them'}")
    return 64


def session():
    """Settings and environment of the user, also for a root who came in with `docker exec`."""
    from devbox import launch, place
    from devbox.table import Settings

    environ = dict(os.environ)
    if os.getuid() == 0:
        launch.as_user(environ)
    place.prepare(environ)
    os.environ.update(environ)
    return Settings(environ), environ


def credential(action):
    """git's credential helper; only `get` has an answer, since nothing is kept."""
    from devbox import access
    from devbox.table import Settings

    request = sys.stdin.read()
    if action == "get":
        sys.stdout.write(access.credential(Settings(dict(os.environ)), request))
    return 0


def run():
    try:
        return main(os.path.basename(sys.argv[0]), sys.argv[1:])
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has closed the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:
        say(f"{error.filename or error}: {error.strerror}")
        return 1
