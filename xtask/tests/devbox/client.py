"""Works with a server of opencode as an SDK does: without the password it is refused; with it a session is made, gets a prompt, and has an answer."""

import base64
import json
import sys
import time
import urllib.error
import urllib.request

SERVER = "http://127.0.0.1:4096"


def ask(path, body=None, password=None, timeout=120):
    request = urllib.request.Request(SERVER + path, data=json.dumps(body).encode() if body is not None else None)
    request.add_header("Content-Type", "application/json")
    if password:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"opencode:{password}".encode()).decode())
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.load(answer)


def refused():
    for _ in range(600):
        try:
            ask("/session", timeout=5)
            raise SystemExit("a session is answered without the password")
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            time.sleep(0.2)


print("without the password", refused())
password = sys.argv[1]
session = ask("/session", {"title": "made by a client"}, password)
message = ask(f"/session/{session['id']}/message", {"parts": [{"type": "text", "text": "make the file"}]}, password)
print("answer:", "".join(part.get("text", "") for part in message["parts"] if part["type"] == "text"))
print("sessions:", [it["title"] for it in ask("/session", password=password)])
