"""Tests of `devbox update-check` against a registry on loopback that answers as real ones do.

The shapes of the answers are those of Docker Hub (a challenge with a realm on another host, an index, a redirect of blobs
to a storage that refuses a second authorization) and of distribution's registry (no challenge, pages of tags).
"""

import contextlib
import hashlib
import http.server
import io
import json
import os
import pathlib
import socket
import sys
import tempfile
import threading
import unittest
import urllib.parse
from unittest import mock

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "rootfs/usr/local/lib/devbox"))

from devbox import published, registry, update, verify  # noqa: E402

INDEX, MANIFEST = registry.INDEXES[0], registry.MANIFESTS[0]


def digest(text):
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


class Server:
    """One registry with one repository: tags with the labels of their images, and how it behaves."""

    def __init__(self, path="team/devbox", login=None, index=True, page=1000):
        self.path, self.login, self.index, self.page = path, login, index, page
        self.tags, self.texts, self.asked, self.broken = {}, {}, [], {}
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.address = f"127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, args=[0.05], daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()

    def put(self, *tags, architecture=None, **labels):
        """Stores an image with these labels; the machine's architecture, unless another one is named."""
        labels = {name.replace("_", "."): value for name, value in labels.items()}
        labels = {f"opencode-devbox.{name}": value for name, value in labels.items()}
        config = self.text(json.dumps({"architecture": "x", "config": {"Labels": labels}}))
        image = self.text(json.dumps({"mediaType": MANIFEST, "config": {"digest": config}, "layers": []}))
        machine = architecture or published.ARCHITECTURES[os.uname().machine]
        others = [{"digest": digest("other"), "platform": {"os": "linux", "architecture": "s390x"}}]
        mine = [{"digest": image, "platform": {"os": "linux", "architecture": machine}}]
        index = self.text(json.dumps({"mediaType": INDEX, "manifests": others + mine})) if self.index else image
        self.tags.update({tag: index for tag in tags})

    def text(self, text):
        self.texts[digest(text)] = text
        return digest(text)

    def answer(self, method, url, headers):
        """Status, headers and body."""
        path, _, query = url.partition("?")
        self.asked.append((method, path))
        if path in self.broken:
            return self.broken[path]
        if path == "/token":
            wanted = f"repository:{self.path}:pull"
            allowed = urllib.parse.parse_qs(query).get("scope") == [wanted] and "Authorization" not in headers
            return (200, {}, '{"token": "t1"}') if allowed and self.login == "open" else (401, {}, "")
        if path.startswith("/storage/"):
            # As S3 does it.
            return (400, {}, "only one auth mechanism") if "Authorization" in headers else (200, {}, self.texts[path[9:]])
        if self.login and headers.get("Authorization") != "Bearer t1":
            challenge = f'Bearer realm="http://{self.address}/token",service="registry",scope="repository:{self.path}:pull"'
            return 401, {"WWW-Authenticate": 'Basic realm="x"' if self.login == "basic" else challenge}, "{}"
        return self.inside(path.removeprefix(f"/v2/{self.path}/"), query)

    def inside(self, path, query):
        kind, _, name = path.partition("/")
        if path == "tags/list":
            names = sorted(self.tags)
            last = urllib.parse.parse_qs(query).get("last", [""])[0]
            rest = [name for name in names if name > last]
            link = {"Link": f'</v2/{self.path}/tags/list?last={rest[self.page - 1]}&n={self.page}>; rel="next"'} if len(rest) > self.page else {}
            return 200, link, json.dumps({"name": self.path, "tags": rest[: self.page]})
        if kind == "blobs" and name in self.texts:
            return 307, {"Location": f"http://localhost:{self.address.split(':')[1]}/storage/{name}"}, ""
        name = self.tags.get(name, name)
        if kind == "manifests" and name in self.texts:
            return 200, {"Docker-Content-Digest": name}, self.texts[name]
        return 404, {}, '{"errors": [{"code": "MANIFEST_UNKNOWN"}]}'

    def handler(self):
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                status, headers, body = server.answer(self.command, self.path, self.headers)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body.encode())

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        return Handler


class UpdateCheck(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.environ = {"HOME": folder.name}
        self.me(key="aaaa", variant="omos", tag="latest-omos", repository="127.0.0.1:9/x")
        for patch in (mock.patch.object(update, "IDENTITY", f"{folder.name}/image.json"), mock.patch.object(update, "current", lambda: "1.18.18")):
            patch.start()
            self.addCleanup(patch.stop)

    def me(self, **facts):
        pathlib.Path(self.environ["HOME"], "image.json").write_text(json.dumps(facts))

    def server(self, **behaviour):
        server = Server(**behaviour)
        self.addCleanup(server.close)
        self.environ["DEVBOX_UPDATE_REPOSITORY"] = f"{server.address}/{server.path}"
        return server

    def check(self):
        """The exit code and the one line that is printed."""
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            code = update.check(self.environ)
        self.assertEqual(1, text.getvalue().count("\n"), text.getvalue())
        return code, text.getvalue().removeprefix("devbox: ").rstrip("\n")

    def test_the_published_image_is_up_to_date_and_its_release_is_named(self):
        for behaviour in ({}, {"login": "open"}, {"index": False}, {"page": 2, "login": "open"}):
            server = self.server(**behaviour)
            server.put("v1.18.18-omos", key="0000", version_opencode="1.18.18")
            server.put("latest-omos", "v1.18.18b-omos", key="aaaa", version_opencode="1.18.18")
            server.put("latest", "v1.18.18c", "v1.18.9", "base-0123", key="bbbb", version_opencode="1.18.18")
            self.assertEqual((0, "up to date: this is v1.18.18b-omos, with opencode 1.18.18"), self.check(), behaviour)
            self.assertIsNone(update.known(self.environ))

    def test_a_newer_image_with_the_same_opencode_is_an_update(self):
        server = self.server(login="open")
        server.put("v1.18.18-omos", key="aaaa", version_opencode="1.18.18")
        server.put("latest-omos", "v1.18.18b-omos", key="bbbb", version_opencode="1.18.18")
        code, line = self.check()
        self.assertEqual((10, "a newer image is out: v1.18.18b-omos, another build with the same opencode 1.18.18"), (code, line))
        self.assertEqual(line, update.known(self.environ), "the greeting has it")
        self.me(key="bbbb", variant="omos", tag="latest-omos", repository="127.0.0.1:9/x")
        self.assertIsNone(update.known(self.environ), "and drops it once that image runs")

    def test_another_opencode_is_an_update_and_an_older_one_is_none(self):
        server = self.server()
        server.put("latest-omos", "v1.18.20-omos", key="bbbb", version_opencode="1.18.20")
        self.assertEqual((10, "a newer image is out: v1.18.20-omos; this one has opencode 1.18.18"), self.check())
        server.put("latest-omos", "v1.18.9-omos", key="cccc", version_opencode="1.18.9")
        self.assertEqual((0, "up to date: this image has opencode 1.18.18, and v1.18.9-omos has 1.18.9"), self.check())

    def test_a_floating_tag_without_a_release_is_named_itself(self):
        server = self.server()
        server.put("v1.18.20-omos", key="eeee", version_opencode="1.18.20")
        server.put("latest-omos", key="bbbb", version_opencode="1.18.20")
        self.assertEqual((10, "a newer image is out: latest-omos with opencode 1.18.20; this one has opencode 1.18.18"), self.check())
        server.broken[f"/v2/{server.path}/tags/list"] = (403, {}, "")
        self.assertEqual(10, self.check()[0], "the list of tags only names it")

    def test_what_cannot_be_told_is_one_line_with_its_reason(self):
        server = self.server(login="open")
        floating, where = f"/v2/{server.path}/manifests/latest-omos", server.address
        for answer, line in (
            ((404, {}, ""), f"{where} has no latest-omos of team/devbox"),
            ((429, {}, ""), f"{where} answers 429 Too Many Requests"),
            ((200, {}, "<html>log in</html>"), "the manifest of latest-omos is not what a registry answers"),
            ((200, {}, '{"config": {"digest": "../../x"}}'), f"{where} answers with something other than an image for latest-omos"),
            ((200, {}, json.dumps({"manifests": ["x", {}]})), "latest-omos has no image for "),
            ((200, {}, "x" * (registry.BYTES + 1)), f"{where}: the answer is too large"),
            ((401, {"WWW-Authenticate": 'Basic realm="x"'}, ""), f"{where} wants a login for team/devbox"),
            ((401, {"WWW-Authenticate": 'Bearer realm="http://evil.example/token"'}, ""), f"{where} wants a login for team/devbox"),
        ):
            server.broken[floating] = answer
            code, text = self.check()
            self.assertEqual(3, code, line)
            self.assertTrue(text.startswith(f"cannot tell whether a newer image is out: {line}"), (line, text))
        server.broken.clear()
        server.put("latest-omos", version_opencode="1.18.20")
        self.assertIn("does not name its content key", self.check()[1])
        server.put("latest-omos", architecture="s390x", key="x")
        self.assertIn("latest-omos has no image for", self.check()[1])
        for login in ("closed", "basic"):
            self.server(login=login)
            self.assertIn("wants a login for team/devbox", self.check()[1])
        for wrong in ("Not/Lower", "a/b:tag", "http://x/y", "a b", "../x"):
            self.environ["DEVBOX_UPDATE_REPOSITORY"] = wrong
            self.assertIn(f"{wrong} is no repository: expected", self.check()[1])

    def test_verify_names_this_image_and_needs_an_identity(self):
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            self.assertEqual(0, verify.main())
            os.remove(update.IDENTITY)
            self.assertEqual(3, verify.main())
        expected = "cosign verify --key cosign.pub --insecure-ignore-tlog=true -a variant=omos 127.0.0.1:9/x:latest-omos\n"
        self.assertIn(expected, output.getvalue())
        self.assertIn("'{{json .RepoDigests}}' 127.0.0.1:9/x:latest-omos\n", output.getvalue())
        self.assertEqual(1, len(errors.getvalue().splitlines()))

    def test_without_a_network_or_an_identity_it_is_unknown(self):
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            self.environ["DEVBOX_UPDATE_REPOSITORY"] = f"127.0.0.1:{closed.getsockname()[1]}/x/y"
            code, line = self.check()
        self.assertEqual(3, code)
        self.assertIn("Connection refused", line)
        with mock.patch.object(published, "SECONDS", 0.05), mock.patch.object(published, "ask", lambda *_: threading.Event().wait(2)):
            self.assertIn("no answer within 0.05 seconds", self.check()[1])
        for text in ("", "[]", "{}", '{"variant": 1}'):
            pathlib.Path(self.environ["HOME"], "image.json").write_text(text)
            self.assertEqual((3, True), (self.check()[0], "no release has built it" in self.check()[1]))

    def test_proxies_are_used(self):
        server = self.server()
        server.put("latest-omos", key="aaaa", version_opencode="1.18.18")
        proxy = Server()
        self.addCleanup(proxy.close)
        proxy.answer = lambda method, url, headers: server.answer(method, urllib.parse.urlsplit(url)._replace(scheme="", netloc="").geturl(), headers)
        self.environ["DEVBOX_UPDATE_REPOSITORY"] = f"localhost:{server.address.split(':')[1]}/{server.path}"
        with mock.patch.dict(os.environ, {"http_proxy": f"http://{proxy.address}", "no_proxy": ""}):
            self.assertEqual(0, self.check()[0])

    def test_names_of_registries(self):
        for name, host, path in (
            ("joakimp/opencode-devbox", "registry-1.docker.io", "joakimp/opencode-devbox"),
            ("docker.io/joakimp/opencode-devbox", "registry-1.docker.io", "joakimp/opencode-devbox"),
            ("alpine", "registry-1.docker.io", "library/alpine"),
            ("ghcr.io/a/b", "ghcr.io", "a/b"),
            ("registry:5000/a", "registry:5000", "a"),
            ("localhost/a", "localhost", "a"),
        ):
            found = registry.Repository(name)
            self.assertEqual((host, path), (found.host, found.path))
        self.assertEqual("https://registry:5000", registry.Repository("registry:5000/a").root)
        self.assertEqual("http://localhost:5000", registry.Repository("localhost:5000/a").root)

    def test_the_newest_release_among_tags(self):
        tags = ["latest", "v1.9.9", "v1.18.18", "v1.18.18b", "v1.18.18b-omos", "base-0123", "v1.18.9c", "v1.18.18bb"]
        self.assertEqual(["v1.18.18b", "v1.18.18", "v1.18.9c", "v1.9.9"], [tag for tag, _ in published.releases(tags, "")])
        self.assertEqual([("v1.18.18b-omos", "1.18.18")], published.releases(tags, "-omos"))


if __name__ == "__main__":
    unittest.main()
