"""Damaged files: no command shows a traceback, and none changes a metric silently."""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import errors
from lab.analysis.trial import read_trial, trial_results
from lab.command import compare, enjoy, report, resume, status
from lab.errors import LabError
from lab.run.directory import RunDir, SweepDir, TrialDir
from lab.run.files import CHECKSUM, read_json, write_sealed_yaml
from lab.sweep.sweep import resume_command
from lab.training.stack import Stack
from tests import synthetic
from tests.damage import MUTATIONS, TOLD, damage, flip
from tests.helpers import go_on, result, same_provenance, specs

OVERRIDES = (
    "algo.horizon=16", "frames=1024", "log.every=128", "eval.every=256", "eval.episodes=1",
    "checkpoint.every=200", "seed=[0,1]",
)  # fmt: skip
FILES = ("spec.yaml", "provenance.json", "uncommitted.patch", "status.json", "session.log", "episodes.csv",
         "metrics.csv", "timing.csv", "events", "checkpoint/last.pt", "checkpoint/previous.pt", "checkpoint/best.pt",
         "session.json", "session.png")  # fmt: skip
UNREAD = ("session.png", "uncommitted.patch", "session.log", "events")  # by commands other than resume
OF_SWEEP = ("sweep.json", "trial-000/point.json", "trial-000/trial.json", "experiment.json", "trials.csv",
            "report.html", "experiment.png")  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A Trial of two Sessions that completed, one of two that were interrupted, and an Experiment."""
    folder = tmp_path_factory.mktemp("runs")
    interruption = (Stack, "collect_and_learn", 4, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lab.analysis.plotting.save", lambda *arguments: b"a\npicture\n")
        for name, happens in (("whole", None), ("part", interruption)):
            directories = [RunDir(folder / name / f"seed-{seed}") for seed in (0, 1)]
            go_on(specs(*OVERRIDES), directories, happens)
            for directory in directories:
                directory.patch.write_text("a\nb\nc\nd\n")
                report.main([str(directory.path)])
        report.main([str(synthetic.experiment(folder / "sweep", trials=3, seeds=2, rows=10).path)])
    return {name: folder / name for name in ("whole", "part", "sweep")}


class Terminal:
    """What was printed; `text` is all of it since `clear`."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys, self.text = capsys, ""

    def take(self) -> str:
        """Return what was printed to the standard output since the last call."""
        out, err = self.capsys.readouterr()
        self.text += out + err
        return out

    def clear(self) -> None:
        self.take()
        self.text = ""


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str]) -> Iterator[Terminal]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lab.session.collect", lambda *arguments: same_provenance())
        for name in ("plot_session.plot_session", "plot_trial.plot_trial", "plot_experiment.plot_experiment"):
            patch.setattr(f"lab.analysis.{name}", lambda *arguments: b"")
        patch.setattr("lab.analysis.compare.plot_compare", lambda *arguments: b"")
        yield Terminal(capsys)


def commands(path: Path, other: Path, terminal: Terminal) -> dict[str, Callable[[], object]]:
    """Return commands on a run directory; each gives the metrics that it shows or writes."""
    session = RunDir(path / "seed-0")
    results = TrialDir(path).results if session.path.exists() else SweepDir(path).results

    def run(main: Callable[[list[str]], None], *arguments: str) -> list[str]:
        main(list(arguments))
        return [" ".join(line.split()) for line in terminal.take().replace(str(path.parent), "").splitlines()]

    def write_again(where: Path, file: Path) -> object:
        file.unlink(missing_ok=True)
        report.main([str(where)])
        return read_json(file)

    def resumed() -> object:
        with suppress(SystemExit):
            resume.main([str(session.path)])
        return result(session)

    return {
        "report": lambda: write_again(session.path, session.results),
        "report of all": lambda: write_again(path, results),
        "status": lambda: run(status.main, str(path)),
        "compare": lambda: run(compare.main, str(path), str(other), f"out={path.parent}"),
        "enjoy": lambda: run(enjoy.main, str(session.path), "episodes=1"),
        "resume": resumed,
    }


INTACT: dict[tuple[str, str], object] = {}


def outcome(runs: dict[str, Path], command: str, name: str, mutation: str, folder: Path, terminal: Terminal) -> str:
    """Damage a file of a copy and run a command on it.

    Returns:
        The outcome: the `same` metrics, `refused` in a sentence, or other metrics, `reported` as such. An error that is
        no sentence, or other metrics without a report, fail the test.
    """
    kind = "sweep" if name in OF_SWEEP else "part" if command == "resume" else "whole"
    if (command, kind) not in INTACT:
        intact = shutil.copytree(runs[kind], folder / "copy" / kind)
        INTACT[command, kind] = commands(intact, runs["whole"], terminal)[command]()
        shutil.rmtree(intact)
    shutil.rmtree(folder / "copy", ignore_errors=True)
    copy = shutil.copytree(runs[kind], folder / "copy" / kind)
    file = copy / name if name in OF_SWEEP else copy / "seed-0" / name
    damage(next(file.parent.glob("events.out*")) if name == "events" else file, mutation)
    before = contents(copy)
    terminal.clear()
    errors._warned.clear()
    try:
        results = commands(copy, runs["whole"], terminal)[command]()
    except LabError as error:
        assert names_damage(str(error), folder, runs[kind].parent), error
        if command == "resume":
            assert contents(copy) == before
        return "refused"
    terminal.take()
    if command == "resume":  # whatever was there before is there still
        kept = {value for key, value in contents(copy).items()}
        assert before.get("seed-0/checkpoint/best.pt") in {None, *kept}
    if results == INTACT[command, kind]:
        return "same"
    text = terminal.text + json.dumps(results, default=str)
    assert names_damage(text, folder, runs[kind].parent), f"{results} without a report:\n{text}"
    return "reported"


def names_damage(text: str, *paths: Path) -> bool:
    """Say whether a text speaks of damage, apart from paths in it."""
    for path in paths:
        text = text.replace(str(path), "")
    return bool(TOLD.search(text))


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


ALL = ("report", "report of all", "status", "compare", "enjoy", "resume")
FAST = {("status", "status.json"), ("resume", "episodes.csv"), ("enjoy", "checkpoint/best.pt")}


def slow_unless(fast: bool, *values: str) -> Any:
    return pytest.param(*values, marks=[] if fast else pytest.mark.slow)


@pytest.mark.law
@pytest.mark.parametrize(
    ("command", "name"), [slow_unless((command, name) in FAST, command, name) for command in ALL for name in FILES]
)
def test_a_damaged_file_of_a_session(
    runs: dict[str, Path], command: str, name: str, tmp_path: Path, terminal: Terminal
) -> None:
    mutations = ("missing", "random", "link") if name in UNREAD and command != "resume" else MUTATIONS
    outcomes = {mutation: outcome(runs, command, name, mutation, tmp_path, terminal) for mutation in mutations}
    print(f"damaged: {command}: {name}: {outcomes}")
    if name in ("session.json", "timing.csv", *UNREAD):
        assert {value for mutation, value in outcomes.items() if mutation != "link"} <= {"same", "reported"}


@pytest.mark.law
@pytest.mark.parametrize(
    ("command", "name"),
    [
        slow_unless(command == "status" and name.endswith(("sweep.json", "point.json", "trial.json")), command, name)
        for command in ("report of all", "status")
        for name in OF_SWEEP
    ],
)
def test_a_damaged_file_of_a_sweep(
    runs: dict[str, Path], command: str, name: str, tmp_path: Path, terminal: Terminal
) -> None:
    outcomes = {mutation: outcome(runs, command, name, mutation, tmp_path, terminal) for mutation in MUTATIONS}
    print(f"damaged: {command}: {name}: {outcomes}")
    if name != "sweep.json":
        assert "refused" not in outcomes.values()


@pytest.mark.law
@pytest.mark.parametrize("name", ["spec.yaml", "status.json", "episodes.csv", "metrics.csv"])
def test_no_flipped_bit_changes_a_metric_silently(
    runs: dict[str, Path], name: str, tmp_path: Path, terminal: Terminal
) -> None:
    copy = shutil.copytree(runs["whole"], tmp_path / "copy")
    intact = trial_results(read_trial(TrialDir(copy)))
    path = copy / "seed-0" / name
    content = path.read_bytes()
    random_bits = random.Random(name)
    for bit in random_bits.sample(range(8 * len(content)), 60):
        path.write_bytes(flip(content, bit))
        results = trial_results(read_trial(TrialDir(copy)))
        damaged = results["sessions"] == {"planned": 2, "completed": 1, "failed": 1}
        assert results == intact or (damaged and f"{name} " in str(results["not_completed"])), bit


LONG = ("provenance.json", "spec.yaml")  # which have a hundred keys


def each_key_left_out(values: Any) -> Iterator[Any]:
    """Yield nested values with each key left out once."""
    for key, value in values.items() if isinstance(values, dict) else ():
        yield {name: item for name, item in values.items() if name != key}
        for less in each_key_left_out(value):
            yield {**values, key: less}


@pytest.mark.law
@pytest.mark.parametrize(
    "name", ["status.json", "point.json", "sweep.json", "trial.json", *(slow_unless(False, name) for name in LONG)]
)
def test_any_missing_key_is_reported_in_a_sentence(
    runs: dict[str, Path], name: str, tmp_path: Path, terminal: Terminal
) -> None:
    of_sweep = name in ("point.json", "sweep.json", "trial.json")
    copy = shutil.copytree(runs["sweep" if of_sweep else "whole"], tmp_path / "copy")
    path = next(copy.glob(f"**/{name}"))
    values = yaml.safe_load(path.read_text())
    values.pop(CHECKSUM, None)
    if "packages" in values:
        values["packages"] = {"torch": "2"}
    # Any other error than a LabError fails the test.
    for less in each_key_left_out(values):
        path.write_text(yaml.safe_dump(less) if path.suffix == ".yaml" else json.dumps(less))
        errors._warned.clear()
        for main in (status.main, *([] if name == "trial.json" else [report.main])):
            with suppress(LabError):
                main([str(copy)])


@pytest.mark.parametrize("mutation", [mutation for mutation in MUTATIONS if mutation != "link"])
def test_a_damaged_record_of_how_a_sweep_was_started(tmp_path: Path, mutation: str) -> None:
    sweep = SweepDir(tmp_path)
    hydra = {"overrides": {"hydra": [], "task": ["seed=0,1"]}, "job": {"config_name": "config"}}
    text = yaml.safe_dump({"hydra": {**hydra, "runtime": {"config_sources": []}}, "frames": 1000})
    write_sealed_yaml(sweep.multirun, text)
    assert "seed=0,1" in resume_command(sweep, [])
    damage(sweep.multirun, mutation)
    with pytest.raises(LabError, match=r"multirun\.yaml"):
        resume_command(sweep, [])
