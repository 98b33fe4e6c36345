"""Two components that write and copy a text, for tests of pipelines."""

from tfx import v1 as tfx

_Out = tfx.dsl.components.OutputArtifact[tfx.types.standard_artifacts.String]
_In = tfx.dsl.components.InputArtifact[tfx.types.standard_artifacts.String]


@tfx.dsl.components.component
def Write(text: _Out, content: tfx.dsl.components.Parameter[str]) -> None:
    """Writes its parameter."""
    text.value = content


@tfx.dsl.components.component
def Copy(text: _In, copy: _Out) -> None:
    """Copies a text."""
    copy.value = text.value
