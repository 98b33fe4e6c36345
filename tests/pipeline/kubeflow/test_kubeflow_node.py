"""What a task refuses before it does anything."""

import json

from kfp import dsl

from pipeline.kubeflow.node import main
from pipeline.kubeflow.parameters import RUN_ID


def test_a_server_that_tells_no_run_from_another_is_refused(capsys):
    executor_input = {"inputs": {"parameterValues": {RUN_ID: dsl.PIPELINE_JOB_ID_PLACEHOLDER}}}

    code = main(
        ["--node", "Trainer", "--configuration", "[]", "--executor-input", json.dumps(executor_input)],
    )

    assert code == 2
    error = capsys.readouterr().err
    assert "run_id: found '{{$.pipeline_job_uuid}}'" in error
    assert "update the server" in error
