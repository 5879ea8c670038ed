"""The words of opencode's command line: which of its commands they start, and where that will listen.

Written after opencode 1.18's own reading, which the smoke suite compares with: yargs looks for the command first, and
takes a word after an option that it does not know yet for the option's value.
"""

# They always open a port.
SERVERS = ("serve", "web", "acp")
# They talk to a server, so they need its password.
CLIENTS = ("attach", "run")
# Options that stand before any command; only these have no value.
SWITCHES = ("--print-logs", "--no-print-logs", "--pure", "--no-pure", "--help", "-h", "--version", "-v")
LOOPBACK = ("localhost", "::1", "[::1]")
ANY = "0.0.0.0"


def own(argv):
    """The words that opencode reads as options: those behind `--` are not."""
    return argv[: argv.index("--")] if "--" in argv else argv


def command(argv):
    """The first word that is no option and no option's value; None if there is none."""
    words = own(argv)
    at = 0
    while at < len(words):
        word = words[at]
        if not word.startswith("-") or word == "-":
            return word
        following = words[at + 1] if at + 1 < len(words) else "-"
        if word in SWITCHES:
            at += following in ("true", "false")
        elif "=" not in word and not following.startswith("-"):
            at += 1
        at += 1
    return None


def value(argv, option):
    """The value of an option, None if it is not given. opencode refuses one that is given twice."""
    words = own(argv)
    for at, word in enumerate(words):
        if word == option:
            return words[at + 1] if at + 1 < len(words) else ""
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


def mdns(argv):
    """Whether the server is announced on the network; None if the words do not say."""
    words = own(argv)
    found = None
    for at, word in enumerate(words):
        if word in ("--mdns", "--mdns=true"):
            found = words[at + 1 : at + 2] != ["false"]
        elif word in ("--no-mdns", "--mdns=false"):
            found = False
    return found


def listens(argv):
    """Whether these words open a port: a server's command, or the terminal interface with an option of the network."""
    name = command(argv)
    if name in SERVERS:
        return True
    by_option = value(argv, "--port") is not None or value(argv, "--hostname") is not None or mdns(argv) is True
    return by_option and name not in COMMANDS


def hostname(argv, server):
    """The address that it will listen on, given the section `server` of the user's configuration."""
    given = value(argv, "--hostname")
    if given is not None:
        return given
    told = mdns(argv)
    if command(argv) not in SERVERS:
        # The terminal interface takes these from its words alone.
        server = {}
    if server.get("hostname"):
        return str(server["hostname"])
    return ANY if (server.get("mdns") if told is None else told) else "127.0.0.1"


def is_loopback(address):
    return address.lower() in LOOPBACK or address.startswith("127.")


# All commands of opencode: with any other word it starts the terminal interface in the folder of that name.
COMMANDS = SERVERS + CLIENTS + tuple(
    "completion mcp debug providers auth agent upgrade uninstall models stats export import github pr session plugin plug db".split()
)
