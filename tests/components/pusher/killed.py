"""Kills a command before each of its writes, one run per write."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

# One process imports what it needs and forks a child for each line that it reads: the number of writes before SIGKILL.
_CHILDREN = """
import os, signal, sys, threading
from components import object_store
from components.pusher.push import push
from components.pusher.sync import sync

def die_after(count):
    lock = threading.Lock()

    def step(*_):
        nonlocal count
        with lock:  # several files are copied at once
            if count == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            count -= 1

    def before(function):
        return lambda *arguments: (step(), function(*arguments))[1]

    object_store.write = before(object_store.write)
    os.mkdir, os.rename, os.replace = before(os.mkdir), before(os.rename), before(os.replace)

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        die_after(int(line))
        {"push": push, "sync": sync}[sys.argv[1]](*sys.argv[2:])
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def kills(command: str, *arguments: str) -> Iterator[int]:
    """Runs `push` or `sync`, killed before its first write, then before its second, until one run ends by itself.

    Yields:
        The number of writes that were done, after each killed run.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", _CHILDREN, command, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        for count in range(100):
            process.stdin.write(f"{count}\n")
            process.stdin.flush()
            status = int(process.stdout.readline())
            if status == 0:
                break
            assert status == -9
            yield count
        process.stdin.close()
