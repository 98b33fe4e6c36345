"""Options that several commands have, and a decorator for commands that share a group of them."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from pipeline.configuration.presets import DEFAULT_MODEL, MODELS, PRESETS

if TYPE_CHECKING:
    from serving.client.settings import Tls

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SettingsFile = Annotated[str | None, typer.Option(help="Read settings from a YAML file.", metavar="FILE")]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", help="Set any setting, as training.learning_rate=1e-4; repeatable.", metavar="KEY=VALUE"),
]
# Without it, the model is the one that the settings name.
ChosenModel = Annotated[
    str | None,
    typer.Option(
        help=f"Architecture: {', '.join(MODELS)}.",
        show_default=f"model.name of --config or --set, else {DEFAULT_MODEL}",
    ),
]
Preset = Annotated[str, typer.Option(help=f"Settings that go together: {', '.join(PRESETS)}.")]
Size = Annotated[
    str | None,
    typer.Option(
        help="Height and width of the network's input in pixels, as 192x256.",
        metavar="HxW",
        show_default="the preset's",
    ),
]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training split.", min=1, show_default="the preset's")]
Description = Annotated[
    str,
    typer.Option(help="YAML that describes the folder, or the name of a built-in description; auto recognises it."),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TlsOptions:
    """The options of an encrypted connection to a model server."""

    tls: Annotated[bool, typer.Option("--tls", help="Encrypt the connection; implied by the three files.")] = False
    tls_ca: Annotated[str | None, typer.Option(help="PEM file of CA certificates.", show_default="gRPC's own")] = None
    tls_cert: Annotated[str | None, typer.Option(help="PEM file of the client's certificate.")] = None
    tls_key: Annotated[str | None, typer.Option(help="PEM file of the client's private key.")] = None

    def tls_settings(self) -> Tls | None:
        """Returns the settings of the connection; None for a plain one."""
        from serving.client import Tls

        given = self.tls or self.tls_ca or self.tls_cert or self.tls_key
        return Tls(self.tls_ca, self.tls_cert, self.tls_key) if given else None


def with_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turns each field of a command's dataclass parameters into an option.

    Typer itself cannot share a group of options between commands.

    Example:
        @with_options
        def status(model: Model, tls: TlsOptions) -> None: ...
    """
    parameters: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        options = [parameter]
        if dataclasses.is_dataclass(parameter.annotation):
            group: Any = parameter.annotation
            groups[name] = group
            hints = get_type_hints(group, include_extras=True)
            fields = inspect.signature(group).parameters.values()
            options = [field.replace(annotation=hints[field.name]) for field in fields]
            # Inherited options, such as those of the connection, come last.
            options.sort(key=lambda option: option.name not in group.__annotations__)
        # Positional parameters with a default may not precede those without one.
        parameters += [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in dataclasses.fields(group)})
        command(**values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
