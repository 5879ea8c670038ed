"""A registry with one image under all tags, whose content key is no other image's. It asks for a token first."""

import hashlib
import http.server
import json

ADDRESS = "http://127.0.0.1:8000"
config = json.dumps({"config": {"Labels": {"opencode-devbox.key": "0" * 12, "opencode-devbox.version.opencode": "99.0.0"}}})
manifest = json.dumps({"config": {"digest": "sha256:" + hashlib.sha256(config.encode()).hexdigest()}, "layers": []})
tags = [f"v99.0.0{letter}{suffix}" for letter in ("", "b") for suffix in ("", "-omos", "-with-pi", "-omos-with-pi")]


class Registry(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/":
            return self.send(200, "up")
        if self.path.startswith("/token?"):
            return self.send(200, '{"access_token": "t"}')
        if self.headers.get("Authorization") != "Bearer t":
            return self.send(401, "{}", ("WWW-Authenticate", f'Bearer realm="{ADDRESS}/token",service="smoke"'))
        if "/tags/list" in self.path:
            return self.send(200, json.dumps({"tags": tags}))
        self.send(200, config if "/blobs/" in self.path else manifest)

    do_HEAD = do_GET

    def send(self, status, body, *headers):
        self.send_response(status)
        digest = hashlib.sha256(body.encode()).hexdigest()
        for name, value in (("Docker-Content-Digest", f"sha256:{digest}"), ("Content-Length", str(len(body))), *headers):
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body.encode())


http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Registry).serve_forever()
