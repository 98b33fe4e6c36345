"""Runs a MariaDB server in a temporary folder, from Debian's package `mariadb-server`."""

import contextlib
import getpass
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

USER, PASSWORD, DATABASE = "segpipe", "a secret of the tests", "metadata"


def require() -> str:
    """Returns the server's path; skips the test if it is not installed."""
    server = shutil.which("mariadbd", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if server is None or shutil.which("mariadb-install-db") is None:
        pytest.skip("MariaDB is not installed: apt-get install mariadb-server")
    return server


@contextlib.contextmanager
def running(folder: Path) -> Iterator[int]:
    """Runs a server on 127.0.0.1 and yields its port. One user has all privileges, with a password."""
    server = require()
    data, me = folder / "data", getpass.getuser()
    install = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", f"--user={me}"]
    subprocess.run([*install, "--auth-root-authentication-method=normal"], check=True, capture_output=True)
    grant = folder / "users.sql"
    grant.write_text(
        f"CREATE USER '{USER}'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
        f"GRANT ALL PRIVILEGES ON *.* TO '{USER}'@'127.0.0.1';\n"
    )
    port = _free_port()
    command = [server, "--no-defaults", f"--datadir={data}", f"--user={me}", f"--port={port}"]
    # A relative path, because a socket's path is limited to about 100 characters.
    command += ["--bind-address=127.0.0.1", "--socket=mariadb.sock", f"--init-file={grant}", "--skip-name-resolve"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            _wait_until_ready(process.stdout)
            # A thread reads the rest of the output, because a full pipe would block the server.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield port
        finally:
            process.terminate()
            process.wait()


def _wait_until_ready(output: Iterable[str]) -> None:
    seen = []
    for line in output:
        seen.append(line)
        if "ready for connections" in line:
            return
    raise RuntimeError("MariaDB did not start:\n" + "".join(seen))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
