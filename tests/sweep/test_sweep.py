"""Sweeps on the command line: Trials, grids and searches; what is continued, what is refused, what fails alone."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import optuna
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lab.command.compare import main as compare
from lab.common.text import canonical, quote
from lab.errors import LabError
from lab.run.directory import RunDir, SweepDir, find_sessions
from lab.run.files import read_json, read_yaml, write_json
from lab.sweep.overrides import parse_value
from tests.helpers import CONF, ROOT, git, lab, occupy, result, train

FEW = ("log.every=500", "eval.every=1000", "eval.episodes=2", "log.tensorboard=false", "algo.horizon=16")
SMALL = ("algo=a2c", "env=cartpole", "frames=1000", *FEW)
SEARCH = ("search=command_line", "algo.lr=tag(log,interval(1e-4,1e-1))", "algo.gamma=choice(0.9,0.99)")
MINE = """
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv
gymnasium.register("Mine-v0", CartPoleEnv, max_episode_steps=40)
"""


def unknown(config: Any, trial: Any) -> None:
    """Suggest a hyperparameter that does not exist."""
    trial.suggest_float("algo.lrr", 0, 1)


def broken(config: Any, trial: Any) -> None:
    """Fail to suggest anything."""
    trial.suggest_float("algo.lr", 0, 1 / 0)


def run(*arguments: str, code: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line, and check its exit status."""
    done = lab(*arguments, **options)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def sweep(
    folder: Path, *overrides: str, small: tuple[str, ...] = SMALL, code: int = 0
) -> subprocess.CompletedProcess[str]:
    return run("-m", *small, *overrides, f"hydra.sweep.dir={quote(str(folder))}", code=code, timeout=240)


def states(folder: Path) -> list[str]:
    return [session.read_status()["state"] for session in find_sessions(folder)]


def starts(folder: Path) -> list[str]:
    """Return when each Session started, which changes if it runs again."""
    return [read_json(session.provenance)["start"] for session in find_sessions(folder)]


def test_a_trial_is_continued_and_gets_more_seeds(tmp_path: Path) -> None:
    folder = tmp_path / "a trial, of 'two' [seeds]=é"
    done = sweep(folder, "seed=0,1")
    assert "2 of 2 Sessions" in done.stdout
    assert "95 % interval" in done.stdout
    best = max((0, 1), key=lambda seed: read_json(folder / f"seed-{seed}" / "session.json")["eval_best"])
    assert f"seed-{best}'" in done.stdout.partition("# play the best agent")[2].splitlines()[1]
    assert {path.name for path in folder.iterdir()} >= {"seed-0", "seed-1", "trial.json", "trial.png", "multirun.yaml"}
    before = starts(folder)
    run("resume", str(folder), "seed=0,1,2")
    assert starts(folder)[:2] == before, "completed Sessions are kept"
    assert states(folder) == ["completed"] * 3
    assert " -m lab -m algo=a2c " in read_json(folder / "seed-0" / "provenance.json")["command"]
    trial = read_json(folder / "trial.json")
    assert trial["seeds"] == [0, 1, 2]
    assert trial["metrics"]["return"]["n"] == 3
    assert trial["metrics"]["return"]["mean"]["low"] < trial["metrics"]["return"]["mean"]["high"]


@pytest.mark.slow
@pytest.mark.law
def test_law_1_a_session_of_a_sweep_is_as_alone(tmp_path: Path) -> None:
    alone = train(tmp_path / "alone", *SMALL, "algo.lr=0.01", "seed=1", "eval.episodes=2", "log.every=500")[0]
    for launcher in ("local", "basic"):
        sweep(tmp_path / launcher, "algo.lr=0.001,0.01", "seed=0,1", f"hydra/launcher={launcher}")
        assert result(RunDir(tmp_path / launcher / "trial-001" / "seed-1")) == result(alone)


@pytest.mark.slow
def test_a_grid_is_ranked_and_keeps_its_numbers_when_it_grows(tmp_path: Path) -> None:
    sweep(tmp_path, "algo.lr=1e-2,1e-5", "stack=2")
    results = read_json(tmp_path / "experiment.json")
    assert [entry["hyperparameters"] for entry in results["ranking"]] == [{"algo.lr": 0.01}, {"algo.lr": 1e-5}]
    before = starts(tmp_path)
    done = sweep(tmp_path, "algo.lr=3e-3,1e-5,1e-2")
    assert "Drawing 1 Trial." in done.stdout, "the others are drawn already"
    points = [read_json(trial.point)["hyperparameters"]["algo.lr"] for trial in SweepDir(tmp_path).trials()]
    assert points == [0.01, 1e-5, 0.003]
    assert starts(tmp_path)[:2] == before
    assert (tmp_path / "report.html").stat().st_size > 1000
    assert all(trial.plot.exists() for trial in SweepDir(tmp_path).trials()), "Trials are drawn at the end"


def test_a_grid_over_environments_is_ranked_within_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("algo=a2c", "env=cartpole,mountaincar", "frames=300", "objective.metric=eval_return", *FEW)
    done = sweep(tmp_path, "algo.gamma=0.9,0.99", small=small)
    results = read_json(tmp_path / "experiment.json")
    assert [entry["environment"] for entry in results["ranking"]] == ["CartPole-v1"] * 2 + ["MountainCar-v0"] * 2
    assert [entry["rank"] for entry in results["ranking"]][::2] == [1, 1]
    assert results["best"] is None
    shown, _, drawing = done.stdout.partition("Drawing 4 Trials.")
    assert "Trials are ranked within each environment" in shown
    assert f"python -m lab report {tmp_path}" in drawing, "results are shown before, and Ctrl-C leaves out no more"
    assert all(trial.plot.stat().st_size for trial in SweepDir(tmp_path).trials())
    compares = re.findall(r"# the two best in (\S+), .*\n +python -m lab compare (\S+) (\S+)\n", done.stdout)
    assert [name for name, *_ in compares] == ["CartPole-v1", "MountainCar-v0"]
    for _, *pair in compares:
        compare([*pair, f"out={tmp_path}"])
        assert "different environments" not in capsys.readouterr().out
    with pytest.raises(LabError, match=r"Nothing can be compared over CartPole-v1, MountainCar-v0\. Not ranked: "):
        compare([str(tmp_path), compares[0][1], f"out={tmp_path}"])
    page = (tmp_path / "report.html").read_text()
    assert '"views":["eval_return in CartPole-v1","eval_return in MountainCar-v0"]' in page


def test_a_plan_runs_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    done = sweep(folder, "algo.lr=1e-2,1e-3", "seed=0,1", "plan=true")
    assert "4 Sessions: 4 to run." in done.stdout
    assert "trial-001  2 to run  algo.lr=0.001" in done.stdout
    assert not folder.exists()


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ("algo.lrr=1,2", "algo.lrr cannot be set: algo has no key 'lrr'. Did you mean 'lr'?"),
        ("algo.lr=0.1,fast", "algo.lr=fast is not allowed: algo.lr must be a number above 0."),
        ("search=a2cc", "search=a2cc does not exist. Did you mean 'a2c'?"),
        ("search=command_line algo.gamma=interval(0.5,1.5)", "algo.gamma=1.5 is not allowed"),
        ("objective.metric=retrun", "objective.metric=retrun is not allowed"),
        ("objective.aggregate=lower", "one seed has no interval"),
        ("objective.metric=[return,best] objective.direction=minimize", "one direction for each metric (return, best)"),
        ("hydra/sweeper/pruner=median objective.metric=[return,best] objective.direction=[maximize,maximize]",
         "A pruner needs one objective"),
        ("search=command_line search.custom=nowhere.f", "search.custom=nowhere.f cannot be imported"),
        ("search=command_line search.custom=tests.sweep.test_sweep.unknown", "algo has no key 'lrr'"),
        ("search=command_line search.custom=tests.sweep.test_sweep.broken", "raised ZeroDivisionError"),
        ("search=command_line", "There is nothing to search"),
        ("hydra.launcher.slots=0", "hydra.launcher.slots=0 is not allowed"),
        ("algo.lr=1e-3,1e-2 algo.lr=1e-4,1e-5", "algo.lr=1e-3,1e-2 and algo.lr=1e-4,1e-5 both set algo.lr"),
        ("eval.every=0 objective.metric=[return,eval_best]", "eval_best is not possible with eval.every=0"),
        ("search=a2c objective.metric=strength env.reference.id=null", "strength is not possible with env.id="),
        ("search=command_line +env.kwargs.sutton_barto_reward=choice(true,false)",
         "A search cannot choose between different kinds of CartPole-v1, as their returns mean different things."),
        ("+env.kwargs.sutton_barto_reward=true,false hydra/sweeper/pruner=median", "A pruner cannot compare Trials in"),
    ],
)  # fmt: skip
def test_law_6_mistakes_stop_before_anything_is_started(tmp_path: Path, overrides: str, sentence: str) -> None:
    folder = tmp_path / "sweep"
    assert sentence in sweep(folder, *overrides.split(), code=2).stderr
    assert not folder.exists()


@pytest.mark.slow
def test_recorded_values_of_all_kinds_are_those_that_were_trained(tmp_path: Path) -> None:
    small = ("algo=a2c", "env=gymnasium", "env.id=tests.envs:Level-v0", "objective.metric=best", "name=kinds",
             "hydra/launcher=basic", "frames=1000", *FEW)  # fmt: skip
    texts = ["{a:1}", "{a:2}", "'007'", "7", "true", "'true'", "null", "1e-3", "[1,'x, y']", "'{b: 1}'"]
    done = sweep(tmp_path, f"+env.kwargs.table={','.join([*texts, '0.001', '{ a: 1 }'])}", small=small)
    assert "Of the 12 points, 10 are different" in done.stdout
    values = [{"a": 1}, {"a": 2}, "007", 7, True, "true", None, 0.001, [1, "x, y"], "{b: 1}"]
    for trial, value in zip(SweepDir(tmp_path).trials(), values, strict=True):
        held = read_yaml(trial.session(0).spec)["env"]["kwargs"]["table"]
        assert canonical(read_json(trial.point)["hyperparameters"]["env.kwargs.table"]) == canonical(held)
        assert canonical(held) == canonical(value)
    ranking = read_json(tmp_path / "experiment.json")["ranking"]
    assert [canonical(entry["hyperparameters"]["env.kwargs.table"]) for entry in ranking] == [*map(canonical, values)]
    with (tmp_path / "trials.csv").open(newline="") as file:
        cells = [row["env.kwargs.table"] for row in csv.DictReader(file)]
    assert [canonical(parse_value(cell)) for cell in cells] == [*map(canonical, values)]
    sweep(tmp_path, "+env.kwargs.table={a:2},{a:1},8", small=small)
    assert len(SweepDir(tmp_path).trials()) == 11


@pytest.mark.slow
def test_it_is_explained_why_no_trial_can_be_ranked(tmp_path: Path) -> None:
    done = sweep(tmp_path, "algo.lr=1e-2,1e-3", "objective.metric=frames_to_solve")
    assert "No Trial can be ranked: none in which all Sessions completed has frames_to_solve of each." in done.stdout
    assert "Not ranked: " not in done.stdout, "it says so once"


@pytest.mark.slow
def test_a_sweep_has_one_name_and_takes_the_next_free_directory(tmp_path: Path) -> None:
    small = ("env=cartpole", "frames=300", "eval.every=0", "log.tensorboard=false", "algo.horizon=16", "~tuned")
    occupied = occupy(tmp_path / "outputs" / "reinforce-a2c_cartpole")
    done = run("-m", "algo=reinforce,a2c", *small, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
    (file,) = (tmp_path / "outputs").glob("*/*/*/experiment.json")
    results = read_json(file)
    assert {entry["hyperparameters"]["algo"] for entry in results["ranking"]} == {"a2c", "reinforce"}
    assert file.parent.name.endswith("-2")
    assert file.parent.with_name(file.parent.name.removesuffix("-2")) in occupied
    assert f"Everything is in {file.parent.relative_to(tmp_path)}" in done.stdout
    status = run("status", str(file.parent)).stdout
    names = [read_json(file.parent / "sweep.json")["name"], file.parents[2].name]
    assert names == ["reinforce-a2c_cartpole"] * 2
    assert "reinforce-a2c_cartpole" in status
    assert "reinforce-a2c_cartpole" in (file.parent / "report.html").read_text()
    before = starts(file.parent)
    run("resume", str(file.parent), "algo=reinforce,a2c", cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
    assert starts(file.parent) == before


@pytest.mark.slow
def test_a_directory_that_lacks_a_trial_or_a_seed_is_refused(tmp_path: Path) -> None:
    overrides = ("algo.lr=1e-2,1e-3", "algo.gamma=0.9", "eval.every=0")
    sweep(tmp_path, *overrides, "seed=0,1")
    before = starts(tmp_path)
    run("resume", str(tmp_path), "algo.lr=0.01,0.001")  # the same points, written differently
    assert starts(tmp_path) == before
    fewer = sweep(tmp_path, *overrides, "seed=0", code=2)
    assert "none can be left out, so write seed=0,1" in fewer.stderr
    shutil.rmtree(tmp_path / "trial-000")
    assert "trial-000 is missing" in sweep(tmp_path, *overrides, "seed=0,1", code=2).stderr


@pytest.mark.slow
def test_sessions_of_a_stack_join_a_trial_only_with_the_same_spec(tmp_path: Path) -> None:
    run(*SMALL, "seed=[0,1]", "algo.lr=0.5", f"hydra.run.dir={tmp_path}")
    assert "lr is 0.5 there and 0.001 here" in sweep(tmp_path, "seed=0,1,2", "algo.lr=0.001", code=2).stderr
    done = run("resume", str(tmp_path), "seed=0,1,2")
    assert "seed 2 of 1,000 frames\n" in done.stdout, "only what is missing"
    assert "Note:" not in done.stderr
    assert read_json(tmp_path / "trial.json")["seeds"] == [0, 1, 2]


@pytest.mark.slow
def test_a_session_and_a_sweep_do_not_share_a_directory_and_a_spec_runs_again(tmp_path: Path) -> None:
    first = tmp_path / "first"
    run(*SMALL, f"hydra.run.dir={first}")
    run("--config-path", str(first), "--config-name", "spec", f"hydra.run.dir={tmp_path / 'again'}")
    assert result(RunDir(tmp_path / "again")) == result(RunDir(first))
    assert "holds a Session" in sweep(first, "algo.lr=0.1,0.2", code=2).stderr
    write_json(SweepDir(tmp_path / "swept").sweep, {"kind": "experiment"})
    assert "holds a sweep" in run(*SMALL, f"hydra.run.dir={tmp_path / 'swept'}", code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("-m algo=ppo env=gymnasium env.id=FrozenLake-v1 env.kwargs.is_slippery=false,true",
         "+env.kwargs.is_slippery=VALUE"),
        ("search=a2c", "search is for a sweep, and this is a single job: add -m"),
    ],
)  # fmt: skip
def test_a_forgotten_plus_or_m_is_a_sentence(arguments: str, sentence: str) -> None:
    done = run(*arguments.split(), code=2)
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_another_spec_is_refused_in_a_directory_that_was_used(tmp_path: Path) -> None:
    sweep(tmp_path, "algo.lr=1e-2,1e-3")
    for overrides, sentence in (
        (["algo.lr=1e-2,1e-3", "frames=2000"], "frames is 1000 there and 2000 here"),
        (["seed=0,1"], "started with another kind of sweep"),
        ([*SEARCH], "started with another search space"),
    ):
        assert sentence in sweep(tmp_path, *overrides, code=2).stderr


def test_another_sampler_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    folder = SweepDir(tmp_path)
    write_json(folder.sweep, {"kind": "experiment"})
    with initialize_config_dir(str(CONF)):
        config = compose("config", [*SMALL, SEARCH[0]], return_hydra_config=True)
    folder.multirun.write_text(OmegaConf.to_yaml(config))
    recorded = folder.multirun.read_text()
    refused = sweep(tmp_path, "sampler=random", small=(*SMALL, *SEARCH), code=2).stderr
    sentence = "holds a search with sampler=tpe, and sampler=random was asked for. Choose another hydra.sweep.dir."
    assert sentence in " ".join(refused.split())
    assert folder.multirun.read_text() == recorded and len([*tmp_path.iterdir()]) == 2
    folder.multirun.unlink()
    sweep(tmp_path, "sampler=random", "plan=true", small=(*SMALL, *SEARCH))  # nothing says that it had another


def test_what_fails_fails_alone_and_is_listed(tmp_path: Path) -> None:
    ids = ",".join(f"tests.envs:{name}-v0" for name in ("Target", "Raises", "NotANumber", "Killed"))
    small = ("algo=a2c", "env=gymnasium", *FEW, "name=mixed", "frames=6000", "seed=0,1", "max_failure_rate=1")
    done = sweep(tmp_path, f"env.id={ids}", small=small, code=1)
    results = read_json(tmp_path / "experiment.json")
    assert [entry["trial"] for entry in results["ranking"]] == [0]
    failed = {(entry["trial"], entry["seed"]): entry for entry in results["not_completed"]}
    assert sorted(failed) == [(trial, seed) for trial in (1, 2, 3) for seed in (0, 1)]
    assert failed[1, 0]["error"] == "RuntimeError: the environment broke"
    assert "NaN" in failed[2, 1]["error"]
    assert "killed by SIGKILL" in failed[3, 0]["error"]
    for number in (1, 2, 3):
        assert read_json(tmp_path / f"trial-00{number}" / "trial.json")["metrics"] == {}, "what failed is in no mean"
    for line in ("6 failed:", "trial-001 seed 0: RuntimeError: the environment broke", "trial-001/seed-0/session.log"):
        assert line in done.stdout
    again = sweep(tmp_path, f"env.id={ids}", small=small, code=1)
    assert "seeds" not in again.stdout.split("Sessions")[0], "nothing runs again unless it is asked for"


@pytest.mark.slow
def test_a_sweep_in_which_too_much_fails_stops(tmp_path: Path) -> None:
    rates = ",".join(f"{value}e-4" for value in range(1, 21))
    small = ("algo=a2c", "env=gymnasium", "env.id=tests.envs:Raises-v0", "name=raises", "frames=50000", *FEW)
    done = sweep(tmp_path, f"algo.lr={rates}", small=small, code=1)
    assert "The sweep was stopped: " in done.stdout
    assert "more than max_failure_rate=0.5" in done.stdout
    assert 4 <= len(find_sessions(tmp_path)) < 20


@pytest.mark.slow
def test_a_search_starts_from_the_defaults_and_compares_with_them(tmp_path: Path) -> None:
    few = ("frames=300", "search=command_line", "algo.lr=tag(log,interval(1e-4,1e-1))", "algo.gamma=choice(0.9,0.99)")
    small = ("algo=a2c", "env=cartpole", *FEW, *few, "name=mine", "hydra/sweeper/sampler=random")
    done = sweep(tmp_path, "search.n_trials=2", "seed=0,1", small=small)
    assert "trial-000 (defaults)" in done.stdout
    assert re.search(r"than one of trial-000 \(defaults\): |No Trial is better than the defaults\.", done.stdout)
    run("resume", str(tmp_path), "search.n_trials=3")
    point = {"algo.lr": 0.003, "algo.gamma": 0.99}
    points = [read_json(trial.point)["hyperparameters"] for trial in SweepDir(tmp_path).trials()]
    assert [each == point for each in points] == [True, False, False]
    results = read_json(tmp_path / "experiment.json")
    assert results["defaults"]["trial"] == 0
    assert "which the search started from" in (tmp_path / "report.html").read_text()
    study = optuna.load_study(study_name="mine", storage=f"sqlite:///{tmp_path}/study.db")
    ends = {entry["trial"]: entry["objective"]["return"] for entry in results["ranking"]}
    for trial in study.trials:
        name, interval = f"trial-00{trial.number}", [ends[trial.number]["low"], ends[trial.number]["high"]]
        attributes = {"directory": name, "state": "completed", "seeds": [0, 1], "95 % interval of return": interval}
        assert trial.user_attrs == attributes


def test_a_search_whose_space_lacks_the_defaults_says_so(tmp_path: Path) -> None:
    space = ("search=command_line", "algo.lr=interval(0.1,0.2)", "plan=true")
    sentence = "Note: The search starts without the defaults: algo.lr=0.003 is not in interval(0.1,0.2)."
    assert sentence in sweep(tmp_path / "new", *space).stderr
    assert "without the defaults" not in sweep(tmp_path / "new", *space, "search.enqueue_defaults=false").stderr


@pytest.mark.slow
def test_a_search_with_several_objectives_has_a_front(tmp_path: Path) -> None:
    sweep(tmp_path, *SEARCH, "search.n_trials=3", "objective.metric=[return,episodes]",
          "objective.direction=[maximize,minimize]", "hydra/sweeper/sampler=nsgaii")  # fmt: skip
    results = read_json(tmp_path / "experiment.json")
    assert results["pareto"]
    assert set(results["ranking"][0]["objective"]) == {"return", "episodes"}


@pytest.mark.slow
@pytest.mark.law
def test_the_sessions_of_a_trial_are_pruned_together(tmp_path: Path) -> None:
    rates = "algo.lr=1e-2,1e-7,2e-7,3e-7"
    sweep(tmp_path, rates, "seed=0,1", "frames=80000", "hydra/sweeper/pruner=asha", "parallel=1")
    assert states(tmp_path) == ["completed"] * 2 + ["pruned"] * 6, "the best runs to its end"
    session = SweepDir(tmp_path).trial(1).session(0)
    status = session.read_status()
    assert "pruned at rung 1 of 10: mean return" in status["error"]
    assert status["frame"] < 60_000
    assert session.checkpoint("last").exists()
    assert read_json(tmp_path / "experiment.json")["sessions"] == {"planned": 8, "completed": 2, "pruned": 6}
    planned = run("resume", str(tmp_path), "seed=0,1,2", "plan=true").stdout
    assert "12 Sessions: 1 to run, 2 completed, 9 pruned." in planned


@pytest.mark.slow
@pytest.mark.law
def test_a_trial_gets_no_sessions_of_other_code(tmp_path: Path) -> None:
    def commit(name: str, text: str) -> None:
        (place / name).write_text(text)
        git(place, "add", "-A")
        git(place, "commit", "-qm", name)

    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (place / "trial").rglob("*") if path.is_file()}

    place = tmp_path / "project"
    place.mkdir()
    git(place, "init", "-q")
    commit("mine.py", MINE)
    there: dict[str, Any] = {"cwd": place, "env": {"PYTHONPATH": str(ROOT)}}
    small = ("algo=a2c", "env=gymnasium", "env.id=mine:Mine-v0", "name=mine", *FEW, "frames=200", "log.every=100")
    run("-m", *small, "seed=0", "hydra.sweep.dir=trial", **there)
    facts = read_json(place / "trial" / "seed-0" / "provenance.json")
    sha = git(place, "rev-parse", "HEAD")
    (own,) = (repository for repository in facts["repositories"] if repository["path"] == str(place))
    assert (own["sha"], own["uncommitted"], own["modules"]) == (sha, False, ["mine"])
    assert set(facts["code"]) >= {"lab", "mine"}
    commit("README.md", "another commit, but no other code\n")
    (place / "mine.py").write_text(MINE.replace("40", "50"))
    before = content()
    error = run("resume", "trial", "seed=0,1", code=2, **there).stderr
    assert "trial has Sessions of other code than the current one: mine (commit" in error
    assert f"commit {sha[:12]} there, commit {git(place, 'rev-parse', 'HEAD')[:12]} with changes here" in error
    assert "seed 1 would be mixed with seed 0, so nothing was started" in error
    assert content() == before
    done = run("resume", "trial", "seed=0,1", "mix_code=true", **there)
    assert "Warning: trial has Sessions of different code of mine." in done.stderr
