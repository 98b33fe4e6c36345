"""One ConfigMap behind the part of the Kubernetes API that reads and patches it, on a real socket."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml


class ToyCluster:
    """Rejects a patch of an older resource version with 409, as an API server does."""

    def __init__(self, namespace, name, data):
        self.path = f"/api/v1/namespaces/{namespace}/configmaps/{name}"
        self.data = dict(data)
        self.resource_version = 1
        self.before_patch = lambda: None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def stop(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def set(self, key, text):
        self.data[key] = text
        self.resource_version += 1

    def kubeconfig(self):
        """Returns the text of a kubeconfig whose current context is this cluster."""
        address = f"http://127.0.0.1:{self._server.server_port}"
        return yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "toy",
                "clusters": [{"name": "toy", "cluster": {"server": address}}],
                "users": [{"name": "toy", "user": {}}],
                "contexts": [{"name": "toy", "context": {"cluster": "toy", "user": "toy"}}],
            }
        )

    def _patch(self, body):
        """Applies a patch if its version is the current one; returns the HTTP status."""
        self.before_patch()
        if body["metadata"]["resourceVersion"] != str(self.resource_version):
            return 409
        for key, text in body["data"].items():
            self.set(key, text)
        return 200

    def _handler(self):
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self._answer(200 if self.path == cluster.path else 404)

            def do_PATCH(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._answer(cluster._patch(body) if self.path == cluster.path else 404)

            def _answer(self, status):
                metadata = {"name": "models", "resourceVersion": str(cluster.resource_version)}
                found = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": cluster.data}
                body = json.dumps(found if status == 200 else {"kind": "Status", "code": status}).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        return Handler
