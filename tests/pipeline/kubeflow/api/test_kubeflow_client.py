"""Runs on a Kubeflow Pipelines server: uploads, starts, stops and all error messages."""

import datetime
import socket

import pytest
from compiled_package import write_package
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kubeflow_server import KubeflowServer

from components.errors import SegpipeError, UsageError
from pipeline.kubeflow.client import Kubeflow
from pipeline.kubeflow.connection import Connection
from pipeline.kubeflow.package import read_arguments, read_package


@pytest.fixture
def kubeflow(server):
    return Kubeflow(Connection(server.host))


def _submit(kubeflow, path, name="first", *assignments):
    package = read_package(path)
    arguments = read_arguments(package, assignments or ("data=/data",))
    return kubeflow.submit(kubeflow.upload(package), name, arguments, kubeflow.experiment("segpipe"))


def test_a_run_has_the_uploaded_version_and_its_parameters(server, kubeflow, package):
    assignments = ("data=gs://b/7", "epochs=3", "learning_rate=1e-3", "augment=false", "min_class_iou={car: 0.2}")

    run = _submit(kubeflow, package, "nightly", *assignments)

    (started,) = server.all("runs")
    (version,) = server.all("versions")
    (experiment,) = server.all("experiments")
    assert (started["run_id"], started["display_name"]) == (run.run_id, "nightly")
    assert started["experiment_id"] == experiment["experiment_id"]
    assert started["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    assert started["runtime_config"]["parameters"] == {
        "data": "gs://b/7",
        "epochs": 3,
        "learning_rate": 0.001,
        "augment": False,
        "min_class_iou": {"car": 0.2},
    }
    assert version["pipeline_spec"]["pipelineInfo"]["name"] == "segpipe"


def test_the_same_pipeline_is_uploaded_once_and_a_changed_one_as_a_new_version(server, kubeflow, package, tmp_path):
    first = kubeflow.upload(read_package(package))
    again = kubeflow.upload(read_package(package))
    uploads = len(server.asked("POST", "/upload_version"))
    changed = kubeflow.upload(read_package(write_package(tmp_path / "other.yaml", image="example.com/segpipe:2")))

    assert (again.pipeline_id, again.pipeline_version_id) == (first.pipeline_id, first.pipeline_version_id)
    assert changed.pipeline_id == first.pipeline_id
    assert changed.pipeline_version_id != first.pipeline_version_id
    assert uploads == 1
    assert len(server.all("pipelines")) == 1
    assert len(server.all("versions")) == 2


def test_listings_are_read_to_their_last_page(server, kubeflow, package):
    for number in range(5):
        _submit(kubeflow, package, f"run {number}")

    assert [run.display_name for run in kubeflow.runs(limit=100)] == [f"run {number}" for number in (4, 3, 2, 1, 0)]
    assert len(kubeflow.runs(limit=3)) == 3


def test_a_run_is_stopped_by_its_name_or_its_id(server, kubeflow, package):
    by_name, by_id = _submit(kubeflow, package, "one"), _submit(kubeflow, package, "two")

    kubeflow.stop(kubeflow.find_run("one"))
    kubeflow.stop(kubeflow.find_run(by_id.run_id))

    assert {kubeflow.find_run(run.run_id).state for run in (by_name, by_id)} == {"CANCELING"}
    with pytest.raises(UsageError, match="no run of that name or id"):
        kubeflow.find_run("three")


def test_a_run_without_a_workflow_cannot_be_stopped_and_the_message_says_what_to_do(server, kubeflow, package):
    run = _submit(kubeflow, package)
    server.without_workflow.add(run.run_id)

    for answer in ("answered 500 .*terminating its workflow", "it is being stopped already"):
        with pytest.raises(SegpipeError, match=answer) as error:
            kubeflow.stop(kubeflow.find_run(run.run_id))
        assert f"--selector pipeline/runid={run.run_id}" in str(error.value)
        assert f"delete the run at {server.host}/#/runs/details/{run.run_id}" in str(error.value)
    # The run ends after its state was read.
    with pytest.raises(SegpipeError, match="answered 400 .*Row not found"):
        kubeflow.stop(run)


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        ((), "parameter data has no default"),
        (("data=x", "epoch=3"), "did you mean epochs"),
        (("data=x", "epochs=three"), "found 'three', expected NUMBER_INTEGER"),
        (("data=x", "epochs=true"), "expected NUMBER_INTEGER"),
        (("data",), "expected name=value"),
    ],
)
def test_a_wrong_parameter_is_refused_before_anything_is_sent(package, assignments, message):
    with pytest.raises(UsageError, match=message):
        read_arguments(read_package(package), assignments)


@pytest.mark.parametrize("content", ["", "a: [", "just text", "pipelineInfo: {}"])
def test_a_file_without_a_pipeline_is_refused(tmp_path, content):
    path = tmp_path / "pipeline.yaml"
    path.write_text(content)

    with pytest.raises(UsageError, match="segpipe kubeflow compile"):
        read_package(str(path))


def test_a_token_and_a_namespace_are_accepted(package):
    with KubeflowServer(token="secret", namespace="team") as server:
        run = _submit(Kubeflow(Connection(server.host, namespace="team", token="secret")), package)

        assert [item["run_id"] for item in server.all("runs")] == [run.run_id]
        assert server.violations == []


def test_a_cookie_is_accepted(package):
    with KubeflowServer(cookie="session=abc") as server:
        _submit(Kubeflow(Connection(server.host, cookie="session=abc")), package)

        assert len(server.all("runs")) == 1


@pytest.mark.parametrize(
    ("options", "connection", "message"),
    [
        ({"token": "secret"}, {}, "401, no credentials were sent.*--token-file"),
        ({"token": "secret"}, {"token": "old"}, "401, the token or cookie was not accepted"),
        ({"cookie": "session=abc"}, {}, "redirects to a login page.*SEGPIPE_KUBEFLOW_COOKIE"),
    ],
)
def test_missing_credentials_are_explained(options, connection, message):
    with KubeflowServer(**options) as server, pytest.raises(SegpipeError, match=message):
        Kubeflow(Connection(server.host, **connection))


def test_a_foreign_namespace_is_named(package):
    with KubeflowServer(namespace="team") as server:
        kubeflow = Kubeflow(Connection(server.host, namespace="others"))
        with pytest.raises(SegpipeError, match=r"403, not allowed in namespace 'others'.*--namespace"):
            kubeflow.upload(read_package(package))


def test_a_server_of_another_kind_is_recognised(server):
    with pytest.raises(SegpipeError, match=r"404.*ends in /pipeline"):
        Kubeflow(Connection(server.host + "/elsewhere"))


def test_an_error_in_the_upload_server_s_form_is_shown(server, kubeflow, package):
    server.refuse = {("POST", "/upload_version"): 500}

    with pytest.raises(SegpipeError, match=r"answered 500 \(refused on purpose\)"):
        kubeflow.upload(read_package(package))


def test_an_unreachable_address_is_explained():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(SegpipeError, match=r"cannot be reached.*kubectl port-forward"):
            Kubeflow(Connection(host))


def test_an_address_without_a_scheme_is_refused():
    with pytest.raises(UsageError, match="http:// or https://"):
        Kubeflow(Connection("localhost:8888"))


def test_a_private_ca_certificate_is_trusted_if_it_is_given(tmp_path, package):
    certificate, authority = _self_signed(tmp_path)
    with KubeflowServer(certificate=certificate) as server:
        with pytest.raises(SegpipeError, match=r"not signed by a known authority.*--ca"):
            Kubeflow(Connection(server.host))
        _submit(Kubeflow(Connection(server.host, ca_file=authority)), package)

        assert len(server.all("runs")) == 1


def _self_signed(folder):
    """Returns the path of a certificate for localhost with its key, and that of the certificate alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(certificate + private)
    (folder / "authority.pem").write_bytes(certificate)
    return str(folder / "server.pem"), str(folder / "authority.pem")
