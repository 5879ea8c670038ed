"""Gives a prompt to the server of opencode on port 4096, as an SDK does, and waits until its agent has answered."""

import json
import urllib.request


def post(path, body):
    request = urllib.request.Request(f"http://127.0.0.1:4096{path}", data=json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=280) as answer:
        return json.load(answer)


session = post("/session", {})
message = post(f"/session/{session['id']}/message", {"parts": [{"type": "text", "text": "make the file"}]})
print("answer:", "".join(part.get("text", "") for part in message["parts"]), message["info"].get("error", ""))
