"""The process that talks to one tracker: it reads messages from standard input and writes problems to standard output.

It is a program, started by lab.training.trackers.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from lab.errors import LabError, summary
from lab.run.directory import RunDir
from lab.run.files import read_json, write_json
from lab.run.trackers import tracker_path
from lab.training.tags import tag

GRACE_SECONDS = 60.0  # to send what is left when the process that trains was killed
PROJECT = "lab"  # of W&B, and experiment of MLflow, if none is named
EVERY_ROW = tag("episodes")  # a metric that each row has
ORPHANED = 130  # exit status of a run whose process was interrupted


class Wandb:
    """Runs of Weights & Biases."""

    def __init__(self) -> None:
        import wandb

        self._wandb = wandb
        self._runs: dict[str, Any] = {}

    def start(self, run: str, message: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
        """Start a run, or go on with a known one; return what to know when the Session is resumed."""
        given = {key: message[key] for key in ("name", "group", "job_type", "tags") if message.get(key)}
        arguments = {"project": PROJECT, "dir": os.environ.get("WANDB_DIR", run), **given, **message["arguments"]}
        Path(arguments["dir"]).mkdir(parents=True, exist_ok=True)
        settings = self._wandb.Settings(console="off", silent=True, x_disable_stats=True, disable_git=True)
        identity = str(known.get("id") or uuid.uuid4().hex[:8])
        self._runs[run] = self._wandb.init(
            **arguments, id=identity, resume="allow", reinit="create_new", settings=settings
        )
        self._runs[run].config.update({**message["config"], "git_sha": message["sha"]}, allow_val_change=True)
        return {"id": identity, "url": self._runs[run].url, "dir": str(Path(arguments["dir"]).absolute())}

    def row(self, run: str, frame: int, values: Mapping[str, float]) -> None:
        """Send a row; of rows that were sent before a Session was resumed, which are the same, it keeps the first."""
        self._runs[run].log(dict(values), step=frame)

    def finish(self, run: str, state: str, results: Mapping[str, Any]) -> None:
        """End a run: as crashed if it failed, as preempted if it may be resumed."""
        tracked = self._runs.pop(run)
        tracked.summary.update({**results, "state": state})
        if state == "interrupted":
            tracked.mark_preempting()
        tracked.finish(exit_code={"failed": 1, "interrupted": ORPHANED}.get(state, 0))


class MLflow:
    """Runs of MLflow."""

    BATCH = 100  # parameters that are sent at once, at most
    LONGEST = 6000  # characters of a parameter

    def __init__(self) -> None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # whoever names a folder as the store means it
        from mlflow import MlflowClient, entities

        self._client_class, self._entities = MlflowClient, entities
        self._runs: dict[str, tuple[Any, str, int]] = {}  # client, id, and the last frame that was sent

    def start(self, run: str, message: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
        """Start a run, or go on with a known one; return what to know when the Session is resumed."""
        arguments = message["arguments"]
        client = self._client_class(tracking_uri=arguments.get("tracking_uri") or known.get("tracking_uri"))
        last = -1
        if known.get("id"):
            identity = str(known["id"])
            client.update_run(identity, status="RUNNING")
            last = max((metric.step for metric in client.get_metric_history(identity, EVERY_ROW)), default=-1)
        else:
            name = arguments.get("experiment") or os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
            experiment = client.get_experiment_by_name(name)
            number = experiment.experiment_id if experiment else self._create(client, name)
            tags = {"group": message["group"], "trial": message["job_type"], "directory": run}
            tags |= {"mlflow.source.git.commit": message["sha"]}
            tags |= dict.fromkeys([*message["tags"], *arguments.get("tags", [])], "true")
            named = {key: str(value) for key, value in tags.items() if value}
            title = arguments.get("name") or message["name"]
            identity = client.create_run(number, run_name=title, tags=named).info.run_id
            pairs = [(key, str(value)[: self.LONGEST]) for key, value in message["config"].items()]
            for first in range(0, len(pairs), self.BATCH):
                parameters = [self._entities.Param(*pair) for pair in pairs[first : first + self.BATCH]]
                client.log_batch(identity, params=parameters)
        self._runs[run] = client, identity, last
        return {"id": identity, "tracking_uri": client.tracking_uri}

    def _create(self, client: Any, name: str) -> str:
        try:
            return str(client.create_experiment(name))
        except Exception:  # another process has made it meanwhile
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
            return str(experiment.experiment_id)

    def row(self, run: str, frame: int, values: Mapping[str, float]) -> None:
        """Send a row, unless it was sent before the Session was resumed."""
        client, identity, last = self._runs[run]
        if frame > last:
            now = int(time.time() * 1000)
            metrics = [self._entities.Metric(key, float(value), now, frame) for key, value in values.items()]
            client.log_batch(identity, metrics=metrics)

    def finish(self, run: str, state: str, results: Mapping[str, Any]) -> None:
        """End a run."""
        client, identity, _ = self._runs.pop(run)
        now = int(time.time() * 1000)
        figures = {key: value for key, value in results.items() if isinstance(value, (int, float))}
        frame = int(figures.get("frames", 0))
        metrics = [self._entities.Metric(key, float(value), now, frame) for key, value in figures.items()]
        tags = [self._entities.RunTag("state", state)]
        client.log_batch(identity, metrics=metrics, tags=tags)
        status = {"completed": "FINISHED", "failed": "FAILED"}.get(state, "KILLED")
        client.set_terminated(identity, status=status)


TRACKERS: dict[str, Any] = {"wandb": Wandb, "mlflow": MLflow}


def main(name: str) -> None:
    """Follow the messages until they end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the process that trains says when it ends
    problems = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no message
    parent = os.getppid()
    threading.Thread(target=_end_with, args=[parent], daemon=True).start()
    follow(name, sys.stdin, problems)


def follow(name: str, messages: IO[str], problems: IO[str]) -> None:
    """Do what messages say; what goes wrong with a run is told once, and the run is left alone from then on."""
    tracker: Any = None
    running: set[str] = set()
    dropped: set[str] = set()
    for line in messages:
        try:
            message = json.loads(line)
            do, run = message["do"], message["run"]
        except (ValueError, KeyError):  # half a line of a process that was killed
            continue
        if do == "end":
            break
        if run in dropped:
            continue
        try:
            tracker = tracker or TRACKERS[name]()
            _follow(tracker, name, do, run, message)
            running.add(run)
            if do == "finish":
                running.discard(run)
        except BaseException as error:
            dropped.add(run)
            running.discard(run)
            reason = str(error) if isinstance(error, LabError) else summary(error)
            problems.write(json.dumps({"run": run, "problem": reason}) + "\n")
            problems.flush()
    for run in sorted(running):  # of a process that was killed
        with suppress(Exception):
            tracker.finish(run, "interrupted", {})


def _follow(tracker: Any, name: str, do: str, run: str, message: Mapping[str, Any]) -> None:
    if do == "start":
        kept = tracker_path(Path(run), name)
        known = read_json(kept) if message["resumed"] and kept.exists() else {}
        write_json(kept, tracker.start(run, message, known))
    elif do == "row":
        tracker.row(run, message["frame"], message["values"])
    else:
        tracker.finish(run, message["state"], _results(RunDir(run)))


def _results(directory: RunDir) -> dict[str, Any]:
    """Return the metrics of a Session that has ended; none if there are no tables to compute them from."""
    from lab.analysis.session import read_tables, session_results

    try:
        return session_results(read_tables(directory))
    except (LabError, OSError):
        return {}


def _end_with(parent: int) -> None:
    """End this process if the one that trains was killed, and what is left cannot be sent."""
    while os.getppid() == parent:
        time.sleep(1.0)
    time.sleep(GRACE_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
