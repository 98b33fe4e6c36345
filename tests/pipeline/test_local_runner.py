"""The local runner and the metadata reader, on a toy pipeline with a real metadata store."""

import os

import pytest
from tfx import v1 as tfx

from components.errors import DataRejectedError, SegpipeError, UsageError
from pipeline.running.nodes import run_nodes
from pipeline.storage.store import Store

_Examples = tfx.types.standard_artifacts.Examples
_Out = tfx.dsl.components.OutputArtifact[tfx.types.standard_artifacts.String]
_In = tfx.dsl.components.InputArtifact[tfx.types.standard_artifacts.String]
_Parameter = tfx.dsl.components.Parameter


@tfx.dsl.components.component
def Writer(text: _Out, content: _Parameter[str]) -> None:
    """Writes its parameter."""
    text.value = content


@tfx.dsl.components.component
def FolderWriter(folder: tfx.dsl.components.OutputArtifact[_Examples]) -> None:
    """Writes two files below a folder."""
    for name in ("Split-train/a", "Split-val/b"):
        path = os.path.join(folder.uri, name)
        os.makedirs(os.path.dirname(path))
        with open(path, "w") as file:
            file.write(name)


@tfx.dsl.components.component
def FolderReader(folder: tfx.dsl.components.InputArtifact[_Examples], content: _Out) -> None:
    """Reads both files."""
    with open(f"{folder.uri}/Split-train/a") as first, open(f"{folder.uri}/Split-val/b") as second:
        content.value = first.read() + second.read()


@tfx.dsl.components.component
def Reader(text: _In, needs: _Parameter[str], copy: _Out) -> None:
    """Fails until a file exists. If its name ends in "wait", the user interrupts it."""
    if needs.endswith("wait"):
        raise KeyboardInterrupt
    if not os.path.exists(needs):
        raise RuntimeError("the file is not there yet")
    copy.value = text.value


@tfx.dsl.components.component
def Watched(state: _Out, needs: _Parameter[str], metadata: _Parameter[str]) -> None:
    """Fails until a file exists, then writes its own state in the metadata."""
    if not os.path.exists(needs):
        raise RuntimeError("the file is not there yet")
    state.value = Store(metadata).executions("only")[-1].state


@tfx.dsl.components.component
def Refusing(attempts: _Parameter[str], permanent: _Parameter[int], result: _Out) -> None:
    """Fails with a SegpipeError, and logs each attempt to a file."""
    with open(attempts, "a") as file:
        file.write("attempt\n")
    if permanent:
        raise DataRejectedError("found too few images")
    raise SegpipeError("found a full disk")


@tfx.dsl.components.component
def Lost(folder: tfx.dsl.components.OutputArtifact[_Examples], root: _Parameter[str], fails: _Parameter[int]) -> None:
    """Writes a file, twice in the first attempt. In between, a second attempt starts and finishes."""
    path, mark = os.path.join(folder.uri, "file"), os.path.join(root, "mark")
    first = not os.path.exists(mark)
    for _ in range(1 + first):
        with open(path, "a") as file:
            file.write("first" if first else "second")
        if first and not os.path.exists(mark):
            with open(mark, "w"):
                pass
            _run_lost(root, fails)
    if first and fails:
        raise RuntimeError("the first attempt failed")


def _run_lost(root, fails):
    connection = tfx.orchestration.metadata.sqlite_metadata_connection_config(os.path.join(root, "metadata.sqlite"))
    run_nodes(tfx.dsl.Pipeline("toy", os.path.join(root, "root"), connection, [Lost(root=root, fails=fails)]), "only")


@pytest.mark.parametrize(("fails", "message"), [(0, "a later attempt has started"), (1, "the first attempt failed")])
def test_an_attempt_that_was_thought_lost_does_not_change_its_retry(tmp_path, fails, message):
    with pytest.raises(Exception, match=message):
        _run_lost(str(tmp_path), fails)

    (execution,) = Store(str(tmp_path / "metadata.sqlite")).executions("only")
    (artifact,) = execution.outputs["folder"]
    assert execution.state == "ran"
    with open(os.path.join(artifact.uri, "file")) as file:
        assert file.read() == "second"


@pytest.fixture
def run(tmp_path):
    """Runs the toy pipeline and returns (node, state) pairs, also of a run that fails."""

    def _run(run_id, content="a", needs="go"):
        writer = Writer(content=content)
        reader = Reader(text=writer.outputs["text"], needs=str(tmp_path / needs))
        pipeline = tfx.dsl.Pipeline(
            pipeline_name="toy",
            pipeline_root=str(tmp_path / "root"),
            components=[writer, reader],
            enable_cache=True,
            metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
                str(tmp_path / "metadata.sqlite")
            ),
        )
        seen = []
        try:
            run_nodes(pipeline, run_id, on_end=lambda result: seen.append((result.node_id, result.state)))
        except (RuntimeError, KeyboardInterrupt) as error:
            seen.append(str(error))
        return seen

    return _run


def test_a_failed_run_continues_and_then_comes_from_the_cache(run, tmp_path):
    first = run("first")
    (tmp_path / "go").touch()
    second = run("second")
    third = run("third")
    changed = run("fourth", content="b")

    assert first == [("Writer", "ran"), ("Reader", "failed"), "the file is not there yet"]
    assert second == [("Writer", "cached"), ("Reader", "ran")]
    assert third == [("Writer", "cached"), ("Reader", "cached")]
    assert changed == [("Writer", "ran"), ("Reader", "ran")]


@pytest.mark.parametrize("lost", [["Split-train/a"], ["Split-train/a", "Split-val/b"]])
def test_outputs_with_missing_files_are_made_again(tmp_path, caplog, lost):
    path = str(tmp_path / "metadata.sqlite")

    def states(run_id):
        writer = FolderWriter()
        reader = FolderReader(folder=writer.outputs["folder"])
        connection = tfx.orchestration.metadata.sqlite_metadata_connection_config(path)
        pipeline = tfx.dsl.Pipeline("toy", str(tmp_path / "root"), connection, [writer, reader], enable_cache=True)
        return [result.state for result in run_nodes(pipeline, run_id)]

    def folder(run_id):
        return Store(path).executions(run_id)[0].outputs["folder"][0].uri

    before = [states("first"), states("second")]
    for name in lost:
        os.remove(os.path.join(folder("second"), name))
    after = [states("third"), states("fourth")]

    assert before == [["ran", "ran"], ["cached", "cached"]]
    assert after == [["ran", "ran"], ["cached", "cached"]]
    assert folder("first") == folder("second") != folder("third") == folder("fourth")
    assert caplog.text.count("will not be taken from the cache") == 1


def test_a_value_with_a_missing_file_is_made_again(run, tmp_path):
    (tmp_path / "go").touch()
    run("first")
    os.remove(Store(str(tmp_path / "metadata.sqlite")).executions("first")[1].outputs["copy"][0].uri)

    assert run("second") == [("Writer", "cached"), ("Reader", "ran")]


@pytest.mark.parametrize(("permanent", "attempts"), [(1, {"one": 1, "two": 2}), (0, {"one": 3, "two": 4})])
def test_only_temporary_failures_are_retried(tmp_path, permanent, attempts):
    path, marks = str(tmp_path / "metadata.sqlite"), tmp_path / "attempts"

    def attempt(run_id):
        node = Refusing(attempts=str(marks), permanent=permanent)
        connection = tfx.orchestration.metadata.sqlite_metadata_connection_config(path)
        pipeline = tfx.dsl.Pipeline("toy", str(tmp_path / "root"), connection, [node], enable_cache=True)
        with pytest.raises(SegpipeError) as raised:
            run_nodes(pipeline, run_id)
        return raised.value

    errors = [attempt("one") for _ in range(3)]
    assert marks.read_text().count("attempt") == attempts["one"]
    assert {error.exit_code for error in errors} == {4 if permanent else 1}
    assert ("start a new run" in str(errors[-1])) == bool(permanent)
    assert str(errors[-1]).startswith(str(errors[0]))

    attempt("two")
    assert marks.read_text().count("attempt") == attempts["two"]


def test_a_run_that_the_user_stops_is_interrupted(run):
    assert run("first", needs="wait") == [("Writer", "ran"), ("Reader", "interrupted"), ""]


def test_a_failed_node_is_running_during_its_retry(tmp_path):
    path = str(tmp_path / "metadata.sqlite")

    def attempt():
        watched = Watched(needs=str(tmp_path / "go"), metadata=path)
        connection = tfx.orchestration.metadata.sqlite_metadata_connection_config(path)
        pipeline = tfx.dsl.Pipeline("toy", str(tmp_path / "root"), connection, [watched])
        run_nodes(pipeline, "only")

    with pytest.raises(RuntimeError, match="not there yet"):
        attempt()
    (failed,) = Store(path).executions("only")
    (tmp_path / "go").touch()
    attempt()

    (tried,) = Store(path).executions("only")
    seen = tfx.types.standard_artifacts.String()
    seen.uri = tried.outputs["state"][0].uri
    # The store cannot tell a running execution from a killed one.
    assert (failed.state, seen.read(), tried.state) == ("failed", "interrupted", "ran")


def test_the_store_has_runs_states_and_artifacts(run, tmp_path):
    run("first")
    (tmp_path / "go").touch()
    run("second")

    store = Store(str(tmp_path / "metadata.sqlite"))
    first, second = store.executions("first"), store.executions("second")

    assert store.run_ids() == ["first", "second"]
    assert [(e.node_id, e.state) for e in first] == [("Writer", "ran"), ("Reader", "failed")]
    assert [(e.node_id, e.state) for e in second] == [("Writer", "cached"), ("Reader", "ran")]
    assert second[1].inputs["text"] == second[0].outputs["text"] == first[0].outputs["text"]
    assert second[1].outputs["copy"][0].uri.startswith(str(tmp_path / "root"))


def test_an_unknown_run_lists_the_known(run, tmp_path):
    run("first")

    with pytest.raises(UsageError, match="known runs: first"):
        Store(str(tmp_path / "metadata.sqlite")).executions("other")


def test_a_directory_without_metadata_says_how_to_get_some(tmp_path):
    with pytest.raises(UsageError, match="segpipe run"):
        Store(str(tmp_path / "none.sqlite"))
