"""The client against a real gRPC server: typed answers, batches, retries, deadlines, pinned versions."""

import asyncio
import subprocess
import sys
import threading

import grpc
import numpy as np
import pytest
from toy_servicer import CLASS_MAP, ToyModel, picture, serving

from components.class_map import ClassMap
from components.errors import EXIT_USAGE, UsageError
from serving.client import (
    AsyncClient,
    Client,
    DeadlineError,
    MessageTooLargeError,
    ModelNotFoundError,
    Refused,
    RequestRefusedError,
    Retries,
    ServerBusyError,
    ServerError,
    ServerUnavailableError,
)
from serving.client.settings import proxy_options

_QUICK = Retries(attempts=4, first_pause=0.01)
_UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "connection reset")
_MERGED = (grpc.StatusCode.INVALID_ARGUMENT, "image[5] of 8: found a PNG that is truncated")
_FULL = (grpc.StatusCode.RESOURCE_EXHAUSTED, "The batch scheduling queue is full")


@pytest.fixture
def client(server):
    with Client(server, model="toy", retries=_QUICK, batch_size=4) as client:
        yield client


def test_an_answer_is_typed_and_has_its_legend(client):
    answer = client.segment(picture(250, (30, 40), "JPEG"))

    assert (answer.class_map.shape, answer.class_map.dtype) == ((30, 40), np.uint8)
    assert answer.class_map[:, :16].all()
    assert not answer.class_map[:, 24:].any()
    assert answer.class_share == pytest.approx({"sky": 0.5, "road": 0.5, "void": 0.0}, abs=0.05)
    assert answer.confidence == 0.75
    assert (answer.model, answer.version, answer.legend) == ("toy", 3, CLASS_MAP)
    assert 0 < answer.seconds < 60


def test_models_of_the_previous_release_are_supported_and_can_be_swapped(client, toy):
    for name in ("mask_png", "mask_png_bytes", "mask_png"):
        toy.mask_name = name
        assert client.segment(picture(0)).class_map.all()
    # The outputs that worked last are requested first.
    asked = len(toy.requests)
    client.segment(picture(0))
    assert len(toy.requests) == asked + 1


def test_depth_is_requested_if_the_description_has_it(client, toy):
    assert client.segment(picture(0)).depth_png is None

    toy.depth_scale, toy.versions = 256.0, {4: CLASS_MAP}
    assert client.segment(picture(0)).depth_png == b"depth of 0"
    asked = len(toy.requests)
    assert [each.depth_png for each in client.segment_batch([picture(0), picture(9)])] == [b"depth of 0", b"depth of 1"]
    assert len(toy.requests) == asked + 1

    toy.depth_scale, toy.versions = None, {5: CLASS_MAP}
    assert client.segment(picture(0)).depth_png is None


def test_the_description_is_the_model_s(client):
    description = client.describe()

    assert description.class_map == CLASS_MAP
    assert description.input_size == (24, 32)
    assert description.metrics == {"mean_iou": 0.5}


def test_many_images_go_in_batches_and_come_back_in_order(client, toy):
    images = [(f"{index}.png", picture(250, (10 + index, 12))) for index in range(11)]

    answers = dict(client.segment_all(images))

    assert list(answers) == [name for name, _ in images]
    assert [answer.class_map.shape[0] for answer in answers.values()] == list(range(10, 21))
    assert sorted(toy.batches) == [3, 4, 4]


def test_images_are_read_lazily(client):
    taken = []
    images = ((index, taken.append(index) or picture(250)) for index in range(100))

    answers = client.segment_all(images)
    next(answers)
    answers.close()

    assert len(taken) <= 9


@pytest.mark.parametrize("named", [True, False], ids=["the server names it", "it does not"])
def test_a_corrupt_image_is_named_and_the_others_are_answered(client, toy, named):
    toy.names_the_image = named
    images = {f"{index}.png": picture(250) for index in range(4)} | {"2.png": b"no image"}

    answers = dict(client.segment_all(images.items()))

    assert isinstance(answers["2.png"], Refused)
    assert "found a PNG that is truncated" in answers["2.png"].reason
    assert all(answers[name].version == 3 for name in ("0.png", "1.png", "3.png"))


def test_an_index_of_a_merged_batch_is_ignored(client, toy):
    toy.failures = [(grpc.StatusCode.INVALID_ARGUMENT, "image[1] of 3: found a PNG that is truncated")]

    answers = client.segment_batch([picture(250)] * 3)

    assert [answer.version for answer in answers] == [3, 3, 3]


@pytest.mark.parametrize("times", [1, 4])
def test_a_single_image_is_not_rejected_for_another_client_s_image(client, toy, times):
    client.describe()
    toy.failures = [_MERGED] * times

    assert client.segment(picture(250)).version == 3
    assert len(toy.batches) == times + 1


def test_an_error_about_one_image_is_not_retried(client, toy):
    with pytest.raises(RequestRefusedError, match="found a PNG that is truncated"):
        client.segment(b"no image")

    assert len(toy.batches) == 1


def test_an_error_that_persists_in_merged_batches_is_reported(client, toy):
    client.describe()
    toy.failures = [_MERGED] * 50

    (answer,) = client.segment_batch([picture(250)])

    assert answer == Refused("found a PNG that is truncated")
    assert len(toy.failures) == 45


def test_a_model_without_image_input_is_distinguished_from_corrupt_images(client, toy):
    toy.failures = [(grpc.StatusCode.INVALID_ARGUMENT, "input size does not match signature")] * 2

    with pytest.raises(ServerError, match="found no description in model toy .*Export it again"):
        client.segment_batch([picture(250)] * 3)


def test_a_single_corrupt_image_is_an_error(client):
    with pytest.raises(
        RequestRefusedError, match=r"model toy cannot read the image: found a PNG that is truncated\. Send"
    ):
        client.segment(b"no image")


@pytest.mark.parametrize("failure", [_UNAVAILABLE, _FULL], ids=["unavailable", "queue full"])
def test_a_transient_failure_is_retried(client, toy, failure):
    toy.failures = [failure] * 3

    answer = client.segment(picture(250))

    assert answer.version == 3
    assert len(toy.batches) == 4


@pytest.mark.parametrize(
    ("failure", "error"), [(_UNAVAILABLE, ServerUnavailableError), (_FULL, ServerBusyError)], ids=["down", "busy"]
)
def test_a_permanent_failure_is_explained_after_the_last_attempt(client, toy, server, failure, error):
    toy.failures = [failure] * 9

    with pytest.raises(error, match=rf"server {server}: found {failure[0].name}.*after 4 attempts"):
        client.segment(picture(250))
    assert len(toy.failures) == 5


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.PERMISSION_DENIED]
)
def test_a_deterministic_failure_is_not_retried(client, toy, code):
    toy.failures = [(code, "as it is")]

    with pytest.raises(ServerError, match=f"{code.name} \\(as it is\\)"):
        client.segment(picture(250))
    assert len(toy.requests) == 1


def test_pauses_grow_and_differ_from_client_to_client():
    retries = Retries(attempts=10, first_pause=0.1, longest_pause=1.0)
    error = grpc.RpcError()
    error.code, error.details = (lambda: grpc.StatusCode.UNAVAILABLE), (lambda: "")

    pauses = [[retries.pause(attempt, error) for _ in range(50)] for attempt in range(1, 10)]

    for attempt, drawn in enumerate(pauses):
        longest = min(1.0, 0.1 * 2**attempt)
        assert all(longest / 2 <= pause <= longest for pause in drawn)
        assert len(set(drawn)) > 10
    assert retries.pause(10, error) is None


def test_the_deadline_holds_across_attempts(toy, server):
    toy.failures = [_UNAVAILABLE] * 100
    patient = Retries(attempts=1000, first_pause=0.05, longest_pause=0.05)

    # The last attempt may exceed the deadline itself.
    ends = (ServerUnavailableError, DeadlineError)
    with Client(server, model="toy", deadline=0.5, retries=patient) as client, pytest.raises(ends):
        client.segment(picture(250))
    assert len(toy.failures) > 80


def test_an_answer_that_comes_too_late_is_a_deadline_error(toy, server):
    toy.seconds_of_work = 30

    with Client(server, model="toy", deadline=0.3) as client:
        with pytest.raises(DeadlineError, match="DEADLINE_EXCEEDED"):
            client.segment(picture(250))
        toy.released.set()


def test_the_client_reconnects_to_a_restarted_server(toy):
    with serving(ToyModel()) as address:
        client = Client(address, model="toy", retries=Retries(attempts=20, first_pause=0.1, longest_pause=0.3))
        client.segment(picture(250))
    started = threading.Event()
    port = int(address.rsplit(":", 1)[1])
    answers = []
    asking = threading.Thread(target=lambda: (started.set(), answers.append(client.segment(picture(250)))))
    with client:
        asking.start()
        started.wait()
        with serving(toy, port=port):
            asking.join()
    assert answers[0].version == 3


def test_no_server_at_all_is_explained():
    with (
        Client("localhost:1", retries=Retries(attempts=2, first_pause=0.01)) as client,
        pytest.raises(ServerUnavailableError, match="server localhost:1: found UNAVAILABLE.*Check the address"),
    ):
        client.segment(picture(250))


def test_a_version_or_a_label_selects_the_model(toy, server):
    toy.versions[4] = CLASS_MAP

    for settings, version in (({}, 4), ({"version": 3}, 3), ({"label": "stable"}, 3)):
        with Client(server, model="toy", **settings) as client:
            assert client.segment(picture(250)).version == version


def test_the_legend_is_the_one_of_the_version_that_answered(client, toy):
    before = client.segment(picture(250))
    toy.versions[4] = ClassMap(("light", "dark"), ((1, 1, 1), (2, 2, 2)))
    after = client.segment(picture(250))

    assert before.legend.names == ("sky", "road", "void")
    assert (after.version, after.legend.names) == (4, ("light", "dark"))
    assert set(after.class_share) == {"light", "dark"}


def test_a_request_is_repeated_if_its_version_was_unloaded(client, toy):
    gone = ClassMap(("a", "b"), ((1, 1, 1), (2, 2, 2)))
    toy.versions = {2: gone}
    answer = toy._segment

    def swap(*arguments):
        answer(*arguments)
        toy.versions = {3: CLASS_MAP}

    toy._segment = swap

    assert client.segment(picture(250)).version == 3


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"model": "fcn8"}, "expected model fcn8"), ({"model": "toy", "version": 9}, "expected model toy version 9")],
)
def test_a_model_that_is_not_served_is_a_usage_error(server, settings, words):
    with Client(server, **settings) as client, pytest.raises(ModelNotFoundError, match=words) as caught:
        client.describe()
    assert caught.value.exit_code == EXIT_USAGE


def test_a_model_without_description_is_distinguished_from_a_server_error(client, toy):
    toy.failures = [(grpc.StatusCode.FAILED_PRECONDITION, 'Serving signature key "describe" not found.')]

    with pytest.raises(ServerError, match="found no description in model toy .*Export it again"):
        client.describe()


def test_an_answer_beyond_the_limit_is_explained_at_once(toy, server):
    with Client(server, model="toy", max_message_bytes=4096) as client:
        with pytest.raises(MessageTooLargeError, match="Send fewer images"):
            client.segment(picture(250) + bytes(5000))
        assert toy.batches == []


def test_requests_keep_within_the_limit_on_bytes(toy, server):
    padded = picture(250) + bytes(10_000)
    with Client(server, model="toy", max_message_bytes=(64 << 10) + 25_000, batch_size=100) as client:
        assert len(client.segment_batch([padded] * 7)) == 7
    assert max(toy.batches) == 2


def test_status_lists_the_versions(client, toy):
    toy.versions[4] = CLASS_MAP

    assert [(each.version, each.state, each.error) for each in client.status()] == [
        (4, "AVAILABLE", ""),
        (3, "AVAILABLE", ""),
    ]


def test_signatures_list_names_types_and_shapes(client):
    assert client.signatures() == {
        "serving_default": {"inputs": {"image": "string [?]"}, "outputs": {"class_map": "uint8 [?, 24, 32]"}}
    }


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "dns:///localhost", "ipv4:127.0.0.1"])
def test_no_proxy_is_used_for_a_local_server(server, monkeypatch, host):
    for name in ("grpc_proxy", "https_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # no listener

    with Client(f"{host}:{server.rsplit(':', 1)[1]}", model="toy", deadline=20) as client:
        assert client.describe().version == 3


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("127.1.2.3:8500", [("grpc.enable_http_proxy", 0)]),
        ("[::1]:8500", [("grpc.enable_http_proxy", 0)]),
        ("ipv6:[::1]:8500", [("grpc.enable_http_proxy", 0)]),
        ("localhost", [("grpc.enable_http_proxy", 0)]),
        ("dns://8.8.8.8/localhost:8500", [("grpc.enable_http_proxy", 0)]),
        ("models.example:8500", []),
        ("localhost.example:8500", []),
        ("10.0.0.1:8500", []),
        ("dns:///models:8500", []),
        ("unix:/tmp/models", []),
    ],
)
def test_only_local_servers_bypass_the_proxy(target, options):
    assert proxy_options(target) == options


def test_both_a_version_and_a_label_are_refused():
    with pytest.raises(UsageError, match="expected at most one"):
        Client("localhost:1", version=1, label="stable")


def test_asyncio_gives_the_same_answers(toy, server):
    toy.failures = [_UNAVAILABLE, _FULL]
    images = {f"{index}.png": picture(250) for index in range(7)} | {"5.png": b"no image"}

    async def ask():
        async with AsyncClient(server, model="toy", retries=_QUICK, batch_size=3) as client:
            answers = {key: answer async for key, answer in client.segment_all(images.items())}
            return answers, await client.segment(picture(250)), await client.describe(), await client.status()

    answers, one, description, status = asyncio.run(ask())

    assert list(answers) == list(images)
    assert [key for key, answer in answers.items() if isinstance(answer, Refused)] == ["5.png"]
    assert (one.version, description.class_map, status[0].version) == (3, CLASS_MAP, 3)


def test_asyncio_deadline(toy, server):
    toy.seconds_of_work = 30

    async def ask():
        async with AsyncClient(server, model="toy", deadline=0.3) as client:
            await client.segment(picture(250))

    with pytest.raises(DeadlineError):
        asyncio.run(ask())
    toy.released.set()


def test_the_client_needs_no_tensorflow():
    program = "import sys, serving.client; sys.exit(bool({'tensorflow', 'tfx', 'keras'} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
