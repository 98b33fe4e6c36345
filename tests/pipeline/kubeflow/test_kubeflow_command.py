"""`segpipe kubeflow compile` from the command line."""

import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from components.errors import UsageError
from pipeline.cli.main import app
from pipeline.configuration.kubeflow import KubeflowSettings


def _compile(*options):
    return CliRunner().invoke(app, ["kubeflow", "compile", *options])


def test_options_become_defaults_and_settings_are_compiled_in(tmp_path):
    settings = tmp_path / "cluster.yaml"
    settings.write_text("kubeflow: {root: /mnt/work, metadata: {kind: mysql, host: db}}\n")
    out = tmp_path / "made" / "pipeline.yaml"

    done = _compile(
        *("--out", str(out), "--config", str(settings), "--data", "/mnt/data", "--model", "unet", "--preset", "smoke"),
        *("--size", "64x96", "--epochs", "3", "--set", "training.batch_size=2"),
    )

    assert done.exit_code == 0, done.output
    spec = next(yaml.safe_load_all(out.read_text()))
    declared = spec["root"]["inputDefinitions"]["parameters"]
    assert {name: declared[name]["defaultValue"] for name in ("data", "model", "preset", "size", "epochs")} == {
        "data": "/mnt/data",
        "model": "unet",
        "preset": "smoke",
        "size": "64x96",
        "epochs": 3,
    }
    arguments = spec["deploymentSpec"]["executors"]["exec-trainer"]["container"]["args"]
    assert json.loads(arguments[arguments.index("--configuration") + 1]) == [
        ["cluster.yaml", {"kubeflow": {"root": "/mnt/work", "metadata": {"kind": "mysql", "host": "db"}}}],
        ["--set", {"training": {"batch_size": 2}}],
    ]


@pytest.mark.parametrize("image", ["example.com/segpipe:1", f"example.com/segpipe@sha256:{'0' * 64}"])
def test_a_tag_of_an_image_causes_a_warning(tmp_path, image):
    out = str(tmp_path / "pipeline.yaml")

    done = _compile("--out", out, "--set", "kubeflow.root=/mnt/work", "--set", f"kubeflow.image={image}")

    assert done.exit_code == 0, done.output
    assert ("is a tag, so a later push would change" in done.output) == (":1" in image)


def test_workers_that_cannot_access_the_root_are_refused(tmp_path):
    runner = 'beam.args=["--runner=DataflowRunner", "--project=p", "--region=r", "--temp_location=gs://b/t"]'

    done = _compile("--out", str(tmp_path / "p.yaml"), "--set", "kubeflow.root=/mnt/work", "--set", runner)

    assert isinstance(done.exception, UsageError)
    message = "beam.args: the workers run on Google Cloud and cannot access the results at /mnt/work"
    assert message in str(done.exception)


def test_a_run_may_override_the_model_of_the_settings(tmp_path):
    settings = tmp_path / "cluster.yaml"
    settings.write_text("kubeflow: {root: /mnt/work}\nmodel: {name: unet, base_filters: 8}\n")
    out = tmp_path / "pipeline.yaml"

    done = _compile("--out", str(out), "--config", str(settings), "--preset", "smoke")

    assert done.exit_code == 0, done.output
    spec = next(yaml.safe_load_all(out.read_text()))
    assert spec["root"]["inputDefinitions"]["parameters"]["model"]["defaultValue"] == "unet"
    arguments = spec["deploymentSpec"]["executors"]["exec-trainer"]["container"]["args"]
    (_, compiled), *_ = json.loads(arguments[arguments.index("--configuration") + 1])
    assert compiled["model"] == {"base_filters": 8}
    refused = _compile("--out", str(out), "--config", str(settings), "--model", "fcn8")
    assert "--model fcn8: found model.name unet in cluster.yaml" in str(refused.exception)


def test_a_training_job_does_not_depend_on_the_folder_of_its_settings(tmp_path):
    written = []
    for folder in ("here", "there"):
        settings = tmp_path / folder / "cluster.yaml"
        settings.parent.mkdir()
        settings.write_text("kubeflow: {root: /mnt/work}\n")
        out = tmp_path / folder / "made" / "training.yaml"

        words = ["training-job", "--config", str(settings), "--data", "/mnt/data", "--out", str(out)]
        done = CliRunner().invoke(app, ["kubeflow", *words])

        assert done.exit_code == 0, done.output
        written.append(out.read_text())
    assert written[0] == written[1]


def test_the_default_image_is_the_pipeline_image_of_make_images():
    makefile = (Path(__file__).parents[3] / "Makefile").read_text()
    names = dict(re.findall(r"^(REGISTRY|TAG) \?= (\S+)$", makefile, flags=re.MULTILINE))

    assert KubeflowSettings().image == f"{names['REGISTRY']}/pipeline:{names['TAG']}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "vertx"], "--target vertx: expected one of kfp, vertex"),
        (["--out", "pipeline.txt"], "--out pipeline.txt: expected a name that ends in .yaml or .yml"),
        (["--size", "64"], "size: found '64'"),
        (["--preset", "gpu"], "training.require_gpu: found true with kubeflow.components.Trainer.gpus=0"),
        (["--set", "kubeflow.rot=x"], "did you mean kubeflow.root?"),
    ],
)
def test_a_wrong_option_is_explained(options, message):
    done = _compile(*options)

    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)
