"""What client and server say to each other, without the waiting: the synchronous and the asynchronous client share it.

Each question is a generator that yields calls and pauses and is sent the answers, so every rule about retries,
deadlines and corrupt images is written once.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections.abc import Generator, Sequence
from typing import Any, TypeVar

import grpc
import numpy as np

from components import features
from serving.client import protocol
from serving.client.errors import ModelNotFoundError, RequestRefusedError, ServerError, explain
from serving.client.protocol import MESSAGES
from serving.client.results import (
    Description,
    InstanceSegmentation,
    Refused,
    Result,
    Segmentation,
    VersionStatus,
)
from serving.client.retries import Retries
from serving.client.settings import Settings
from serving.predictor import decode_mask_png

_Value = TypeVar("_Value")
_SCORES = ("class_share", "confidence")
_INSTANCES = (features.BOXES, features.CLASSES, features.SCORES, features.INSTANCE_PNG)
_MASKS: tuple[str, ...] = (features.MASK_PNG, *_SCORES)
_DEPTH: tuple[str, ...] = (features.DEPTH_PNG, *_MASKS)
# What is asked of a model of masks, one of a segpipe before version 0.2, one of instances, and one of masks and depth.
_OUTPUTS: tuple[tuple[str, ...], ...] = (_MASKS, (features.OLDER_MASK_PNG, *_SCORES), _INSTANCES, _DEPTH)
_STATES = {10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
_NO_SUCH_SIGNATURE = {grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT}
_SWAPS = 3
_TRIES_ALONE = 5


@dataclasses.dataclass(frozen=True)
class Call:
    """Asks the driver to call a method and to send back its response, or to throw in the grpc.RpcError."""

    method: str
    request: Any
    timeout: float


@dataclasses.dataclass(frozen=True)
class Pause:
    """Asks the driver to wait."""

    seconds: float


Steps = Generator[Call | Pause, Any, _Value]


class Conversation:
    """The questions a client can ask; keeps the descriptions of the versions that have answered."""

    def __init__(self, settings: Settings, retries: Retries) -> None:
        self.settings = settings
        self._retries = retries
        self._descriptions: dict[int, Description] = {}
        self._outputs = _MASKS

    def segment(self, images: Sequence[bytes]) -> Steps[list[Result]]:
        """Asks for what the model sees in one batch; an image that the model refuses does not spoil its neighbours'."""
        return (yield from self._settle(list(images), time.monotonic() + self.settings.deadline))

    def describe(self) -> Steps[Description]:
        """Asks what the wanted version says of itself."""
        until = time.monotonic() + self.settings.deadline
        return (yield from self._ask_description(self._spec("describe"), until))

    def status(self) -> Steps[list[VersionStatus]]:
        """Asks for the state of the model's versions, the newest first."""
        request = MESSAGES["GetModelStatusRequest"](model_spec=self._spec())
        until = time.monotonic() + self.settings.deadline
        response = yield from self._exchange(protocol.GET_MODEL_STATUS, request, until)
        found = [
            VersionStatus(each.version, _STATES.get(each.state, "UNKNOWN"), each.status.error_message)
            for each in response.model_version_status
        ]
        return sorted(found, key=lambda each: each.version, reverse=True)

    def signatures(self) -> Steps[dict[str, dict[str, dict[str, str]]]]:
        """Asks for the model's signatures: {signature: {"inputs" or "outputs": {name: type and shape}}}."""
        request = MESSAGES["GetModelMetadataRequest"](model_spec=self._spec(), metadata_field=["signature_def"])
        until = time.monotonic() + self.settings.deadline
        response = yield from self._exchange(protocol.GET_MODEL_METADATA, request, until)
        packed = {entry.key: entry.value.value for entry in response.metadata}.get("signature_def", b"")
        return {
            each.key: {
                side: {tensor.key: _type_and_shape(tensor.value) for tensor in getattr(each.value, side)}
                for side in ("inputs", "outputs")
            }
            for each in MESSAGES["SignatureDefMap"].FromString(packed).signature_def
            if not each.key.startswith("__")  # TensorFlow's own
        }

    def _settle(self, images: list[bytes], until: float) -> Steps[list[Result]]:
        if len(images) == 1:
            return [(yield from self._settle_one(images[0], until))]
        try:
            return (yield from self._answer(images, until))
        except RequestRefusedError as error:
            suspects = _suspects(error.place(len(images)), len(images))
        # A server that batches requests of several clients may name a place in the merged batch: so the suspects
        # are asked again by themselves rather than believed to be at fault.
        others = [place for place in range(len(images)) if place not in suspects]
        results: dict[int, Result] = {}
        for places in (suspects, others):
            part = yield from self._settle([images[place] for place in places], until)
            results.update(zip(places, part, strict=True))
        return [results[place] for place in range(len(images))]

    def _settle_one(self, image: bytes, until: float) -> Steps[Result]:
        """Asks for one image, again while its refusal counts more images and so may mean another client's."""
        for attempt in itertools.count(1):
            try:
                (result,) = yield from self._answer([image], until)
                return result
            except RequestRefusedError as error:
                if error.count in (None, 1) or attempt == _TRIES_ALONE:
                    return Refused(error.fault)
            yield Pause(self._retries.stagger(attempt))
        raise AssertionError("the last try is believed")

    def _answer(self, images: list[bytes], until: float) -> Steps[list[Result]]:
        """Asks for one batch and for the description of the version that answered, where that is news."""
        started = time.monotonic()
        for _ in range(_SWAPS + len(_OUTPUTS) - 1):
            asked = self._outputs
            request = self._question(asked, images)
            try:
                response = yield from self._exchange(protocol.PREDICT, request, until)
            except RequestRefusedError as error:
                if error.is_about_output(asked[0]):
                    # It is another kind of model. Another thread may know that by now, and have chosen.
                    if asked is self._outputs:
                        self._outputs = _OUTPUTS[(_OUTPUTS.index(asked) + 1) % len(_OUTPUTS)]
                    continue
                if not self._descriptions:
                    # Another kind of model refuses every image: its missing description says so better.
                    yield from self._ask_description(self._spec("describe"), until)
                raise
            version = response.model_spec.version.value
            if version not in self._descriptions:
                try:
                    yield from self._ask_description(self._spec("describe", version), until)
                except ModelNotFoundError:
                    continue  # the version was swapped for another since it answered: ask that one
            if asked is not _MASKS or not self._descriptions[version].estimates_depth:
                break
            # Only its description tells that there is more to ask for.
            self._outputs = _DEPTH
        else:
            raise ServerError(
                f"server {self.settings.target}: found {self.settings.wanted} swapped {_SWAPS} times during one "
                "question, expected a version that stays for a while. Ask again when its versions have settled"
            )
        self.settings.limits.check(self._descriptions[version])
        return self._read(response, len(images), self._descriptions[version], time.monotonic() - started)

    def _question(self, outputs: tuple[str, ...], images: list[bytes]) -> Any:
        """Returns the request for some outputs of one batch."""
        limits = self.settings.limits.inputs(len(images)) if self.settings.limits and outputs is _INSTANCES else {}
        signature = features.FIND_INSTANCES if limits else "serving_default"
        request = MESSAGES["PredictRequest"](model_spec=self._spec(signature), output_filter=outputs)
        request.inputs.add(key=features.IMAGE, value=protocol.strings_tensor(images))
        for name, values in limits.items():
            request.inputs.add(key=name, value=protocol.numbers_tensor(values))
        return request

    def _ask_description(self, spec: Any, until: float) -> Steps[Description]:
        try:
            request = MESSAGES["PredictRequest"](model_spec=spec)
            # A server that batches counts a batch by its inputs, so a question without any still has one.
            request.inputs.add(key="unused", value=protocol.strings_tensor([b""]))
            response = yield from self._exchange(protocol.PREDICT, request, until)
            outputs = {entry.key: entry.value for entry in response.outputs}
            (text,) = protocol.strings_of(outputs["json"])
            version = response.model_spec.version.value
            description = Description.from_details(self.settings.model, version, json.loads(text))
            self._descriptions[version] = description
            return description
        except ModelNotFoundError:
            raise
        except ServerError as error:
            if error.code not in _NO_SUCH_SIGNATURE:
                raise
            found = error.reason
        except (KeyError, ValueError) as error:
            found = repr(error)
        raise ServerError(
            f"server {self.settings.target}: found no description in {self.settings.wanted} ({found}); expected a "
            "model that segpipe exported, whose signature describe gives its classes. Export it anew"
        )

    def _read(self, response: Any, count: int, description: Description, seconds: float) -> list[Result]:
        """Turns a response into results. Raises ServerError where it is not what segpipe's models answer."""
        outputs = {entry.key: entry.value for entry in response.outputs}
        answered = {
            "legend": description.class_map,
            "model": self.settings.model,
            "version": response.model_spec.version.value,
            "seconds": seconds,
        }
        try:
            if features.BOXES in outputs:
                return _read_instances(outputs, count, answered)
            names = description.class_map.names
            masks = protocol.strings_of(features.mask_png(outputs))
            shares = protocol.numbers_of(outputs["class_share"]).reshape(count, len(names)).tolist()
            confidences = protocol.numbers_of(outputs["confidence"]).reshape(count).tolist()
            depths = (
                protocol.strings_of(outputs[features.DEPTH_PNG]) if features.DEPTH_PNG in outputs else [None] * count
            )
            return [
                Segmentation(
                    class_map=decode_mask_png(mask),
                    class_share=dict(zip(names, share, strict=True)),
                    confidence=confidence,
                    depth_png=depth,
                    **answered,
                )
                for mask, share, confidence, depth in zip(masks, shares, confidences, depths, strict=True)
            ]
        except (KeyError, ValueError, OSError) as error:
            expected = _INSTANCES if description.finds_instances else _MASKS
            raise ServerError(
                f"server {self.settings.target}: found an answer of {self.settings.wanted} with outputs "
                f"{', '.join(sorted(outputs)) or 'none'} ({error!r}); expected {', '.join(expected)} for {count} "
                f"images and {description.class_map.num_classes} classes. Serve a model that segpipe exported"
            ) from None

    def _exchange(self, method: str, request: Any, until: float) -> Steps[Any]:
        """Calls a method until it answers, its error is final or the time is up. Raises ServerError."""
        started = time.monotonic()
        for attempt in itertools.count(1):
            try:
                return (yield Call(method, request, max(0.001, until - time.monotonic())))
            except grpc.RpcError as error:
                pause = self._retries.pause(attempt, error)
                now = time.monotonic()
                if pause is None or now + pause >= until:
                    spent = f"after {attempt} attempt{'s' if attempt > 1 else ''} in {now - started:.1f} s"
                    raise explain(error, self.settings.target, self.settings.wanted, spent) from None
            yield Pause(pause)

    def _spec(self, signature: str = "", version: int | None = None) -> Any:
        spec = MESSAGES["ModelSpec"](name=self.settings.model, signature_name=signature)
        version = self.settings.version if version is None else version
        if version is not None:
            spec.version.value = version
        elif self.settings.label is not None:
            spec.version_label = self.settings.label
        return spec


def _read_instances(outputs: dict[str, Any], count: int, answered: dict[str, Any]) -> list[Result]:
    """Returns the instances of each image. Raises KeyError or ValueError for other outputs."""
    scores = protocol.numbers_of(outputs[features.SCORES]).reshape(count, -1)
    most = scores.shape[1]
    rows = {
        features.BOXES: protocol.numbers_of(outputs[features.BOXES]).reshape(count, most, 4),
        features.CLASSES: protocol.numbers_of(outputs[features.CLASSES], "int64").reshape(count, most),
        features.SCORES: scores,
        features.INSTANCE_PNG: np.array(protocol.strings_of(outputs[features.INSTANCE_PNG]), object).reshape(
            count, most
        ),
    }
    return [
        InstanceSegmentation.of_outputs({name: each[index] for name, each in rows.items()}, **answered)
        for index in range(count)
    ]


def refused(settings: Settings, result: Refused) -> RequestRefusedError:
    """Returns the error for an image that was asked about by itself and refused."""
    return RequestRefusedError(
        f"server {settings.target}: {settings.wanted} cannot read the image: {result.reason}. "
        "Send a sound PNG or JPEG image",
        grpc.StatusCode.INVALID_ARGUMENT,
        result.reason,
    )


def _suspects(named: int | None, count: int) -> list[int]:
    """Returns the places of a refused batch to ask by themselves: the one that was named, or the first half."""
    return list(range(count // 2)) if named is None else [named]


def _type_and_shape(info: Any) -> str:
    axes = ", ".join("?" if size < 0 else str(size) for size in protocol.shape_of(info))
    return f"{protocol.DTYPES.get(info.dtype, f'type {info.dtype}')} [{axes}]"
