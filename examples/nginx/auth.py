# Answers nginx's auth_request: 200 and X-User where the request has an accepted key, else 401, with no reason.
# Needs verify.py beside it. Its argument is the Unix socket that it listens on, which is for its group, too.
import http.server, os, socketserver, sys

from verify import user_of

class Auth(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # nginx keeps its connections: each has a thread, and that one its database

    def do_GET(self):
        scheme, _, key = self.headers.get("Authorization", "").partition(" ")
        user = user_of(key) if scheme.lower() == "bearer" else None  # an error is nginx's 500
        self.send_response(200 if user else 401)
        self.send_header(*(("X-User", user) if user else ("WWW-Authenticate", "Bearer")))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass  # nginx has a log

class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128

path = sys.argv[1]
if os.path.exists(path):
    os.unlink(path)
os.umask(0o117)
Server(path, Auth).serve_forever()
