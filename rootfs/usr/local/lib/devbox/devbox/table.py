"""The table of environment variables and volumes, and what the environment says of each."""

import json
import os
import re

from devbox import Refusal, place, reason, say

TABLE = os.environ.get("DEVBOX_TEST_TABLE", "/usr/share/devbox/environment.json")
# The one above means "no id" to the kernel.
LAST_ID = 2**32 - 2
OCTAL = re.compile("0?[0-7]{3}")
SWITCH = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}

# The form of values that are used as they are, and what is expected.
PORT = "[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
MODEL = (r"[^/\s]+/\S+", "PROVIDER/MODEL")
FORMS = {
    "DEVBOX_MODEL": MODEL,
    "DEVBOX_SMALL_MODEL": MODEL,
    "DEVBOX_CALLBACK_PORTS": (rf"({PORT})([ ,]+({PORT}))*", "ports from 1 to 65535, such as 1455 19876"),
    "DEVBOX_UPDATE_REPOSITORY": (r"[a-z0-9][a-z0-9.-]*(:[0-9]+)?(/[a-z0-9][a-z0-9._-]*)*", "a repository in lower case, without tag"),
    "GITEA_URL": (r"https?://[^/\s]+(/\S*)?", "an address such as https://git.example.org"),
}


def load(path=None):
    path = path or TABLE
    with open(path, "rb") as file:
        if path.endswith(".json"):
            # The build makes it from the other.
            return json.load(file)
        import tomllib

        return tomllib.load(file)


class Settings:
    """Values by name, checked. A wrong value is said once, and the default is used; only ids refuse to start."""

    def __init__(self, environ, table=None, tell=say):
        self.environ = environ
        self.table = table or load()
        self.tell = tell
        self.variables = {variable["name"]: variable for variable in self.table["variable"]}
        self.cleaned = [name for name in list(environ) if self._clean(name)]

    def _clean(self, name):
        """Takes away what `docker run --env-file` leaves: quotes around a value, a carriage return after it."""
        value = self.environ[name]
        plain = value.rstrip("\r\n")
        known = name in self.variables or name.removesuffix("_FILE") in self.variables or name.lower().endswith("_proxy")
        if known and len(plain) > 1 and plain[0] == plain[-1] and plain[0] in "\"'":
            plain = plain[1:-1]
        if not known and not value.endswith("\r") or plain == value:
            return False
        self.environ[name] = plain
        return True

    def text(self, name):
        return self.environ.get(name) or self.variables[name].get("default", "")

    def given(self, name):
        """Whether somebody set it, rather than the default."""
        return bool(self.environ.get(name))

    def has_form(self, name):
        return name not in FORMS or bool(re.fullmatch(FORMS[name][0], self.text(name)))

    def switch(self, name):
        default = SWITCH[self.variables[name]["default"]]
        return SWITCH.get(self.environ.get(name, "").lower(), default)

    def id(self, name):
        value = self.text(name)
        if re.fullmatch(r"[0-9]{1,10}", value) and (0 < int(value) <= LAST_ID or int(value) == 0 and place.root_is_a_user()):
            return int(value)
        option = "-u" if name == "PUID" else "-g"
        raise Refusal(f"{name}={value}: expected a number from 1 to {LAST_ID}; give the id of your user, `id {option}`")

    def umask(self):
        """The mask of new files, as a number; a wrong one has been reported by `check`."""
        value = self.text("UMASK")
        return int(value if OCTAL.fullmatch(value) else self.variables["UMASK"]["default"], 8)

    def secret_file(self, name):
        """The file that holds a secret, if it was given so and can be read."""
        path = self.environ.get(f"{name}_FILE")
        if not path:
            return None
        # The second is the copy that the start makes of a file that only root can read.
        for file in (path, f"{place.runtime()}/{name}"):
            if os.path.isfile(file) and os.access(file, os.R_OK):
                return file
        return None

    def secret(self, name):
        """A secret's value, for the one process that needs it."""
        if self.environ.get(name):
            return self.environ[name]
        path = self.secret_file(name)
        if path is None:
            return None
        try:
            with open(path, encoding="utf-8") as file:
                return file.read().strip() or None
        except (OSError, UnicodeDecodeError):
            # Reported by the start.
            return None

    def has(self, name):
        return self.given(name) or self.secret_file(name) is not None

    def providers(self):
        return [variable for variable in self.table["variable"] if "provider" in variable]

    def check(self):
        """Reports what is wrong with the environment, a line each; nothing of it keeps the container from starting."""
        for name in self.cleaned:
            self.tell(f"{name}: using the value without its quotes or line end, which --env-file takes literally")
        for name, variable in self.variables.items():
            value = self.environ.get(name, "")
            if variable["kind"] == "switch" and value and value.lower() not in SWITCH:
                self.tell(f"{name}={value}: expected on or off; going on with {variable['default']}")
            if variable["kind"] == "secret":
                self._check_file(name)
            if value and not self.has_form(name):
                self.tell(f"{name}={value}: expected {FORMS[name][1]}")
        self._check_unknown()
        if not OCTAL.fullmatch(self.text("UMASK")):
            self.tell(f"UMASK={self.text('UMASK')}: expected three octal digits, such as 002; going on with 022")
        zone = self.environ.get("TZ", "")
        if zone and not re.fullmatch(r"[A-Z]{3,4}(-?[0-9].*)?", zone) and not _zone_exists(zone):
            self.tell(f"TZ={zone}: no such time zone; give one like Europe/Stockholm. Going on with UTC")
            self.environ["TZ"] = "UTC"

    def _check_file(self, name):
        path = self.environ.get(f"{name}_FILE")
        if not path:
            return
        try:
            with open(path, encoding="utf-8") as file:
                if not file.read(4096).strip():
                    self.tell(f"{name}_FILE={path}: the file is empty; going on without this key")
        except UnicodeDecodeError:
            self.tell(f"{name}_FILE={path}: is not text; going on without this key")
        except OSError as error:
            uid = os.getuid()
            self.tell(f"{name}_FILE={path}: {reason(error)}; going on without this key, user {uid} has to be able to read it")

    def _check_unknown(self):
        ours = [name for name in self.variables if name.startswith("DEVBOX_")]
        for name in self.environ:
            internal = name == "DEVBOX_MCP_OFF" or name.startswith("DEVBOX_TEST_")
            if name.startswith("DEVBOX_") and not internal and name not in self.variables:
                import difflib  # only here, since every start would pay for it

                near = difflib.get_close_matches(name, ours, 1)
                hint = f"did you mean {near[0]}?" if near else "the known ones are in the README"
                self.tell(f"{name}: there is no such variable; {hint}")


def _zone_exists(zone):
    return ".." not in zone and os.path.isfile(f"/usr/share/zoneinfo/{zone.removeprefix(':')}")
