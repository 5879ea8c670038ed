"""Access to other systems: git, SSH, AWS, Gitea. The user's own files come first and are never written over."""

import contextlib
import functools
import os

from devbox import place, reason, say, user, write

SOCKETS_AND_LOCKS = ("agent", "control", "cm-", "S.")


def git_config(settings, found):
    """The text of git's lowest layer, included by /etc/gitconfig: a repository or ~/.gitconfig overrides all of it.

    The home that it lies in is the user's: root, too, would run what a repository's configuration names.
    """
    lines = []

    def section(title, **values):
        lines.append(f"[{title}]")
        lines.extend(f"\t{key} = {quote(value)}" for key, value in values.items() if value)

    if settings.given("GIT_USER_NAME") or settings.given("GIT_USER_EMAIL"):
        section("user", name=settings.text("GIT_USER_NAME"), email=settings.text("GIT_USER_EMAIL"))
    key = settings.text("GIT_SIGNING_KEY")
    if key:
        by_ssh = key.startswith(("ssh-", "ecdsa-", "sk-", "key::", "/", "~"))
        literal = by_ssh and not key.startswith(("key::", "/", "~"))
        section("user", signingkey=f"key::{key}" if literal else key)
        section("gpg", format="ssh" if by_ssh else "openpgp")
        section("commit", gpgsign="true")
        section("tag", gpgsign="true")
    # git refuses folders of another owner, as mounted ones often are; these were mounted on purpose.
    for path in sorted({place.WORKSPACE, *place.workspaces(found)}):
        lines.append("[safe]")
        lines.extend((f"\tdirectory = {quote(path)}", f"\tdirectory = {quote(path + '/*')}"))
    return "\n".join(lines) + "\n"


def quote(value):
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'"{escaped}"'


def git(settings, environ):
    text = git_config(settings, place.mounts())
    kept = f"{environ['HOME']}/.local/state/devbox"
    if place.writable(kept):
        # /etc/gitconfig includes this file, so that it also counts for `docker exec`.
        write(f"{kept}/gitconfig", text, 0o644)
    elif text and "XDG_RUNTIME_DIR" in environ and "GIT_CONFIG_SYSTEM" not in environ:
        path = f"{environ['XDG_RUNTIME_DIR']}/gitconfig"
        if write(path, f"[include]\n\tpath = /etc/gitconfig\n{text}"):
            environ["GIT_CONFIG_SYSTEM"] = path


def credential(settings, request):
    """Answers git's credential helper protocol: tokens for the hosts that they are meant for, and for no other."""
    asked = dict(line.split("=", 1) for line in request.splitlines() if "=" in line)
    if asked.get("protocol") != "https" and not _same_host(settings, asked):
        return ""
    if asked.get("host") == "github.com" and asked.get("protocol") == "https":
        token, user = settings.secret("GH_TOKEN"), "x-access-token"
    elif _same_host(settings, asked):
        token, user = settings.secret("GITEA_TOKEN"), "git"
    else:
        return ""
    return f"username={asked.get('username') or user}\npassword={token}\n" if token else ""


def _same_host(settings, asked):
    """Whether git asks for the Gitea of GITEA_URL: same protocol, host and port."""
    protocol, _, rest = settings.text("GITEA_URL").partition("://")
    return bool(rest) and (protocol, rest.split("/")[0]) == (asked.get("protocol"), asked.get("host"))


def copy_keys(settings, home, ids=None):
    """Copies a mounted ~/.ssh, whose owner and modes are the host's, to where ssh accepts it.

    ids: the user's, where root does this. Root reads only what the user could not have put there, and writes nothing.
    """
    source = settings.text("SSH_KEYS_PATH")
    if not os.path.isdir(source):
        if settings.given("SSH_KEYS_PATH"):
            say(f"SSH_KEYS_PATH={source}: no such folder; mount your ~/.ssh there, read-only")
        return
    as_user = functools.partial(user.acting_as, *ids) if ids else contextlib.nullcontext
    with as_user():
        users = os.access(source, os.W_OK, effective_ids=True) or user.movable(os.path.realpath(source))
    with as_user() if users else contextlib.nullcontext():
        found = list(_keys(source, f"{home}/.ssh"))
    with as_user():
        target = f"{home}/.ssh"
        try:
            os.makedirs(target, mode=0o700, exist_ok=True)
            os.chmod(target, 0o700)
        except OSError as error:
            say(f"cannot copy {source} to {target}: {reason(error)}; going on without these keys")
            return
        for name, content, modified in found:
            try:
                _put_key(f"{target}/{name}", content, modified)
            except OSError as error:
                say(f"cannot copy {source}/{name}: {reason(error)}; going on without this key")


def _keys(source, target):
    """Name, content and time of each file below a folder. Links count as what they lead to, but not out of the folder."""
    top = os.path.realpath(source)
    for parent, folders, names in os.walk(source, onerror=lambda error: say(f"cannot read {error.filename}: {reason(error)}")):
        folders[:] = sorted(name for name in folders if not name.startswith(SOCKETS_AND_LOCKS))
        for name in sorted(names):
            path = f"{parent}/{name}"
            relative = os.path.relpath(path, source)
            if name.startswith(SOCKETS_AND_LOCKS) or os.path.exists(path) and not os.path.isfile(path):
                continue
            if not os.path.realpath(path).startswith(f"{top}/"):
                say(f"{path} is a link out of the mounted folder: not copied; mount what it leads to as well, or put a copy in its place")
                continue
            try:
                with open(path, "rb") as file:
                    yield relative, file.read(), os.fstat(file.fileno()).st_mtime_ns
            except OSError as error:
                # Root, who could read it, may have copied it before.
                if not os.path.exists(f"{target}/{relative}"):
                    say(f"cannot copy {path}: {reason(error)}; going on without this key")


def _put_key(path, content, modified):
    if os.path.lexists(path) and (os.path.islink(path) or os.stat(path).st_mtime_ns != modified):
        # Changed here since it was copied: it is the user's now.
        return
    if b"usekeychain" in content.lower() and b"ignoreunknown" not in content.lower():
        # Apple's ssh alone knows the option, and any other stops at it.
        content = b"IgnoreUnknown UseKeychain\n" + content
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    user.replace(path, content, 0o600)
    os.utime(path, ns=(modified, modified))


def aws_config(settings):
    """A profile for IAM Identity Center, if all of it is given."""
    names = ("AWS_SSO_START_URL", "AWS_SSO_REGION", "AWS_SSO_ACCOUNT_ID", "AWS_SSO_ROLE_NAME")
    given = [name for name in names if settings.given(name)]
    if not given:
        return None
    missing = [name for name in names if name not in given]
    if missing:
        settings.tell(f"{given[0]} is set, but not {', '.join(missing)}: no AWS profile is made")
        return None
    url, region, account, role = (settings.text(name) for name in names)
    profile = settings.text("AWS_PROFILE") or "default"
    head = "default" if profile == "default" else f"profile {profile}"
    return (
        f"[{head}]\nsso_session = devbox\nsso_account_id = {account}\nsso_role_name = {role}\n"
        f"region = {settings.text('AWS_REGION') or region}\n\n"
        f"[sso-session devbox]\nsso_start_url = {url}\nsso_region = {region}\n"
        "sso_registration_scopes = sso:account:access\n"
    )


def aws(settings, environ):
    path = environ.get("AWS_CONFIG_FILE") or f"{environ['HOME']}/.aws/config"
    text = aws_config(settings)
    if text and not os.path.exists(path):
        write(path, text)
