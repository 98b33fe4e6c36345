"""`segpipe release` as a command, and the configurations that it changes."""

from typer.testing import CliRunner

from pipeline.cli.main import app

UNLABELLED = """# Which versions are served.
model_config_list {
  config { name: "fcn8" base_path: "/models/fcn8" model_platform: "tensorflow" }
}
"""


def config_text(versions, labels):
    policy = "".join(f"versions: {version} " for version in versions)
    labelled = "".join(f'version_labels {{ key: "{label}" value: {version} }} ' for label, version in labels.items())
    return UNLABELLED.replace(
        'model_platform: "tensorflow"',
        f'model_platform: "tensorflow" model_version_policy {{ specific {{ {policy} }} }} {labelled}',
    )


def release(*words):
    return CliRunner().invoke(app, ["release", *words])


def options_of(servers, config_file):
    return [*(word for server in servers for word in ("--server", server.address)), "--config-file", str(config_file)]
