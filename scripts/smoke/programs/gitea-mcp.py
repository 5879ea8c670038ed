#!/usr/bin/python3
"""Stands in for gitea-mcp: answers what an agent asks first, with the address and the token that it was given."""

import json, os, sys
for line in sys.stdin:
    asked = json.loads(line)
    if asked.get("method") == "initialize":
        info = {"name": " ".join(sys.argv[1:]), "version": os.environ.get("GITEA_ACCESS_TOKEN", "no token")}
        result = {"protocolVersion": asked["params"]["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": info}
    elif asked.get("method") == "tools/list":
        result = {"tools": []}
    else:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
