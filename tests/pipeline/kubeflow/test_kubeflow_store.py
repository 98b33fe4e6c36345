"""A metadata store on MariaDB that several tasks open for the first time at once."""

import os
import subprocess
import sys
from pathlib import Path

import mariadb

_OPEN = """
import sys
from pipeline.kubeflow.settings import MetadataSettings
from pipeline.metadata import connection_config
from pipeline.store import Store

settings = MetadataSettings(kind="mysql", host="127.0.0.1", port=int(sys.argv[1]), user=sys.argv[2])
sys.stdin.read(1)
print(Store(connection_config(settings, "")).run_ids())
"""


def test_tasks_that_meet_an_empty_database_at_once_all_get_in(tmp_path):
    with mariadb.running(tmp_path) as port:
        command = [sys.executable, "-c", _OPEN, str(port), mariadb.USER]
        environment = {**os.environ, "SEGPIPE_METADATA_PASSWORD": mariadb.PASSWORD}
        pipe = subprocess.PIPE
        tasks = [
            subprocess.Popen(
                command, env=environment, cwd=Path(__file__).parents[3], stdin=pipe, stdout=pipe, text=True
            )
            for _ in range(3)
        ]
        for task in tasks:
            task.stdin.write("\n")
            task.stdin.flush()
        answers = [task.communicate()[0].strip() for task in tasks]

    assert answers == ["[]"] * 3
