"""A namespace of a real cluster, driven by kubectl."""

import json
import subprocess
import time

import pytest
import yaml

# The name of the claim that a test's pods mount, and the mount path.
CLAIM, MOUNT = "segpipe-test", "/work"


class Cluster:
    """A namespace of a cluster.

    Attributes:
        namespace: its name.
    """

    def __init__(self, namespace):
        self.namespace = namespace

    def kubectl(self, *words, text=None, check=True):
        """Returns the output of kubectl; with `check`, the test fails if kubectl fails."""
        command = ["kubectl", "--namespace", self.namespace, *words]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def apply(self, *documents):
        """Creates or updates the objects."""
        self.kubectl("apply", "--filename=-", text=yaml.safe_dump_all(documents))

    def get(self, *words):
        """Returns an object or a list of objects, parsed from JSON."""
        return json.loads(self.kubectl("get", *words, "--output=json"))

    def skip_if_several_nodes(self, remedy):
        """Skips the test if the cluster has several nodes, because pods would share a folder of one node."""
        count = len(self.get("nodes")["items"])
        if count > 1:
            pytest.skip(f"the cluster has {count} nodes, and the test's pods share a folder of one; {remedy}")

    def run(self, name, image, code, user=1000, seconds=180, volume=None):
        """Runs Python code in a pod that mounts the claim, or another volume, and returns its output."""
        container = {
            "name": "main",
            "image": image,
            "command": ["python", "-c", code],
            "volumeMounts": [{"name": "work", "mountPath": MOUNT}],
        }
        spec = {
            "restartPolicy": "Never",
            "securityContext": {"runAsUser": user},
            "containers": [container],
            "volumes": [{"name": "work", **(volume or {"persistentVolumeClaim": {"claimName": CLAIM}})}],
        }
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
        printed = self.finish(name, seconds)
        self.kubectl("delete", "pod", name)
        return printed

    def finish(self, name, seconds):
        """Waits until a pod has succeeded, and returns its output."""
        phase = until(lambda: self._final_phase(name), seconds, lambda: self.kubectl("describe", "pod", name))
        printed = self.kubectl("logs", name)
        assert phase == "Succeeded", printed
        return printed

    def _final_phase(self, name):
        phase = self.get("pod", name)["status"]["phase"]
        return phase if phase in ("Succeeded", "Failed") else None


def until(look, seconds, explain=lambda: ""):
    """Calls `look` until its result is true, and returns the result; fails with the explanation after a time limit."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(1)
    raise AssertionError(f"nothing in {seconds} s; {explain()}")
