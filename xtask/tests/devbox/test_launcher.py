"""Tests of what the image does for its launcher, without an image: python3 -m unittest discover -s xtask/tests/devbox"""

import asyncio
import contextlib
import io
import os
import pathlib
import sys
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from test_devbox import ROOT, Case, place, start  # noqa: E402

from devbox import egress, launcher  # noqa: E402

TEXT = (ROOT / "rootfs/usr/share/devbox/opencode-devbox").read_text(encoding="utf-8")


def facts(*names):
    return [{"name": name, "version": "1.2"} for name in names]


class Launcher(Case):
    def test_the_variant_is_the_largest_that_the_image_holds(self):
        for names, variant in (
            (["node", "uv"], ""),
            (["opencode", "uv"], "base"),
            (["opencode", "bun", "omos"], "omos"),
            (["opencode", "pi"], "with-pi"),
            (["opencode", "bun", "omos", "pi"], "omos-with-pi"),
        ):
            self.assertEqual(variant, launcher.variant(TEXT, set(names)), names)

    def test_the_origin_is_filled_in_and_nothing_else_changes(self):
        text = launcher.stamped(TEXT, "registry:5000/a/b", facts("opencode", "it's"))
        lines = set(text.splitlines()) - set(TEXT.splitlines())
        self.assertEqual({"origin_image='registry:5000/a/b'", "origin_variant='base'", "origin_versions='opencode 1.2", "its 1.2'"}, lines)
        self.assertEqual(TEXT.count("\n") + 1, text.count("\n"))

    def test_only_a_repository_becomes_part_of_the_script(self):
        told = io.StringIO()
        with contextlib.redirect_stderr(told):
            for image in ("a;b", "$(id)", "a'b", "a b", "A/b", ""):
                self.assertEqual(64, launcher.main(["--image", image]), image)
            self.assertEqual(64, launcher.main(["--tag"]))
        self.assertEqual(7, told.getvalue().count("\n"))


class Logins(Case):
    def share(self, state, switch="on"):
        mounts = {f"{self.dir}/.local/share/opencode": None, f"{self.dir}/.local/state": None} if state else {}
        with mock.patch.object(place, "mounts", lambda: mounts):
            start.share_logins(self.settings(DEVBOX_SHARED_LOGINS=switch), {"HOME": self.dir})

    def test_logins_move_to_the_state_volume_and_a_link_stays(self):
        login = self.file(".local/share/opencode/auth.json", "mine")
        os.makedirs(f"{self.dir}/.local/state")
        for state, switch in ((False, "on"), (True, "off")):
            self.share(state, switch)
            self.assertFalse(os.path.islink(login))
        self.share(True)
        self.share(True)
        kept = f"{self.dir}/.local/state/devbox/home/opencode-auth.json"
        self.assertEqual(kept, os.readlink(login))
        self.assertEqual("mine", pathlib.Path(kept).read_text())
        # A file that opencode has not made yet is made through the link.
        pathlib.Path(f"{self.dir}/.local/share/opencode/mcp-auth.json").write_text("new")
        self.assertTrue(os.path.isfile(f"{self.dir}/.local/state/devbox/home/opencode-mcp-auth.json"))

    def test_logins_of_a_project_are_not_overwritten(self):
        login = self.file(".local/share/opencode/auth.json", "mine")
        kept = self.file(".local/state/devbox/home/opencode-auth.json", "of all")
        self.share(True)
        self.assertEqual(["mine", "of all"], [pathlib.Path(path).read_text() for path in (login, kept)])


class Egress(Case):
    def ask(self, request, addresses=()):
        """The answer to a request, where the host that it names has these addresses."""

        async def run():
            reader = asyncio.StreamReader()
            reader.feed_data(request.encode())
            reader.feed_eof()
            with mock.patch.object(egress, "connect") as connect:
                connect.side_effect = OSError if not addresses else None
                found = [(0, 0, 0, "", (address, 443)) for address in addresses]
                with mock.patch.object(asyncio.get_running_loop(), "getaddrinfo", mock.AsyncMock(return_value=found)):
                    code, _ = await egress.answer({"api.example.org"}, reader)
            return code, connect.call_args and connect.call_args[0][0]

        with contextlib.redirect_stderr(io.StringIO()):
            return asyncio.run(run())

    def test_only_tls_tunnels_to_named_hosts_are_opened(self):
        for line, code in (
            ("GET http://api.example.org/ HTTP/1.1", 405),
            ("CONNECT evil.org:443 HTTP/1.1", 403),
            ("CONNECT api.example.org.evil.org:443 HTTP/1.1", 403),
            ("CONNECT api.example.org:22 HTTP/1.1", 403),
            ("CONNECT api.example.org:0443 HTTP/1.1", 403),
            ("CONNECT api.example.org HTTP/1.1", 403),
            ("CONNECT api.example.org:443@evil.org:443 HTTP/1.1", 403),
            ("CONNECT 1.2.3.4:443 HTTP/1.1", 403),
            ("nonsense", 400),
        ):
            self.assertEqual(code, self.ask(f"{line}\r\n\r\n", ["93.184.216.34"])[0], line)
        good = "CONNECT API.example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n"
        self.assertEqual((200, ["93.184.216.34", "10.1.2.3"]), self.ask(good, ["127.0.0.1", "93.184.216.34", "169.254.169.254", "10.1.2.3"]))
        for local in (["127.0.0.1"], ["::1"], ["169.254.169.254"], ["fe80::1"], ["0.0.0.0"], ["::ffff:169.254.169.254"], []):
            self.assertEqual(502, self.ask(good, local)[0], local)

    def test_a_list_of_other_things_than_hosts_is_refused(self):
        for hosts in ([], ["a b.org"], ["*.example.org"], ["example.org:443"], ["ok.org", ".org"]):
            with contextlib.redirect_stderr(io.StringIO()):
                self.assertEqual(64, egress.main(hosts), hosts)

    def test_bytes_pass_both_ways_until_both_ends_have_closed(self):
        async def run():
            async def echo(reader, writer):
                writer.write(b"hello ")
                writer.write(await reader.read())
                writer.close()

            upstream = await asyncio.start_server(echo, "127.0.0.1", 0)
            port = upstream.sockets[0].getsockname()[1]
            proxy = await asyncio.start_server(lambda r, w: egress.client({"a.org"}, r, w), "127.0.0.1", 0)
            direct = lambda _: asyncio.open_connection("127.0.0.1", port)  # noqa: E731
            with mock.patch.object(egress, "reachable", mock.AsyncMock(return_value=["x"])), mock.patch.object(egress, "connect", direct):
                reader, writer = await asyncio.open_connection(*proxy.sockets[0].getsockname())
                writer.write(b"CONNECT a.org:443 HTTP/1.1\r\n\r\nworld")
                writer.write_eof()
                return await asyncio.wait_for(reader.read(), 20)

        self.assertEqual(b"HTTP/1.1 200 Connection established\r\n\r\nhello world", asyncio.run(run()))


class Sessions(Case):
    def process(self, pid, parent, *words):
        self.file(f"{pid}/status", f"Name:\tx\nPid:\t{pid}\nPPid:\t{parent}\n")
        self.file(f"{pid}/cmdline", "".join(f"{word}\0" for word in words))

    def test_only_what_came_in_from_outside_counts(self):
        self.file("version")
        self.process(1, 0, "tini")
        self.process(7, 1, "opencode")
        self.process(8, 0, "python3", "/usr/local/bin/devbox", "health")
        self.assertEqual(0, start.sessions(self.dir))
        self.process(9, 0, "bash", "-l")
        self.process(10, 9, "vi")
        self.process(11, 0, "opencode")
        self.assertEqual(2, start.sessions(self.dir))


if __name__ == "__main__":
    unittest.main()
