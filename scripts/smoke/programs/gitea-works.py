"""Lets the real gitea-mcp work with a Gitea server that runs here: it tells who its account is, reads an issue and makes one. Names of
tools are those of its releases 0.x and 1.x. Answers have the fields of Gitea's swagger: ServerVersion, User and Issue."""

import http.server
import json
import subprocess
import threading

ANN = {"id": 1, "login": "ann-smokes", "login_name": "", "source_id": 0, "full_name": "Ann", "email": "ann@example.org", "avatar_url": "", "html_url": "",
       "language": "", "is_admin": False, "last_login": "2026-01-01T00:00:00Z", "created": "2026-01-01T00:00:00Z", "restricted": False,
       "active": True, "prohibit_login": False, "location": "", "website": "", "description": "", "visibility": "public",
       "followers_count": 0, "following_count": 0, "starred_repos_count": 0, "username": "ann-smokes"}
asked = []


def issue(number, title, body):
    url = f"http://127.0.0.1:3000/ann/thing/issues/{number}"
    return {"id": number, "url": url, "html_url": url, "number": number, "user": ANN, "original_author": "", "original_author_id": 0, "title": title,
            "body": body, "ref": "", "assets": [], "labels": [], "milestone": None, "assignee": None, "assignees": None, "state": "open",
            "is_locked": False, "comments": 0, "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z", "closed_at": None,
            "due_date": None, "time_estimate": 0, "pull_request": None, "pin_order": 0,
            "repository": {"id": 1, "name": "thing", "owner": "ann", "full_name": "ann/thing"}}


class Gitea(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        paths = {"/api/v1/version": {"version": "1.24.0"}, "/api/v1/user": ANN,
                 "/api/v1/repos/ann/thing/issues/7": issue(7, "It rains", "into the garage")}
        self.answer(200, paths.get(self.path.split("?")[0]))

    def do_POST(self):
        wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = self.path == "/api/v1/repos/ann/thing/issues"
        self.answer(201, issue(8, wanted["title"], wanted["body"]) if known else None)

    def answer(self, status, body):
        token = self.headers.get("Authorization")
        asked.append(f"{self.command} {self.path} {token}")
        # The API answers its version to everybody.
        if token != "token smoke-token" and not self.path.endswith("/version"):
            status, body = 401, {"message": "token is required", "url": "/api/swagger"}
        elif body is None:
            status, body = 404, {"message": "not found", "url": "/api/swagger", "errors": []}
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json;charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class Client:
    def __init__(self):
        command = ["gitea-mcp", "-t", "stdio", "--host", "http://127.0.0.1:3000"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.last = 0
        client = {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "smoke", "version": "1"}}
        self.ask("initialize", client)
        self.send({"method": "notifications/initialized"})
        self.tools = {tool["name"] for tool in self.ask("tools/list", {})["tools"]}

    def send(self, message):
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        self.process.stdin.flush()

    def ask(self, method, parameters):
        self.last += 1
        self.send({"id": self.last, "method": method, "params": parameters})
        for line in self.process.stdout:
            answer = json.loads(line)
            if answer.get("id") == self.last:
                return answer["result"]
        raise SystemExit(f"gitea-mcp ended before it answered {method}")

    def call(self, expected, *ways):
        """The first of these tools that this release has."""
        name, arguments = next((way for way in ways if way[0] in self.tools), (None, None))
        if name is None:
            raise SystemExit(f"gitea-mcp has none of {[way[0] for way in ways]}: {sorted(self.tools)}")
        answer = self.ask("tools/call", {"name": name, "arguments": arguments})
        text = "\n".join(part.get("text", "") for part in answer["content"])
        if answer.get("isError") or expected not in text:
            raise SystemExit(f"{name}: no {expected!r} in {text}; asked: {asked}")


threading.Thread(target=http.server.ThreadingHTTPServer(("127.0.0.1", 3000), Gitea).serve_forever, daemon=True).start()
client = Client()
where = {"owner": "ann", "repo": "thing"}
new = {**where, "title": "It is dry", "body": "in the kitchen"}
client.call("ann-smokes", ("get_me", {}), ("get_my_user_info", {}))
client.call("into the garage", ("issue_read", {**where, "method": "get", "index": 7}), ("get_issue_by_index", {**where, "index": 7}))
client.call("It is dry", ("issue_write", {**new, "method": "create"}), ("create_issue", new))
if not any(line == "POST /api/v1/repos/ann/thing/issues token smoke-token" for line in asked):
    raise SystemExit(f"no issue was made: {asked}")
print("gitea-mcp reads and writes")
