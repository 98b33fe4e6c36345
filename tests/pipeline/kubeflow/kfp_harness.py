"""Runs a compiled Kubeflow pipeline as Kubeflow's driver, launcher and workflow engine would, without a cluster.

The YAML is read as data, without kfp or TFX. Every task runs in a separate process, with only the environment variables
of the YAML. This Python environment replaces the container image, existing folders replace the volumes, and retries
start at once. The real driver and launcher are driver/resolve.go, cmd/launcher-v2/main.go and
component/launcher_v2.go in kubeflow/pipelines 7b70c7b, backend/src/v2.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

_ROOT = Path(__file__).parents[3]
_RUN_ID = "{{$.pipeline_job_uuid}}"


@dataclasses.dataclass
class PipelineTask:
    """The result of one task: the exit code of each attempt, and the outputs that the launcher would collect."""

    name: str
    exit_codes: list[int] = dataclasses.field(default_factory=list)
    log: str = ""
    artifacts: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        return self.exit_codes[-1:] == [0]


class Cluster:
    """The simulated cluster: its number of parallel tasks, its secrets and its output folder."""

    def __init__(self, folder: Path, secrets: Mapping[str, Mapping[str, str]], slots: int = 2) -> None:
        self.folder = folder
        self.secrets = secrets
        self.slots = threading.Semaphore(slots)


class Run:
    """One run of a compiled pipeline."""

    def __init__(self, cluster: Cluster, package: str, run_id: str, arguments: Mapping[str, Any]) -> None:
        """Reads a package.

        Args:
            cluster: the cluster to run on.
            package: path of the YAML.
            run_id: the run's id on Kubeflow.
            arguments: values of the pipeline's parameters; the defaults are used for the others.
        """
        documents = list(yaml.safe_load_all(Path(package).read_text()))
        self.id = run_id
        self._cluster = cluster
        self._spec = documents[0]
        self._pods = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"] if documents[1:] else {}
        self._dag = self._spec["root"]["dag"]["tasks"]
        self._parameters = _parameters(self._spec["root"].get("inputDefinitions", {}), arguments)
        self._done = {name: threading.Event() for name in self._dag}
        self._kills: dict[str, str] = {}
        self.tasks = {name: PipelineTask(name) for name in self._dag}

    def kill(self, task: str, at: str) -> None:
        """Kills the first attempt of a task when a line of its output contains a text."""
        self._kills[task] = at

    def wait(self, task: str) -> None:
        """Waits until a task has ended."""
        self._done[task].wait()

    def __call__(self) -> "Run":
        """Runs every task after its predecessors have succeeded, and returns the run."""
        with ThreadPoolExecutor(len(self._dag)) as pool:
            for future in [pool.submit(self._run_task, name) for name in self._dag]:
                future.result()
        return self

    @property
    def succeeded(self) -> bool:
        return all(task.succeeded for task in self.tasks.values())

    def _run_task(self, name: str) -> None:
        try:
            upstream = self._dag[name].get("dependentTasks", [])
            for other in upstream:
                self._done[other].wait()
            if all(self.tasks[other].succeeded for other in upstream):
                for _ in range(1 + self._dag[name].get("retryPolicy", {}).get("maxRetryCount", 0)):
                    self._attempt(name)
                    if self.tasks[name].succeeded:
                        break
        finally:
            self._done[name].set()

    def _attempt(self, name: str) -> None:
        """Runs a task's container once."""
        task = self.tasks[name]
        component = self._spec["components"][self._dag[name]["componentRef"]["name"]]
        executor = component["executorLabel"]
        container = self._spec["deploymentSpec"]["executors"][executor]["container"]
        pod = self._pods.get(executor, {})
        folder = self._cluster.folder / self.id / name / str(len(task.exit_codes))
        executor_input = self._executor_input(name, component, folder)
        command = fill([*container["command"], *container["args"]], executor_input)
        assert not any("{{" in word for word in command), command
        with self._cluster.slots, open(folder / "log.txt", "w") as log:
            code = _run_process(command, self._environment(container, pod), log, self._deadline(pod), self._kill(name))
        # The launcher ends with 1 if the command fails: `main` in main.go.
        task.exit_codes.append(1 if code else 0)
        task.log = (folder / "log.txt").read_text()
        task.artifacts = _collect(executor_input) if code == 0 else {}

    def _executor_input(self, name: str, component: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """Returns the input that the driver passes to the launcher, and creates the output folder."""
        folder.mkdir(parents=True)
        inputs = self._dag[name]["inputs"]
        values = {key: self._value(source) for key, source in inputs["parameters"].items()}
        sources = {key: source["taskOutputArtifact"] for key, source in inputs.get("artifacts", {}).items()}
        read = {
            key: {"artifacts": [self.tasks[source["producerTask"]].artifacts[source["outputArtifactKey"]]]}
            for key, source in sources.items()
        }
        # The launcher copies each input, and fails if a file is missing: `downloadArtifacts` in launcher_v2.go.
        assert all(Path(group["artifacts"][0]["uri"]).is_file() for group in read.values()), read
        outputs = component.get("outputDefinitions", {}).get("artifacts", {})
        return {
            "inputs": {"parameterValues": values, "artifacts": read},
            "outputs": {
                "artifacts": {
                    key: {"artifacts": [{"name": key, "type": output["artifactType"], "uri": str(folder / key)}]}
                    for key, output in outputs.items()
                },
                "outputFile": str(folder / "output_metadata.json"),
            },
        }

    def _value(self, source: Mapping[str, Any]) -> Any:
        if "componentInputParameter" in source:
            return self._parameters[source["componentInputParameter"]]
        constant = source["runtimeValue"]["constant"]
        # Kubeflow replaces a job placeholder only if it is the whole value: `resolveInputParameter` in resolve.go.
        return self.id if constant == _RUN_ID else constant

    def _environment(self, container: Mapping[str, Any], pod: Mapping[str, Any]) -> dict[str, str]:
        """Returns the environment variables of a pod: those of the YAML, and those of every image."""
        for mount in pod.get("pvcMount", []):
            assert os.path.isdir(mount["mountPath"]), mount
        variables = {item["name"]: item["value"] for item in container.get("env", [])}
        for secret in pod.get("secretAsEnv", []):
            content = self._cluster.secrets[secret["secretName"]]
            variables |= {item["envVar"]: content[item["secretKey"]] for item in secret["keyToEnv"]}
        path = os.pathsep.join([os.path.dirname(sys.executable), "/usr/bin", "/bin"])
        return {"PATH": path, "HOME": str(self._cluster.folder), **variables}

    def _deadline(self, pod: Mapping[str, Any]) -> float | None:
        return float(pod["activeDeadlineSeconds"]) if "activeDeadlineSeconds" in pod else None

    def _kill(self, name: str) -> Callable[[str], bool]:
        text = self._kills.pop(name, None)
        return lambda line: text is not None and text in line


def fill(command: list[str], executor_input: Mapping[str, Any]) -> list[str]:
    """Replaces the placeholders of a command line, as `getPlaceholders` in launcher_v2.go."""
    values = {"{{$}}": json.dumps(executor_input)}
    for name, value in executor_input["inputs"]["parameterValues"].items():
        text = value if isinstance(value, str) else json.dumps(value)
        values["{{$.inputs.parameters['%s']}}" % name] = text  # noqa: UP031 - braces
    for name, group in executor_input["outputs"]["artifacts"].items():
        for kind in ("uri", "path"):
            values["{{$.outputs.artifacts['%s'].%s}}" % (name, kind)] = group["artifacts"][0]["uri"]  # noqa: UP031
    filled = []
    for word in command:
        for placeholder, text in values.items():
            word = word.replace(placeholder, text)
        filled.append(word)
    return filled


def _parameters(definitions: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of a pipeline's parameters; fails on those that the API server would reject."""
    declared = definitions.get("parameters", {})
    unknown = set(arguments) - set(declared)
    assert not unknown, unknown
    defaults = {name: item["defaultValue"] for name, item in declared.items() if "defaultValue" in item}
    values = {**defaults, **arguments}
    assert set(values) == set(declared), set(declared) - set(values)
    return values


def _run_process(
    command: list[str],
    environment: dict[str, str],
    log: Any,
    deadline: float | None,
    should_kill: Callable[[str], bool],
) -> int:
    """Runs a container's command and returns its exit code, negative if it was killed."""
    with subprocess.Popen(
        command, cwd=_ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        timer = threading.Timer(deadline, process.kill) if deadline else None
        if timer:
            timer.start()
        for line in process.stdout:
            log.write(line)
            if should_kill(line):
                process.send_signal(signal.SIGKILL)
        if timer:
            timer.cancel()
    return process.returncode


def _collect(executor_input: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns a task's output artifacts with the metadata that the task reported."""
    outputs = executor_input["outputs"]
    found = {name: dict(group["artifacts"][0]) for name, group in outputs["artifacts"].items()}
    path = Path(outputs["outputFile"])
    if path.exists():
        for name, group in json.loads(path.read_text()).get("artifacts", {}).items():
            found[name].update(group["artifacts"][0])
    return found
