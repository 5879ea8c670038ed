"""Stands in for a model's server (OpenAI's chat completions, streamed): its first answer to a prompt is one call of the
tool `bash` that writes a file, its next one is text. A prompt that begins with `delegate` is given to a sub-agent."""

import http.server
import json
import sys

WORDS = "echo made by the agent > made.txt"


def text(message):
    content = message.get("content") or ""
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


def wanted(request):
    """The tool that is called next, with its arguments; nothing where the answer is text."""
    tools = {tool["function"]["name"] for tool in request.get("tools") or []}
    messages = request["messages"]
    if any(message["role"] == "tool" for message in messages):
        return None, None
    prompt = next((text(message) for message in messages if message["role"] == "user"), "")
    if prompt.strip(' "').startswith("delegate") and "task" in tools:
        return "task", {"description": "make the file", "prompt": "make the file", "subagent_type": "fixer"}
    if "bash" in tools:
        return "bash", {"command": WORDS, "description": "write a file"}
    return None, None


def chunks(request):
    def chunk(delta, finish=None):
        return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": request.get("model"),
                "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    name, arguments = wanted(request)
    if name:
        call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        yield chunk({"role": "assistant", "tool_calls": [call]})
        yield chunk({}, "tool_calls")
        return
    yield chunk({"role": "assistant", "content": "The file is "})
    yield chunk({"content": "made."})
    yield chunk({}, "stop")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks(request)) + "data: [DONE]\n\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
