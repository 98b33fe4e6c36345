"""The calls of a client without their I/O, shared by the synchronous and the asynchronous client.

Each method is a generator that yields calls and pauses and receives the responses. So the rules about retries,
deadlines and corrupt images are written once.
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
    Answer,
    Description,
    InstanceSegmentation,
    Refused,
    Result,
    Segmentation,
    VersionStatus,
)
from serving.client.retries import Retries
from serving.client.settings import ClientSettings
from serving.predictor import decode_mask_png

_Value = TypeVar("_Value")
_SCORES = ("class_share", "confidence")
_INSTANCES = (features.BOXES, features.CLASSES, features.SCORES, features.INSTANCE_PNG)
_MASKS: tuple[str, ...] = (features.MASK_PNG, *_SCORES)
_DEPTH: tuple[str, ...] = (features.DEPTH_PNG, *_MASKS)
# The outputs of a semantic model, of one exported before segpipe 0.2, of an instance model, and of one with depth.
_OUTPUTS: tuple[tuple[str, ...], ...] = (_MASKS, (features.OLDER_MASK_PNG, *_SCORES), _INSTANCES, _DEPTH)
_NO_SUCH_SIGNATURE = {grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT}
_MAX_SWAPS = 3
_MAX_TRIES_ALONE = 5


@dataclasses.dataclass(frozen=True)
class Call:
    """Requests a gRPC call. The driver sends back the response, or the grpc.RpcError."""

    method: str
    request: Any
    timeout: float


@dataclasses.dataclass(frozen=True)
class Pause:
    """Requests a pause."""

    seconds: float


Steps = Generator[Call | Pause, Any, _Value]


class ClientCore:
    """The calls of a client. Caches the description of each version that has answered."""

    def __init__(self, settings: ClientSettings, retries: Retries) -> None:
        self.settings = settings
        self._retries = retries
        self._descriptions: dict[int, Description] = {}
        self._outputs = _MASKS

    def segment(self, images: Sequence[bytes]) -> Steps[list[Result]]:
        """Segments one batch; an image that the model rejects does not affect the others."""
        return (yield from self._segment(list(images), time.monotonic() + self.settings.deadline))

    def segment_one(self, image: bytes) -> Steps[Answer]:
        """Segments one image. Raises RequestRefusedError if the model cannot read it."""
        (result,) = yield from self.segment([image])
        if isinstance(result, Refused):
            raise RequestRefusedError(
                f"server {self.settings.target}: {self.settings.wanted} cannot read the image: {result.reason}. "
                "Send a valid PNG or JPEG image",
                grpc.StatusCode.INVALID_ARGUMENT,
                result.reason,
            )
        return result

    def describe(self) -> Steps[Description]:
        """Returns the description of the configured version."""
        until = time.monotonic() + self.settings.deadline
        return (yield from self._describe(self._spec("describe"), until))

    def status(self) -> Steps[list[VersionStatus]]:
        """Returns the state of the model's versions, newest first."""
        request = MESSAGES["GetModelStatusRequest"](model_spec=self._spec())
        until = time.monotonic() + self.settings.deadline
        response = yield from self._call(protocol.GET_MODEL_STATUS, request, until)
        statuses = map(VersionStatus.from_proto, response.model_version_status)
        return sorted(statuses, key=lambda status: status.version, reverse=True)

    def signatures(self) -> Steps[dict[str, dict[str, dict[str, str]]]]:
        """Returns the model's signatures: {signature: {"inputs" or "outputs": {name: type and shape}}}."""
        request = MESSAGES["GetModelMetadataRequest"](model_spec=self._spec(), metadata_field=["signature_def"])
        until = time.monotonic() + self.settings.deadline
        response = yield from self._call(protocol.GET_MODEL_METADATA, request, until)
        packed = {entry.key: entry.value.value for entry in response.metadata}.get("signature_def", b"")
        return {
            each.key: {
                side: {tensor.key: _type_and_shape(tensor.value) for tensor in getattr(each.value, side)}
                for side in ("inputs", "outputs")
            }
            for each in MESSAGES["SignatureDefMap"].FromString(packed).signature_def
            if not each.key.startswith("__")  # TensorFlow's own
        }

    def _segment(self, images: list[bytes], until: float) -> Steps[list[Result]]:
        if len(images) == 1:
            return [(yield from self._segment_one(images[0], until))]
        try:
            return (yield from self._predict(images, until))
        except RequestRefusedError as error:
            # Without an index in this batch, send the first half by itself.
            suspects = list(range(len(images) // 2))
            if error.index is not None and error.count == len(images):
                suspects = [error.index]
        # A server that merges requests of several clients may name an index in the merged batch. So the suspects are
        # only sent again by themselves.
        others = [place for place in range(len(images)) if place not in suspects]
        results: dict[int, Result] = {}
        for places in (suspects, others):
            part = yield from self._segment([images[place] for place in places], until)
            results.update(zip(places, part, strict=True))
        return [results[place] for place in range(len(images))]

    def _segment_one(self, image: bytes, until: float) -> Steps[Result]:
        """Sends one image, again if the error is about a merged batch and so may mean another client's image."""
        for attempt in itertools.count(1):
            try:
                (result,) = yield from self._predict([image], until)
                return result
            except RequestRefusedError as error:
                if error.count in (None, 1) or attempt == _MAX_TRIES_ALONE:
                    return Refused(error.issue)
            yield Pause(self._retries.stagger(attempt))
        raise AssertionError("the last try returns")

    def _predict(self, images: list[bytes], until: float) -> Steps[list[Result]]:
        """Sends one batch, and asks for the description of the version that answered if it is not known yet."""
        started = time.monotonic()
        for _ in range(_MAX_SWAPS + len(_OUTPUTS) - 1):
            asked = self._outputs
            request = self._predict_request(asked, images)
            try:
                response = yield from self._call(protocol.PREDICT, request, until)
            except RequestRefusedError as error:
                if error.is_about_output(asked[0]):
                    # Another kind of model. Another thread may have switched the outputs already.
                    if asked is self._outputs:
                        self._outputs = _OUTPUTS[(_OUTPUTS.index(asked) + 1) % len(_OUTPUTS)]
                    continue
                if not self._descriptions:
                    # A model that is not from segpipe rejects every image; this raises a clearer error.
                    yield from self._describe(self._spec("describe"), until)
                raise
            version = response.model_spec.version.value
            if version not in self._descriptions:
                try:
                    yield from self._describe(self._spec("describe", version), until)
                except ModelNotFoundError:
                    continue  # the version was replaced after it answered
            if asked is not _MASKS or not self._descriptions[version].estimates_depth:
                break
            # Only the description shows that the model has a depth output.
            self._outputs = _DEPTH
        else:
            raise ServerError(
                f"server {self.settings.target}: found {self.settings.wanted} replaced {_MAX_SWAPS} times during one "
                "request, expected a stable version. Try again later"
            )
        self.settings.limits.check(self._descriptions[version])
        return self._read(response, len(images), self._descriptions[version], time.monotonic() - started)

    def _predict_request(self, outputs: tuple[str, ...], images: list[bytes]) -> Any:
        limits = self.settings.limits.inputs(len(images)) if self.settings.limits and outputs is _INSTANCES else {}
        signature = features.FIND_INSTANCES if limits else "serving_default"
        request = MESSAGES["PredictRequest"](model_spec=self._spec(signature), output_filter=outputs)
        request.inputs.add(key=features.IMAGE, value=protocol.strings_tensor(images))
        for name, values in limits.items():
            request.inputs.add(key=name, value=protocol.numbers_tensor(values))
        return request

    def _describe(self, spec: Any, until: float) -> Steps[Description]:
        try:
            request = MESSAGES["PredictRequest"](model_spec=spec)
            # A batching server counts rows by the inputs, so send one although the signature has none.
            request.inputs.add(key="unused", value=protocol.strings_tensor([b""]))
            response = yield from self._call(protocol.PREDICT, request, until)
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
            "model that segpipe exported, with the signature describe. Export it again"
        )

    def _read(self, response: Any, count: int, description: Description, seconds: float) -> list[Result]:
        """Converts a response to results. Raises ServerError if it is not the response of a segpipe model."""
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
            fractions = protocol.numbers_of(outputs["class_share"]).reshape(count, len(names)).tolist()
            confidences = protocol.numbers_of(outputs["confidence"]).reshape(count).tolist()
            depths = (
                protocol.strings_of(outputs[features.DEPTH_PNG]) if features.DEPTH_PNG in outputs else [None] * count
            )
            return [
                Segmentation(
                    class_map=decode_mask_png(mask),
                    class_share=dict(zip(names, fraction, strict=True)),
                    confidence=confidence,
                    depth_png=depth,
                    **answered,
                )
                for mask, fraction, confidence, depth in zip(masks, fractions, confidences, depths, strict=True)
            ]
        except (KeyError, ValueError, OSError) as error:
            expected = _INSTANCES if description.finds_instances else _MASKS
            raise ServerError(
                f"server {self.settings.target}: found an answer of {self.settings.wanted} with outputs "
                f"{', '.join(sorted(outputs)) or 'none'} ({error!r}); expected {', '.join(expected)} for {count} "
                f"images and {description.class_map.num_classes} classes. Serve a model that segpipe exported"
            ) from None

    def _call(self, method: str, request: Any, until: float) -> Steps[Any]:
        """Calls a method until it answers, fails for good or the time is up. Raises ServerError."""
        started = time.monotonic()
        for attempt in itertools.count(1):
            answer = yield Call(method, request, max(0.001, until - time.monotonic()))
            if not isinstance(answer, grpc.RpcError):
                return answer
            pause = self._retries.pause(attempt, answer)
            now = time.monotonic()
            if pause is None or now + pause >= until:
                spent = f"after {attempt} attempt{'s' if attempt > 1 else ''} in {now - started:.1f} s"
                raise explain(answer, self.settings.target, self.settings.wanted, spent)
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
    limit = scores.shape[1]
    rows = {
        features.BOXES: protocol.numbers_of(outputs[features.BOXES]).reshape(count, limit, 4),
        features.CLASSES: protocol.numbers_of(outputs[features.CLASSES], "int64").reshape(count, limit),
        features.SCORES: scores,
        features.INSTANCE_PNG: np.array(protocol.strings_of(outputs[features.INSTANCE_PNG]), object).reshape(
            count, limit
        ),
    }
    return [
        InstanceSegmentation.of_outputs({name: each[index] for name, each in rows.items()}, **answered)
        for index in range(count)
    ]


def _type_and_shape(info: Any) -> str:
    axes = ", ".join("?" if size < 0 else str(size) for size in protocol.shape_of(info))
    return f"{protocol.DTYPES.get(info.dtype, f'type {info.dtype}')} [{axes}]"
