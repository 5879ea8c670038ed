"""Stores two memories through MCP, and finds the one that is meant from another server process."""

import json
import subprocess


class Server:
    def __init__(self):
        self.process = subprocess.Popen(["mempalace-mcp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.last = 0
        client = {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "smoke", "version": "1"}}
        self.ask("initialize", client)
        self.send({"method": "notifications/initialized"})

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
        raise SystemExit(f"mempalace-mcp ended before it answered {method}")

    def call(self, tool, **arguments):
        answer = self.ask("tools/call", {"name": tool, "arguments": arguments})
        return "\n".join(part.get("text", "") for part in answer["content"])

    def end(self):
        self.process.stdin.close()
        self.process.wait(60)


first = Server()
for room, text in (("garage", "The key of the red car is in the garage."), ("code", "The parser of the compiler is to be in the release.")):
    print(first.call("mempalace_add_drawer", wing="smoke", room=room, content=text))
first.end()
second = Server()
found = second.call("mempalace_search", query="red car key", limit=1)
print(found)
second.end()
if "garage" not in found or "parser" in found:
    raise SystemExit("the memory about the garage was not found")
print("found the right memory")
