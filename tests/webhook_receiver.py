"""A webhook receiver on a real socket, with the responses that a test sets."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    """Records the POST requests; `answers` are the status codes to return, the last one repeatedly."""

    def __init__(self):
        self.answers = [200]
        self.bodies = []
        self.seen = 0
        self.released = threading.Event()
        self.hangs = False
        self.address = ""

    def answer(self):
        """Returns the next status code."""
        self.seen += 1
        return self.answers[min(self.seen, len(self.answers)) - 1]


@contextlib.contextmanager
def receiving():
    """Runs a receiver."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            code = receiver.answer()
            if receiver.hangs:
                receiver.released.wait()
                return
            if code < 300:
                assert self.headers["Content-Type"] == "application/json"
                receiver.bodies.append(json.loads(body))
            self.send_response(code)
            if code in (301, 302, 303, 307, 308):
                self.send_header("Location", receiver.address)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.address = f"http://127.0.0.1:{server.server_port}/services/T0/B0/secret-token"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
