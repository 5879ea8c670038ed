"""Stands in for the service that hands out codes: nobody has entered the code at first."""

import http.server, json
asked = []
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        status, body = 200, {}
        if self.path == "/client/register":
            body = {"clientId": "i", "clientSecret": "s", "clientIdIssuedAt": 0, "clientSecretExpiresAt": 4102444800}
        elif self.path == "/device_authorization":
            url = "https://device.example.org/"
            body = {"deviceCode": "d", "userCode": "ABCD-EFGH", "verificationUri": url,
                    "verificationUriComplete": url + "?user_code=ABCD-EFGH", "expiresIn": 600, "interval": 1}
        elif not asked:
            asked.append(1)
            status, body = 400, {"error": "authorization_pending", "__type": "AuthorizationPendingException"}
        else:
            body = {"accessToken": "smoke-token", "tokenType": "Bearer", "expiresIn": 600}
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
