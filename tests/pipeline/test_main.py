"""The command line turns errors and Ctrl-C into messages and exit codes."""

import pytest
import typer

from components.errors import DataRejectedError
from pipeline.cli import main


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "segpipe: stopped; run the same command again"),
        (DataRejectedError("frames[left]/1.png: found [/x]"), 4, "segpipe: frames[left]/1.png: found [/x]"),
        (ModuleNotFoundError("No module", name="kfp.client"), 2, "pip install 'segpipe[kubeflow]'"),
    ],
)
def test_errors_of_a_command_have_no_traceback(monkeypatch, capsys, error, code, message):
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    def fail():
        raise error

    monkeypatch.setattr(main, "app", app)
    monkeypatch.setattr("sys.argv", ["segpipe"])

    with pytest.raises(SystemExit) as ended:
        main.main()

    assert ended.value.code == code
    assert message in capsys.readouterr().err
