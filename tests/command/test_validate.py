"""`python -m lab validate DIR`: the best Trials of a search, trained again on fresh seeds."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import yaml

from lab.analysis.experiment import read_experiment
from lab.command.validate import main
from lab.errors import LabError
from lab.run.directory import SweepDir, find_sessions
from lab.run.files import read_json, write_sealed_yaml
from lab.sweep.tuned import _lines, _read_comments
from lab.sweep.validation import best_trials, choose_seeds, validation_command
from tests import synthetic
from tests.helpers import CONF, ROOT, lab

SMALL = ("frames=500", "algo.horizon=16", "log.every=250", "eval.every=0", "log.tensorboard=false", "net.hidden=[16]")
TASK = [
    "algo=a2c",
    "env=cartpole",
    "search=a2c",
    "search.n_trials=6",
    "seed=0,1",
    "algo.gamma=choice(0.9,0.99)",
    "~tuned",
]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> SweepDir:
    sweep = synthetic.experiment(tmp_path_factory.mktemp("search") / "one", trials=3, seeds=2, rows=10)
    hydra = {
        "overrides": {"hydra": ["hydra/sweeper/sampler=random", "hydra/launcher=local"], "task": TASK},
        "runtime": {"config_sources": [{"provider": "command-line", "path": "/my/conf"}]},
        "job": {"config_name": "config"},
    }
    write_sealed_yaml(sweep.multirun, yaml.safe_dump({"hydra": hydra}))
    return sweep


def test_what_is_fixed_in_the_search_stays_and_its_points_are_listed(searched: SweepDir) -> None:
    experiment = read_experiment(searched)
    assert best_trials(experiment, 2) == experiment.ranking[:2]
    points = [[], ["algo.lr=0.1", "net.hidden=[8,8]"]]
    assert validation_command(experiment, points, [100, 101], ["parallel=2", "hydra/launcher=slurm"]) == [
        "--multirun", "--config-name=config", "--config-dir", "/my/conf", "algo=a2c", "env=cartpole", "~tuned",
        "parallel=2", "hydra/launcher=slurm", "points=[[],['algo.lr=0.1','net.hidden=[8,8]']]", "seed=100,101",
        f"hydra.sweep.dir='{searched.path}/validation'",
    ]  # fmt: skip
    with pytest.raises(
        LabError, match=r"algo\.gamma=0\.9 is not allowed: validate trains the settings of the Experiment"
    ):
        validation_command(experiment, points, [100], ["algo.gamma=0.9"])


def test_fresh_seeds_are_ten_that_the_search_did_not_use(searched: SweepDir) -> None:
    experiment = read_experiment(searched)
    assert choose_seeds(experiment, None) == list(range(100, 110))
    for written in ("seed=100..103", "seed=100,101,102,103", "seed=range(100,104)", "seed=[100,101,102,103]"):
        assert choose_seeds(experiment, written) == [100, 101, 102, 103]
    experiment.sweep["seeds"] = [0, 1, 105]
    assert choose_seeds(experiment, None) == [*range(100, 105), *range(106, 111)]
    with pytest.raises(LabError, match=r"seed=1\.\.3 is not allowed: .* used seed 1"):
        choose_seeds(experiment, "seed=1..3")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["seed=0..3"], "used seeds 0 and 1, so fresh ones are needed"),
        (["tp=2"], r"tp=2 is not allowed: validate trains the settings of the Experiment as they are"),
        (["top=0"], "top=0 is not allowed"),
    ],
)
def test_mistakes_are_sentences(searched: SweepDir, arguments: list[str], problem: str) -> None:
    with pytest.raises(LabError, match=problem):
        main([str(searched.path), *arguments, "plan=true"])


def test_only_an_experiment_with_a_best_trial_is_validated(searched: SweepDir, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="holds a Trial: validate takes an Experiment"):
        main([str(searched.trial(0).path)])
    without = synthetic.experiment(tmp_path, trials=1, seeds=1, rows=2, states={(0, 0): "failed"})
    with pytest.raises(LabError, match=r"multirun\.yaml is missing: it says how the sweep was started"):
        main([str(without.path)])


def test_a_tuned_file_is_written_as_the_others(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "# head\na: 1  # one\ngroup:\n  long: [1, 2]                       # of several\n" + " " * 39 + "# lines\n"
    )
    comments = _read_comments(file, "algo.")
    assert comments == {"algo.a": "one", "algo.group.long": "of several lines"}
    values = {"frames": 1000, "algo.group.long": [3], "algo.a": 1e-05, "algo.group.text": "on", "env.x": {"y": None}}
    text = "".join(_lines(values, comments))
    assert yaml.safe_load(text) == {
        "frames": 1000, "algo": {"a": 1e-05, "group": {"long": [3], "text": "on"}}, "env": {"x": {"y": None}}
    }  # fmt: skip
    assert "    long: [3]                          # of several lines\n" in text


@pytest.mark.slow
def test_a_search_is_validated_and_its_winner_saved(tmp_path: Path) -> None:
    copy = tmp_path / "checkout"
    for part in ("lab", "conf"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    env, folder = {"PYTHONPATH": str(copy)}, tmp_path / "search"

    def run(*arguments: str, code: int = 0) -> str:
        done = lab(*arguments, timeout=240, cwd=tmp_path, env=env)
        assert done.returncode == code and "Traceback" not in done.stderr, done.stdout + done.stderr
        return done.stderr if code else done.stdout

    space = ("algo.lr=tag(log,interval(1e-3,1e-1))", "search=command_line", "search.n_trials=3", "sampler=random")
    run("-m", "algo=a2c", "env=cartpole", *SMALL, *space, "seed=0,1", f"hydra.sweep.dir={folder}")
    before = {file: hashlib.sha256(file.read_bytes()).digest() for file in sessions_files(folder)}
    planned = run("validate", str(folder), "top=1", "seed=100..101", "plan=true")
    assert "2 Trials of 2 Sessions (seeds 100 and 101)" in planned
    shown = run("validate", str(folder), "top=1", "seed=100..101", "parallel=2")
    assert "Validation of " in shown and "on fresh seeds 100 and 101" in shown and "default settings" in shown
    assert {file: hashlib.sha256(file.read_bytes()).digest() for file in sessions_files(folder)} == before
    sweep = SweepDir(folder)
    validation = read_json(sweep.results)["validation"]
    best = read_json(sweep.results)["ranking"]
    first = next(entry for entry in best if entry["trial"] != read_json(sweep.results)["defaults"]["trial"])
    (only,) = validation["trials"]
    assert only["trial"] == first["trial"] and only["experiment"] == first["objective"]["return"]
    point = sweep.validation.trial(only["fresh_trial"]).read_point()
    assert point["hyperparameters"] == first["hyperparameters"]
    assert "Validation on fresh seeds" in sweep.report.read_text()
    assert "## Validation" in (sweep.validation.path / "card.md").read_text()
    trained = {session.path: session.status.stat().st_mtime_ns for session in find_sessions(sweep.validation.path)}
    assert len(trained) == 4
    assert "Validation of " in run("validate", str(folder), "top=1")
    assert {
        session.path: session.status.stat().st_mtime_ns for session in find_sessions(sweep.validation.path)
    } == trained
    save(run, sweep, copy, only["fresh_trial"])


def save(run: object, sweep: SweepDir, copy: Path, number: int) -> None:
    """Save the winner, which may be the defaults, and check that the file is applied by itself."""
    assert callable(run)
    tuned = copy / "conf" / "tuned" / "a2c_cartpole.yaml"
    refused = run("validate", str(sweep.path), "top=1", "save=true", code=2)
    assert f"{tuned} exists. To replace it, add overwrite=true." in refused
    shown = run("validate", str(sweep.path), "top=1", "save=true", "overwrite=true")
    if "Nothing is saved: nothing does better on fresh seeds than the default settings." in shown:
        return
    assert f"Saved {copy}/conf/tuned/net/a2c_cartpole_mlp.yaml, {tuned}" in shown
    assert "Note: these settings are not shown to be better than the default settings." in shown, "of two seeds each"
    head = tuned.read_text().splitlines()
    assert head[0] == "# @package _global_" and "fresh seeds 100 and 101" in tuned.read_text()
    composed = yaml.safe_load(run("algo=a2c", "env=cartpole", "--cfg", "job", "--resolve"))
    trained = yaml.safe_load(sweep.validation.trial(number).session(100).spec.read_text())
    assert composed["algo"]["optimizer"] == trained["algo"]["optimizer"]
    assert (composed["net"], composed["frames"]) == (trained["net"], 500)


def sessions_files(folder: Path) -> list[Path]:
    names = ("spec.yaml", "status.json", "metrics.csv", "episodes.csv", "session.json")
    files = [session.path / name for session in find_sessions(folder) for name in names]
    return [*files, SweepDir(folder).study, SweepDir(folder).sweep, SweepDir(folder).multirun]


def test_the_settings_of_conf_are_explained() -> None:
    comments = _read_comments(CONF / "algo" / "ppo.yaml", "algo.")
    assert comments["algo.optimizer.lr_final"] == "learning rate at the end of the schedule"
    assert comments["algo.sil.memory.eps"].startswith("prioritized: added to how far")
