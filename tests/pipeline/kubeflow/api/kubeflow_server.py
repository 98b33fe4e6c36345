"""A Kubeflow Pipelines API server on a socket, with the part of the published v2beta1 API that segpipe calls.

Every request and every answer is checked against `kubeflow_api.json`, an excerpt of Kubeflow's own swagger;
a request that does not fit gets the status 400 and is recorded in `violations`.

Comments name the source of each behaviour in kubeflow/pipelines 7b70c7b, below backend/src/apiserver. Errors have the
text of the first error, without those of the calls that pass it on, and the prefix of its kind in
backend/src/common/util/error.go.
"""

import copy
import email
import json
import ssl
import threading
import urllib.parse
import uuid
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jsonschema
import yaml
from kubeflow_api import find_operation, slug, validate

_GRPC_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 500: 13}
# The field with the items in the response of each listing, and the name of an item in storage/*_store.go.
_KINDS = {
    "experiments": ("experiments", "Experiment"),
    "pipelines": ("pipelines", "Pipeline"),
    "versions": ("pipeline_versions", "PipelineVersion"),
    "recurringruns": ("recurringRuns", "Job"),
    "runs": ("runs", "Run"),
}


class ApiError(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class KubeflowServer:
    """Holds experiments, pipelines, versions, recurring runs and runs; starts and ends with a `with` block."""

    def __init__(self, token="", cookie="", namespace="", certificate=None):
        self.token = token
        self.cookie = cookie
        self.namespace = namespace  # of the one user, in multi-user mode
        self.items = {kind: {} for kind in _KINDS}
        self.requests = []
        self.violations = []
        self.page_size = 2  # smaller than any client's, so that listings have several pages
        self.without_workflow = set()  # ids of runs whose workflow was removed
        self.refuse = {}  # the status of failing requests, by (method, path ending)
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._lock = threading.Lock()
        scheme = "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
            scheme = "https"
        self.host = f"{scheme}://localhost:{self._http.server_port}"

    def __enter__(self):
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()

    def all(self, kind):
        return list(self.items[kind].values())

    def asked(self, method, ending=""):
        return [path for verb, path in self.requests if verb == method and path.endswith(ending)]

    def fire(self, schedule_id, at, state="SUCCEEDED"):
        """Adds the run that the scheduler would start at a recurring run's time."""
        schedule = self.items["recurringruns"][schedule_id]
        run = _stamped(
            "run_id",
            {
                "display_name": f"{schedule['display_name']}-{len(self.items['runs']) + 1}",
                "experiment_id": schedule["experiment_id"],
                "pipeline_version_reference": schedule["pipeline_version_reference"],
                "runtime_config": schedule["runtime_config"],
                "recurring_run_id": schedule_id,
                "state": state,
                "scheduled_at": at,
                "created_at": at,
            },
        )
        self.items["runs"][run["run_id"]] = run
        return run

    def answer(self, method, path, query, headers, body):
        """Returns the response to a request. Raises ApiError."""
        self._authenticate(headers)
        for (verb, ending), status in self.refuse.items():
            if method == verb and path.endswith(ending):
                raise ApiError(status, "refused on purpose")
        found = find_operation(method, path)
        if found is None:
            # `DefaultRoutingErrorHandler` in runtime/errors.go, grpc-gateway v2.29.0.
            raise ApiError(404, "Not Found")
        template, names, operation = found
        self._check_query(operation, query)
        body = self._check_body(operation, headers, body)
        with self._lock:
            result = getattr(self, f"_{method.lower()}_{slug(template)}")(query=query, body=body, **names)
            result = copy.deepcopy(result)
        validate(result, operation["responses"]["200"]["schema"])
        return result

    def _authenticate(self, headers):
        """Answers as the oauth2-proxy in front of a whole Kubeflow, for every path and the health check too."""
        # `api_routes` in common/oauth2-proxy/base/oauth2_proxy.cfg, kubeflow/manifests 009c880, and `errorJSON` in
        # oauthproxy.go, oauth2-proxy/oauth2-proxy 14af295.
        if self.token and headers.get("authorization") != f"Bearer {self.token}":
            raise ApiError(401, "")
        # `login_url` in common/oauth2-proxy/base/oauth2-proxy-config.yaml, before kubeflow/manifests a7c646e added
        # `api_routes`.
        if self.cookie and headers.get("Cookie") != self.cookie:
            raise ApiError(302, "")

    def _check_query(self, operation, query):
        known = {item["name"]: item for item in operation["parameters"] if item["in"] == "query"}
        for name in query:
            if name not in known:
                self._violated(f"query parameter {name} is not in the API")
        if self.namespace and "namespace" in known and query.get("namespace") != self.namespace:
            # `IsAuthorized` in resource/resource_manager.go.
            raise ApiError(
                403,
                "PermissionDenied: User 'user@example.com' is not authorized with reason:  "
                f"(request: &ResourceAttributes{{Namespace:{query.get('namespace')}}}): Unauthorized access",
            )

    def _check_body(self, operation, headers, body):
        parameter = next((item for item in operation["parameters"] if item["in"] in ("body", "formData")), None)
        if parameter is None:
            return None
        if parameter["in"] == "formData":
            message = email.message_from_bytes(
                b"Content-Type: " + headers["Content-Type"].encode() + b"\r\n\r\n" + body
            )
            (part,) = message.get_payload()
            if part.get_param("name", header="content-disposition") != parameter["name"]:
                self._violated(f"the upload's part is not called {parameter['name']}")
            return part.get_payload(decode=True)
        content = json.loads(body)
        try:
            validate(content, parameter["schema"])
        except jsonschema.ValidationError as error:
            self._violated(error.message)
        return content

    def _violated(self, text):
        self.violations.append(text)
        raise ApiError(400, text)

    def _get_healthz(self, **_):
        # `healthzResponse` in main.go.
        return {"multi_user": bool(self.namespace)}

    def _get_experiments(self, query, **_):
        return self._list("experiments", query)

    def _post_experiments(self, body, **_):
        if any(item["display_name"] == body["display_name"] for item in self.all("experiments")):
            # `CreateExperiment` in storage/experiment_store.go.
            raise ApiError(
                409,
                "Already exist error: Failed to create a new experiment. "
                f"The name {body['display_name']} already exists. Please specify a new name",
            )
        return self._add("experiments", "experiment_id", body)

    def _get_pipelines(self, query, **_):
        return self._list("pipelines", query)

    def _post_pipelines(self, body, **_):
        if any(item["display_name"] == body["display_name"] for item in self.all("pipelines")):
            # `CreatePipeline` in storage/pipeline_store.go.
            raise ApiError(
                409,
                "Already exist error: Failed to create a new pipeline. "
                f"The name {body['display_name']} already exist. Please specify a new name",
            )
        return self._add("pipelines", "pipeline_id", body)

    def _get_pipelines_versions(self, pipeline_id, query, **_):
        return self._list("versions", query, pipeline_id=pipeline_id)

    def _post_pipelines_upload_version(self, query, body, **_):
        # `uploadPipelineVersion` in server/pipeline_upload_server.go hides the reasons.
        if query["pipelineid"] not in self.items["pipelines"]:
            raise ApiError(400, "Failed to create a pipeline version")
        versions = [item for item in self.all("versions") if item["pipeline_id"] == query["pipelineid"]]
        if any(item["display_name"] == query["name"] for item in versions):
            raise ApiError(409, "Failed to create a pipeline version")
        spec = next(yaml.safe_load_all(body))
        return self._add(
            "versions",
            "pipeline_version_id",
            {"pipeline_id": query["pipelineid"], "display_name": query["name"], "pipeline_spec": spec},
        )

    def _get_recurringruns(self, query, **_):
        return self._list("recurringruns", query)

    def _post_recurringruns(self, body, **_):
        self._check_source(body)
        # `toModelJob` in server/api_converter.go.
        concurrency = int(body.get("max_concurrency", 0))
        if not 1 <= concurrency <= 10:
            raise ApiError(
                400,
                "Invalid input error: Max concurrency of a recurring run must be at least 1 and at most 10. "
                f"Received {concurrency}",
            )
        schedule = body["trigger"].get("cron_schedule")
        # The server takes five fields too, but always reads the first one as seconds; the day of the week is optional:
        # `defaultParser` in parser.go, robfig/cron v1.2.0. So segpipe must send all six.
        if schedule and len(schedule["cron"].split()) != 6:
            self._violated(f"{schedule['cron']} has no field of seconds")
        status = "ENABLED" if body["mode"] == "ENABLE" else "DISABLED"
        body["max_concurrency"] = str(body["max_concurrency"])
        if not schedule:
            period = body["trigger"]["periodic_schedule"]
            period["interval_second"] = str(period["interval_second"])
        return self._add("recurringruns", "recurring_run_id", {**body, "status": status})

    def _delete_recurringruns(self, recurring_run_id, **_):
        self._item("recurringruns", recurring_run_id)
        del self.items["recurringruns"][recurring_run_id]
        return {}

    def _post_recurringruns_disable(self, recurring_run_id, **_):
        self._item("recurringruns", recurring_run_id).update(status="DISABLED", mode="DISABLE")
        return {}

    def _post_recurringruns_enable(self, recurring_run_id, **_):
        self._item("recurringruns", recurring_run_id).update(status="ENABLED", mode="ENABLE")
        return {}

    def _get_runs(self, query, **_):
        return self._list("runs", query, **{key: query[key] for key in ("experiment_id",) if key in query})

    def _post_runs(self, body, **_):
        self._check_source(body)
        return self._add("runs", "run_id", {**body, "state": "PENDING"})

    def _get_runs_one(self, run_id, **_):
        return self._item("runs", run_id)

    def _post_runs_terminate(self, run_id, **_):
        run = self._item("runs", run_id)
        # `TerminateRun` in storage/run_store.go.
        if run["state"] not in ("PAUSED", "PENDING", "RUNNING"):
            raise ApiError(400, f"Invalid input error: Failed to terminate a run {run_id}. Row not found")
        run["state"] = "CANCELING"
        # `TerminateRun` in resource/resource_manager.go: the state is stored first.
        if run_id in self.without_workflow:
            raise ApiError(
                500, f"InternalServerError: Failed to terminate run {run_id} due to error terminating its workflow"
            )
        return {}

    def _check_source(self, body):
        self._item("experiments", body["experiment_id"])
        reference = body["pipeline_version_reference"]
        spec = self._item("versions", reference["pipeline_version_id"])["pipeline_spec"]
        known = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        for name in body.get("runtime_config", {}).get("parameters", {}):
            if name not in known:
                # `validatePipelineJobInputs` in template/v2_template.go.
                raise ApiError(400, f"Invalid input error: parameter(s) provided are not required by pipeline: {name}")

    def _item(self, kind, identity):
        if identity not in self.items[kind]:
            raise ApiError(404, f"ResourceNotFoundError: {_KINDS[kind][1]} {identity} not found")
        return self.items[kind][identity]

    def _add(self, kind, key, body):
        item = _stamped(key, body)
        self.items[kind][item[key]] = item
        return item

    def _list(self, kind, query, **having):
        found = [item for item in self.all(kind) if having.items() <= item.items()]
        for predicate in json.loads(query.get("filter") or "{}").get("predicates", []):
            wanted = {"EQUALS": True, "NOT_EQUALS": False, 1: True}[predicate["operation"]]
            found = [item for item in found if (item[predicate["key"]] == predicate["stringValue"]) is wanted]
        if query.get("sort_by") == "created_at desc":
            found.sort(key=lambda item: item["created_at"], reverse=True)
        start = int(query.get("page_token") or 0)
        end = start + min(self.page_size, int(query.get("page_size") or self.page_size))
        # `CustomMarshaler` in common/utils.go leaves out empty fields.
        answer = {_KINDS[kind][0]: found[start:end], "total_size": len(found)} if found else {}
        return {**answer, "next_page_token": str(end)} if end < len(found) else answer

    def _handler(server):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _do(self):
                url = urllib.parse.urlsplit(self.path)
                query = dict(urllib.parse.parse_qsl(url.query))
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                server.requests.append((self.command, url.path))
                try:
                    status, content = 200, server.answer(self.command, url.path, query, self.headers, body)
                except ApiError as error:
                    status, content = error.status, _error(error, url.path)
                data = json.dumps(content).encode()
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/dex/auth")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = _do

            def log_message(self, *_):
                pass

        return Handler


def _stamped(key, body):
    now = datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")
    return {"created_at": now, **body, key: str(uuid.uuid4())}


def _error(error, path):
    """Returns an error in the gateway's format or, for uploads, in the upload server's; the proxy sends no text."""
    if not str(error):
        return {}
    if "/upload" in path:
        # `writeErrorToResponse` in server/pipeline_upload_server.go.
        return {"error_message": str(error), "error_details": str(error)}
    # `DefaultHTTPErrorHandler` in runtime/errors.go, grpc-gateway v2.29.0; without `details`, which repeat the error.
    return {"code": _GRPC_CODES.get(error.status, 2), "message": str(error)}
