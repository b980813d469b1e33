"""The process of a job under Ray, from both ends: the worker of Ray that starts it, and the process itself.

A job is a process of its own, so that it imports the code of its submission, prints to its own log, and can be killed
with all that it started. It is no child of the worker, as Ray kills those without asking: between the two is a guard,
which asks the job to save its work and end once the worker is gone, and kills it if that does not help.
"""

from __future__ import annotations

import atexit
import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

MODULE = "lab.launch.ray_job"
POLL_SECONDS = 0.2  # between two looks of a worker at whether Ray has canceled its task
PATIENCE = 30.0  # seconds for a job to end after it was asked to


def run_in_process(payload: bytes, environment: Mapping[str, str], cwd: str, log: str) -> tuple[bytes, int]:
    """Run `lab.launch.launcher.run_pickled_job` in a process; called by a worker, which need not be able to import lab.

    Args:
        payload: what `JobLauncher.pickle_job` returned.
        environment: variables besides those of the worker.
        cwd: where the process works.
        log: gets what it prints.

    Returns:
        Its pickled JobReturn, empty if there is none, and its exit code; negative for the signal that killed it.

    Raises:
        KeyboardInterrupt: Ray canceled the task; the process is killed.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Ray's cancellation; a script starts Ray with it ignored
    reader, sender = os.pipe()
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab", buffering=0) as output:  # noqa: PTH123 - as above
        process = subprocess.Popen(
            [sys.executable, "-m", MODULE, str(sender)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            cwd=cwd,
            env={**os.environ, **environment},
            pass_fds=[sender],
            start_new_session=True,
        )
    os.close(sender)
    messages = {}

    def read() -> None:
        with os.fdopen(reader, encoding="utf-8") as lines:
            for kind, content in map(json.loads, lines):
                messages[kind] = content
                if kind == "code":  # what the job started may keep the pipe open
                    return

    listener = threading.Thread(target=read, daemon=True)
    listener.start()
    assert process.stdin is not None
    try:
        with suppress(BrokenPipeError):
            process.stdin.write(len(payload).to_bytes(8, "big") + payload)
            process.stdin.flush()
        while listener.is_alive():
            listener.join(POLL_SECONDS)  # a cancellation would not interrupt a longer wait
    except KeyboardInterrupt:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise
    finally:
        with suppress(BrokenPipeError):
            process.stdin.close()
        status = process.wait()
    return base64.b64decode(messages.get("answer", "")), messages.get("code", status)


def main() -> None:
    """Run a job, given on the standard input, which the worker keeps open as long as it lives."""
    sender = int(sys.argv[1])
    size = int.from_bytes(sys.stdin.buffer.read(8), "big")
    payload = sys.stdin.buffer.read(size)
    if len(payload) < size or os.fork():
        os._exit(0)
    job = os.fork()
    if job == 0:
        _run(payload, sender)
    threading.Thread(target=_end_with_worker, args=(job,), daemon=True).start()
    _, status = os.waitpid(job, 0)
    _send(sender, "code", os.waitstatus_to_exitcode(status))
    os.killpg(0, signal.SIGKILL)  # what the job started, and this process


def _end_with_worker(job: int) -> None:
    """End the job when the worker ends: by SIGTERM first, and by SIGKILL if that does not help."""
    while os.read(0, 1):
        pass
    os.kill(job, signal.SIGTERM)
    time.sleep(PATIENCE)
    os.killpg(0, signal.SIGKILL)


def _run(payload: bytes, sender: int) -> None:
    """Run the job and send its JobReturn; nothing if it is asked to end while it does not train."""
    status = 1
    try:
        from lab.common.signals import Requests

        Requests(at_once=True).set()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        import cloudpickle

        from lab.launch.launcher import run_pickled_job

        _send(sender, "answer", base64.b64encode(cloudpickle.dumps(run_pickled_job(payload))).decode())
        status = 0
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)


def _send(sender: int, kind: str, content: object) -> None:
    with suppress(BrokenPipeError), os.fdopen(sender, "w", encoding="utf-8", closefd=False) as pipe:
        pipe.write(json.dumps([kind, content]) + "\n")


if __name__ == "__main__":
    main()
