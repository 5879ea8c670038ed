"""The smoke check of gitea-mcp, with stand-ins in the place of gitea-mcp: one for the tools of each of its generations, and one
that gives another token."""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

PROGRAM = pathlib.Path(__file__).resolve().parents[3] / "scripts/smoke/programs/gitea-works.py"
STAND_IN = '''#!%s
import json, os, sys, urllib.request
TOOLS = {"0": ["get_my_user_info", "get_issue_by_index", "create_issue"], "1": ["get_me", "issue_read", "issue_write"]}[os.environ["GENERATION"]]
HOST = sys.argv[sys.argv.index("--host") + 1]

def ask(path, body=None):
    request = urllib.request.Request(HOST + "/api/v1" + path, data=json.dumps(body).encode() if body else None)
    request.add_header("Authorization", "token " + os.environ["GITEA_ACCESS_TOKEN"])
    return urllib.request.urlopen(request).read().decode()

def call(name, given):
    issues = "/repos/%%s/%%s/issues" %% (given.get("owner"), given.get("repo"))
    try:
        if name == TOOLS[0]:
            text = ask("/user")
        elif name == TOOLS[1]:
            text = ask(issues + "/%%d" %% given["index"])
        else:
            text = ask(issues, {"title": given["title"], "body": given["body"]})
        return {"content": [{"type": "text", "text": text}]}
    except OSError as error:
        return {"content": [{"type": "text", "text": str(error)}], "isError": True}

for line in sys.stdin:
    asked = json.loads(line)
    results = {"initialize": lambda it: {}, "tools/list": lambda it: {"tools": [{"name": name} for name in TOOLS]},
               "tools/call": lambda it: call(it["name"], it["arguments"])}
    if asked["method"] in results:
        result = results[asked["method"]](asked["params"])
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
''' % sys.executable


class Gitea(unittest.TestCase):
    def run_with(self, generation, token):
        with tempfile.TemporaryDirectory() as folder:
            stand_in = pathlib.Path(folder, "gitea-mcp")
            stand_in.write_text(STAND_IN)
            stand_in.chmod(0o755)
            environ = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "GENERATION": generation, "GITEA_ACCESS_TOKEN": token, "NO_PROXY": "127.0.0.1"}
            done = subprocess.run([sys.executable, str(PROGRAM)], env=environ, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    def test_the_tools_of_both_generations_are_known(self):
        for generation in "01":
            self.assertEqual((0, "gitea-mcp reads and writes\n"), self.run_with(generation, "smoke-token"))

    def test_another_token_fails(self):
        code, text = self.run_with("1", "other")
        self.assertNotEqual(0, code)
        self.assertIn("get_me: no 'ann-smokes' in HTTP Error 401", text)


if __name__ == "__main__":
    unittest.main()
