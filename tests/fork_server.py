"""A process that has imported the installed packages, of which `python -m lab` can be forked: nothing of lab is shared.

Importing them takes 3 of 4 CPU seconds of a short run of the command line.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

PR_SET_PDEATHSIG, SIGKILL = 1, 9
PACKAGES = ("torch", "torch.fx.experimental.symbolic_shapes", "seaborn", "scipy.stats", "gymnasium", "hydra",
            "hydra._internal.hydra", "optuna", "pydantic", "rich.progress", "jinja2", "yaml")  # fmt: skip


class ForkServer:
    """Runs the command line in forks of a process that it starts; one at a time."""

    def __init__(self) -> None:
        self.ended = False
        self.connection, other = socket.socketpair()
        command = [sys.executable, __file__, str(other.fileno())]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        nothing = subprocess.DEVNULL
        with other:
            self.process = subprocess.Popen(
                command, env=environment, pass_fds=[other.fileno()], stdin=nothing, stdout=nothing, cwd="/"
            )

    def run(
        self, arguments: list[str], cwd: Path, environment: dict[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run `python -m lab` with arguments; as `subprocess.run` would."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            request = json.dumps([arguments, str(cwd), environment]).encode()
            socket.send_fds(self.connection, [len(request).to_bytes(8)], [out.fileno(), err.fileno()])
            self.connection.sendall(request)
            try:
                self._receive(300)  # of which importing takes a minute on a busy machine
                code = self._receive(timeout)
            except BaseException as error:  # what it answers later would be taken for the answer to another request
                self.process.kill()
                self.process.wait()
                self.connection.close()
                self.ended = True
                if isinstance(error, TimeoutError):
                    raise subprocess.TimeoutExpired(arguments, timeout) from None
                raise
            texts = [Path(f"/proc/self/fd/{file.fileno()}").read_text() for file in (out, err)]
        return subprocess.CompletedProcess(arguments, code, *texts)

    def _receive(self, seconds: float) -> int:
        self.connection.settimeout(seconds)
        answer = self.connection.recv(8)
        assert len(answer) == 8, "the server ended"
        return int.from_bytes(answer, signed=True)


def serve(connection: socket.socket) -> tuple[list[str], str, dict[str, str]]:
    """Fork for each request; return the request in the fork."""
    while True:
        size, files, _, _ = socket.recv_fds(connection, 8, 2)
        if not size:
            os._exit(0)
        content = b""
        while len(content) < int.from_bytes(size):
            content += connection.recv(1 << 16)
        pid = os.fork()
        if pid == 0:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)  # it ends with the server
            connection.close()
            for number, file in enumerate(files, start=1):
                os.dup2(file, number)
                os.close(file)
            request: tuple[list[str], str, dict[str, str]] = json.loads(content)
            return request
        for file in files:
            os.close(file)
        connection.sendall(pid.to_bytes(8, signed=True))
        _, status = os.waitpid(pid, 0)
        connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, signed=True))


def become(arguments: list[str], cwd: str, environment: dict[str, Any]) -> None:
    """Turn this process into one that was started as `python -m lab`."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    searched = [str(Path(cwd) / entry) for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:1] = [cwd, *searched]  # in place of the folder of this file
    sys.argv[:] = ["-m", *arguments]
    sys.orig_argv[:] = [sys.executable, "-m", "lab", *arguments]
    np.random.seed()  # noqa: NPY002 - forks would all draw the same, and hide who draws from the global generator
    try:
        runpy.run_module("lab", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
        if not isinstance(code, int | None):
            print(code, file=sys.stderr)
            code = 1
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit((code or 0) & 0xFF)  # without the packages being torn down


if __name__ == "__main__":
    for package in PACKAGES:
        import_module(package)
    gc.freeze()
    become(*serve(socket.socket(fileno=int(sys.argv[1]))))
