# shellcheck shell=bash
# Its vector store wants to fetch a model: without a network that is an answer, not a crash.
mkfifo /tmp/questions
timeout 240 mempalace-mcp < /tmp/questions > /tmp/answers 2>/dev/null & exec 3> /tmp/questions
ask() { printf '{"jsonrpc":"2.0",%s}\n' "$1" >&3; }
ask '"id":1,"method":"initialize","params":{"protocolVersion":"2025-03-26","capabilities":{},"clientInfo":{"name":"smoke","version":"1"}}'
ask '"method":"notifications/initialized"'
ask '"id":2,"method":"tools/call","params":{"name":"mempalace_search","arguments":{"query":"x"}}'
ask '"id":3,"method":"tools/list","params":{}'
for _ in $(seq 1000); do
  grep -m1 '"id": *3' /tmp/answers && break
  sleep 0.2
done
