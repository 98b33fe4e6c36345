"""Reads entries of annotation files; the errors say which entry is wrong and what to do."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from components.errors import UsageError
from components.validation import explain

Model = TypeVar("Model", bound=BaseModel)


class BadAnnotationError(UsageError):
    """A file or an entry that cannot be read. The message reads "WHERE: found A; expected B. ACTION"."""


@contextlib.contextmanager
def annotated(where: str, action: str) -> Iterator[None]:
    """Turns a ValueError or OverflowError into a BadAnnotationError that says where it is and what to do.

    Huge and infinite numbers raise OverflowError.
    """
    try:
        yield
    except (ValueError, OverflowError) as error:
        raise BadAnnotationError(f"{where}: {error}. {action}") from None


def parse_json(data: bytes, where: object) -> Any:
    """Returns the content of a JSON file's bytes. Raises BadAnnotationError."""
    try:
        return json.loads(data)
    except ValueError as error:
        raise BadAnnotationError(
            f"{where}: found invalid JSON: {error}; expected a JSON file. Export or copy it again"
        ) from None


def validate(model: type[Model], value: Any, where: object) -> Model:
    """Returns a value as a pydantic model. Raises BadAnnotationError with the place, the field and its value."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        if not isinstance(value, dict):
            message = f"{where}: found {value!r:.80}; expected an object with the keys {', '.join(model.model_fields)}"
        else:
            message = explain(error, model, str(where))
        raise BadAnnotationError(f"{message}. Correct the entry, or export the data again") from None
