"""Access to other systems: git, SSH, AWS, Gitea. The user's own files come first and are never written over."""

import os
import shutil

from devbox import place, reason, say, write

SOCKETS_AND_LOCKS = ("agent", "control", "cm-", "S.")


def git_config(settings, found):
    """The text of git's lowest layer, included by /etc/gitconfig: a repository or ~/.gitconfig overrides all of it."""
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
    for path in place.workspaces(found):
        lines.append("[safe]")
        lines.extend((f"\tdirectory = {quote(path)}", f"\tdirectory = {quote(path + '/*')}"))
    return "\n".join(lines) + "\n" if lines else ""


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


def copy_keys(settings, home, owner):
    """Copies a mounted ~/.ssh, whose owner and modes are the host's, to where ssh accepts it."""
    source = settings.text("SSH_KEYS_PATH")
    if not os.path.isdir(source):
        if settings.given("SSH_KEYS_PATH"):
            say(f"SSH_KEYS_PATH={source}: no such folder; mount your ~/.ssh there, read-only")
        return
    target = f"{home}/.ssh"
    try:
        os.makedirs(target, mode=0o700, exist_ok=True)
        os.chmod(target, 0o700)
        if owner:
            os.chown(target, *owner)
        names = sorted(os.listdir(source))
    except OSError as error:
        say(f"cannot copy {source} to {target}: {reason(error)}; going on without these keys")
        return
    for name in names:
        path, copy = f"{source}/{name}", f"{target}/{name}"
        if not os.path.isfile(path) or name.startswith(SOCKETS_AND_LOCKS):
            continue
        if os.path.exists(copy) and not _same_time(path, copy):
            # Changed here since it was copied: it is the user's now.
            continue
        try:
            shutil.copyfile(path, copy)
            os.chmod(copy, 0o600)
            info = os.stat(path)
            os.utime(copy, ns=(info.st_atime_ns, info.st_mtime_ns))
            if owner:
                os.chown(copy, *owner)
        except OSError as error:
            say(f"cannot copy {path}: {reason(error)}; going on without this key")


def _same_time(path, copy):
    return os.stat(path).st_mtime_ns == os.stat(copy).st_mtime_ns


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
