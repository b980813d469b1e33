"""Sweeps through the command line: Trials, grids, searches; what goes on, what is refused, what fails alone."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from optuna.distributions import FloatDistribution
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler

from lab.common.text import canonical, quote
from lab.run.directory import RunDir, SweepDir, find_sessions
from lab.run.files import read_json, read_yaml, write_json
from lab.sweep.overrides import parse_value
from lab.sweep.search import instantiate_optuna, make_sampler
from lab.sweep.study import Outcome, Study
from tests.helpers import CONF, ROOT, git, lab, result, train

SMALL = ("algo=a2c", "env=cartpole", "frames=1000", "log.every=500", "eval.every=1000", "eval.episodes=2",
         "log.tensorboard=false", "algo.horizon=16")  # fmt: skip
SEARCH = ("search=command_line", "algo.lr=tag(log,interval(1e-4,1e-1))", "algo.gamma=choice(0.9,0.99)")
MINE = """
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv
gymnasium.register("Mine-v0", CartPoleEnv, max_episode_steps=40)
"""


def unknown(config: Any, trial: Any) -> None:
    """Suggest a hyperparameter that there is none of."""
    trial.suggest_float("algo.lrr", 0, 1)


def broken(config: Any, trial: Any) -> None:
    """Fail to suggest anything."""
    trial.suggest_float("algo.lr", 0, 1 / 0)


def sweep(folder: Path, *words: str, small: tuple[str, ...] = SMALL) -> subprocess.CompletedProcess[str]:
    return lab("-m", *small, *words, f"hydra.sweep.dir={quote(str(folder))}", timeout=240)


def states(folder: Path) -> list[str]:
    return [session.read_status()["state"] for session in find_sessions(folder)]


def starts(folder: Path) -> list[str]:
    """Return when each Session was begun: it changes if one is run again."""
    return [read_json(session.provenance)["start"] for session in find_sessions(folder)]


def test_a_trial_its_continuation_and_more_seeds(tmp_path: Path) -> None:
    folder = tmp_path / "a trial, of 'two' [seeds]=é"
    done = sweep(folder, "seed=0,1")
    assert done.returncode == 0, done.stderr
    assert "2 of 2 Sessions" in done.stdout
    assert "95 % interval" in done.stdout
    assert {path.name for path in folder.iterdir()} >= {"seed-0", "seed-1", "trial.json", "trial.png", "multirun.yaml"}
    before = starts(folder)
    again = lab("resume", str(folder), "seed=0,1,2")
    assert again.returncode == 0, again.stderr
    assert starts(folder)[:2] == before, "Sessions that completed are kept"
    assert states(folder) == ["completed"] * 3
    assert " -m lab -m algo=a2c " in read_json(folder / "seed-0" / "provenance.json")["command"]
    trial = read_json(folder / "trial.json")
    assert trial["seeds"] == [0, 1, 2]
    assert trial["figures"]["return"]["n"] == 3
    assert trial["figures"]["return"]["mean"]["low"] < trial["figures"]["return"]["mean"]["high"]


@pytest.mark.slow
@pytest.mark.law
def test_law_1_a_session_of_a_sweep_is_as_alone(tmp_path: Path) -> None:
    alone = train(tmp_path / "alone", *SMALL, "algo.lr=0.01", "seed=1", "eval.episodes=2", "log.every=500")[0]
    for launcher in ("local", "basic"):
        folder = tmp_path / launcher
        done = sweep(folder, "algo.lr=0.001,0.01", "seed=0,1", f"hydra/launcher={launcher}")
        assert done.returncode == 0, done.stderr
        assert result(RunDir(folder / "trial-001" / "seed-1")) == result(alone)


@pytest.mark.slow
def test_a_grid_is_ranked_and_keeps_its_numbers_when_it_grows(tmp_path: Path) -> None:
    done = sweep(tmp_path, "algo.lr=1e-2,1e-5", "stack=2")
    assert done.returncode == 0, done.stderr
    results = read_json(tmp_path / "experiment.json")
    assert [entry["hyperparameters"] for entry in results["ranking"]] == [{"algo.lr": 0.01}, {"algo.lr": 1e-5}]
    before = starts(tmp_path)
    again = sweep(tmp_path, "algo.lr=3e-3,1e-5,1e-2")
    assert again.returncode == 0, again.stderr
    points = [read_json(trial.point)["hyperparameters"]["algo.lr"] for trial in SweepDir(tmp_path).trials()]
    assert points == [0.01, 1e-5, 0.003]
    assert starts(tmp_path)[:2] == before
    assert (tmp_path / "report.html").stat().st_size > 1000


def test_a_plan_runs_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    done = sweep(folder, "algo.lr=1e-2,1e-3", "seed=0,1", "plan=true")
    assert done.returncode == 0, done.stderr
    assert "4 Sessions to run, 0 have ended" in done.stdout
    assert "trial-001  2 to run  algo.lr=0.001" in done.stdout
    assert not folder.exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["algo.lrr=1,2"], "algo.lrr cannot be set: algo has no key 'lrr'. Did you mean 'lr'?"),
        (["algo.lr=0.1,fast"], "algo.lr=fast is not allowed: algo.lr must be a number."),
        (["search=a2cc"], "search=a2cc does not exist. Did you mean 'a2c'?"),
        (["search=command_line", "algo.gamma=interval(0.5,1.5)"], "algo.gamma=1.5 is not allowed"),
        (["objective.metric=retrun"], "objective.metric=retrun is not allowed"),
        (["objective.aggregate=lower"], "one seed has no interval"),
        (["objective.metric=[return,best]", "objective.direction=minimize"], "one direction for each of the 2 metrics"),
        (["hydra/sweeper/pruner=median", "objective.metric=[return,best]",
          "objective.direction=[maximize,maximize]"], "A pruner needs one objective"),
        (["search=command_line", "search.custom=nowhere.f"], "search.custom=nowhere.f cannot be imported"),
        (["search=command_line", "search.custom=tests.sweep.test_sweep.unknown"], "algo has no key 'lrr'"),
        (["search=command_line", "search.custom=tests.sweep.test_sweep.broken"], "raised ZeroDivisionError"),
        (["search=command_line"], "There is nothing to search"),
        (["hydra.launcher.slots=0"], "hydra.launcher.slots=0 is not allowed"),
        (["algo.lr=1e-3,1e-2", "algo.lr=1e-4,1e-5"], "algo.lr=1e-3,1e-2 and algo.lr=1e-4,1e-5 both set algo.lr"),
        (["eval.every=0", "objective.metric=[return,eval_best]"], "eval_best is not possible with eval.every=0"),
        (["search=a2c", "objective.metric=strength", "env.reference.id=null"], "strength is not possible with env.id="),
    ],
)  # fmt: skip
def test_law_6_mistakes_stop_before_anything_is_begun(tmp_path: Path, words: list[str], sentence: str) -> None:
    folder = tmp_path / "sweep"
    done = sweep(folder, *words)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not folder.exists()


@pytest.mark.slow
def test_what_is_recorded_of_values_of_all_kinds_is_what_was_trained(tmp_path: Path) -> None:
    small = tuple(word for word in SMALL if word != "env=cartpole")
    words = (
        "env=gymnasium",
        "env.id=tests.envs:Level-v0",
        "objective.metric=best",
        "name=kinds",
        "hydra/launcher=basic",
    )
    texts = ["{a:1}", "{a:2}", "'007'", "7", "true", "'true'", "null", "1e-3", "[1,'x, y']", "'{b: 1}'"]
    done = sweep(tmp_path, *words, f"+env.kwargs.table={','.join([*texts, '0.001', '{ a: 1 }'])}", small=small)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Of the 12 points, 10 are different" in done.stdout
    trials = SweepDir(tmp_path).trials()
    values = [{"a": 1}, {"a": 2}, "007", 7, True, "true", None, 0.001, [1, "x, y"], "{b: 1}"]
    for trial, value in zip(trials, values, strict=True):
        held = read_yaml(trial.session(0).spec)["env"]["kwargs"]["table"]
        assert canonical(read_json(trial.point)["hyperparameters"]["env.kwargs.table"]) == canonical(held)
        assert canonical(held) == canonical(value)
    ranking = read_json(tmp_path / "experiment.json")["ranking"]
    assert [canonical(entry["hyperparameters"]["env.kwargs.table"]) for entry in ranking] == [*map(canonical, values)]
    with (tmp_path / "trials.csv").open(newline="") as file:
        cells = [row["env.kwargs.table"] for row in csv.DictReader(file)]
    assert [canonical(parse_value(cell)) for cell in cells] == [*map(canonical, values)]
    again = sweep(tmp_path, *words, "+env.kwargs.table={a:2},{a:1},8", small=small)
    assert again.returncode == 0, again.stdout + again.stderr
    assert len(SweepDir(tmp_path).trials()) == 11


@pytest.mark.slow
def test_what_is_said_where_no_trial_can_be_ranked_is_true(tmp_path: Path) -> None:
    done = sweep(tmp_path, "algo.lr=1e-2,1e-3", "objective.metric=frames_to_solve")
    assert "No Trial can be ranked: none in which all Sessions completed has frames_to_solve of each." in done.stdout
    assert "Not ranked: trial-000: seed 0 has no frames_to_solve" in done.stdout


@pytest.mark.slow
def test_the_name_of_a_run_may_depend_on_what_is_swept(tmp_path: Path) -> None:
    small = ("env=cartpole", "frames=300", "eval.every=0", "log.tensorboard=false", "algo.horizon=16", "~tuned")
    done = lab("-m", "algo=reinforce,a2c", *small, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stdout + done.stderr
    roots = list((tmp_path / "outputs").glob("*/*/*/experiment.json"))
    assert len(roots) == 1
    names = {entry["hyperparameters"]["algo"] for entry in read_json(roots[0])["ranking"]}
    assert names == {"a2c", "reinforce"}


@pytest.mark.slow
def test_a_directory_that_lacks_a_trial_or_a_seed_is_refused(tmp_path: Path) -> None:
    words = ("algo.lr=1e-2,1e-3", "algo.gamma=0.9", "seed=0,1", "eval.every=0")
    assert sweep(tmp_path, *words).returncode == 0
    before = starts(tmp_path)
    again = lab("resume", str(tmp_path), "algo.lr=0.01,0.001")  # in other places and letters, but the same points
    assert again.returncode == 0, again.stderr
    assert starts(tmp_path) == before
    fewer = sweep(tmp_path, *words[:2], "seed=0", "eval.every=0")
    assert (fewer.returncode, "none can be left out, so write seed=0,1" in fewer.stderr) == (2, True)
    shutil.rmtree(tmp_path / "trial-000")
    gap = sweep(tmp_path, *words)
    assert (gap.returncode, "trial-000 is missing" in gap.stderr) == (2, True)


@pytest.mark.slow
def test_sessions_of_a_stack_are_taken_into_a_trial_only_with_the_same_spec(tmp_path: Path) -> None:
    assert lab(*SMALL, "seed=[0,1]", "algo.lr=0.5", f"hydra.run.dir={tmp_path}").returncode == 0
    done = sweep(tmp_path, "seed=0,1,2", "algo.lr=0.001")
    assert done.returncode == 2
    assert "algo.lr is 0.5 there and 0.001 here" in done.stderr
    assert sweep(tmp_path, "seed=0,1,2", "algo.lr=0.5").returncode == 0
    assert read_json(tmp_path / "trial.json")["seeds"] == [0, 1, 2]


@pytest.mark.slow
def test_a_session_and_a_sweep_do_not_share_a_directory_and_a_spec_runs_again(tmp_path: Path) -> None:
    first = tmp_path / "first"
    assert lab(*SMALL, f"hydra.run.dir={first}").returncode == 0
    again = lab("--config-path", str(first), "--config-name", "spec", f"hydra.run.dir={tmp_path / 'again'}")
    assert again.returncode == 0, again.stderr
    assert result(RunDir(tmp_path / "again")) == result(RunDir(first))
    into = sweep(first, "algo.lr=0.1,0.2")
    assert (into.returncode, "holds a Session" in into.stderr) == (2, True)
    write_json(SweepDir(tmp_path / "swept").sweep, {"kind": "experiment"})
    onto = lab(*SMALL, f"hydra.run.dir={tmp_path / 'swept'}")
    assert (onto.returncode, "holds a sweep" in onto.stderr) == (2, True)


def test_a_forgotten_plus_is_a_sentence() -> None:
    done = lab("-m", "algo=ppo", "env=gymnasium", "env.id=FrozenLake-v1", "env.kwargs.is_slippery=false,true")
    assert done.returncode == 2
    assert "+env.kwargs.is_slippery=VALUE" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_search_word_without_a_sweep_is_refused() -> None:
    done = lab("search=a2c")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "search is for a sweep, and this is a single job: add -m" in done.stderr


@pytest.mark.slow
def test_another_spec_is_refused_in_a_directory_that_was_begun(tmp_path: Path) -> None:
    sweep(tmp_path, "algo.lr=1e-2,1e-3")
    for words, sentence in (
        (["algo.lr=1e-2,1e-3", "frames=2000"], "frames is 1000 there and 2000 here"),
        (["seed=0,1"], "started with another kind of sweep"),
        ([*SEARCH], "started with another search space"),
    ):
        done = sweep(tmp_path, *words)
        assert done.returncode == 2
        assert sentence in done.stderr


def test_what_fails_fails_alone_and_is_listed(tmp_path: Path) -> None:
    environments = ("Target", "Raises", "NotANumber", "Killed")
    ids = ",".join(f"tests.envs:{name}-v0" for name in environments)
    small = tuple(word for word in SMALL if word != "env=cartpole" and not word.startswith("frames"))
    words = ("env=gymnasium", "name=mixed", f"env.id={ids}", "frames=6000", "seed=0,1", "max_failure_rate=1")
    done = sweep(tmp_path, *words, small=small)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    results = read_json(tmp_path / "experiment.json")
    assert [entry["trial"] for entry in results["ranking"]] == [0]
    failed = {(entry["trial"], entry["seed"]): entry for entry in results["not_completed"]}
    assert sorted(failed) == [(trial, seed) for trial in (1, 2, 3) for seed in (0, 1)]
    assert failed[1, 0]["error"] == "RuntimeError: the environment broke"
    assert "NaN" in failed[2, 1]["error"]
    assert "killed by SIGKILL" in failed[3, 0]["error"]
    for number in (1, 2, 3):
        trial = read_json(tmp_path / f"trial-00{number}" / "trial.json")
        assert trial["figures"] == {}, "what failed is in no mean"
    for line in ("6 failed:", "trial-001 seed 0: RuntimeError: the environment broke", "trial-001/seed-0/session.log"):
        assert line in done.stdout
    again = sweep(tmp_path, *words, small=small)
    assert again.returncode == 1
    assert "seeds" not in again.stdout.split("Sessions")[0], "nothing runs again unless it is asked for"


@pytest.mark.slow
def test_a_sweep_in_which_too_much_fails_stops(tmp_path: Path) -> None:
    small = tuple(word for word in SMALL if word != "env=cartpole")
    rates = ",".join(f"{value}e-4" for value in range(1, 21))
    raises = ("env=gymnasium", "env.id=tests.envs:Raises-v0", "name=raises", "frames=50000", f"algo.lr={rates}")
    done = sweep(tmp_path, *raises, small=small)
    assert done.returncode == 1, done.stderr
    assert "The sweep was stopped: " in done.stdout
    assert "more than max_failure_rate=0.5" in done.stdout
    assert 4 <= len(find_sessions(tmp_path)) < 20


@pytest.mark.slow
def test_a_search_with_several_objectives_has_a_front(tmp_path: Path) -> None:
    done = sweep(tmp_path, *SEARCH, "search.n_trials=3", "objective.metric=[return,episodes]",
                 "objective.direction=[maximize,minimize]", "hydra/sweeper/sampler=nsgaii")  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = read_json(tmp_path / "experiment.json")
    assert results["pareto"]
    assert set(results["ranking"][0]["objective"]) == {"return", "episodes"}


def hydra_of(*words: str) -> DictConfig:
    with initialize_config_dir(str(CONF)):
        return compose("config", [*words], return_hydra_config=True).hydra


@pytest.mark.parametrize("name", ["tpe", "random", "cmaes", "nsgaii", "nsgaiii", "gp", "qmc"])
def test_every_sampler_goes_on_after_an_interruption(tmp_path: Path, name: str) -> None:
    config = hydra_of(f"hydra/sweeper/sampler={name}").sweeper.sampler
    space = {"x": FloatDistribution(1e-4, 1e-1, log=True), "y": FloatDistribution(0.0, 1.0)}
    begun: dict[int, Outcome] = {}
    points = []
    for number in range(14):
        if number % 5 == 0:  # as after an interruption
            path = tmp_path / "study"
            study = Study(["maximize"], NopPruner(), lambda number: make_sampler(config, number), space, None, path)
            study.open(begun)
        points.append(study.ask())
        begun[number] = Outcome("completed", [float(number % 5)])
        study.tell(number, begun[number])
    assert [number for number, _ in points] == list(range(14))
    assert len({json.dumps(values) for _, values in points}) == 14, "no point is tried twice"
    assert all(1e-4 <= values["x"] <= 1e-1 for _, values in points)


@pytest.mark.parametrize("name", ["median", "percentile", "asha", "hyperband", "wilcoxon"])
def test_every_pruner_stops_the_hopeless_and_spares_the_best(name: str) -> None:
    config = hydra_of(f"hydra/sweeper/pruner={name}").sweeper.pruner
    study = Study(["maximize"], instantiate_optuna(config), lambda _: RandomSampler(0), {}, None)
    study.open({})
    pruned = {}
    for level in (100.0, 90.0, 95.0, 80.0, 5.0, 4.0, 3.0, 2.0, 110.0):
        number, _ = study.ask()
        pruned[level] = any(study.report(number, rung, level + rung) for rung in range(1, 10))
        study.tell(number, Outcome("pruned" if pruned[level] else "completed", [level]))
    assert not pruned[110.0]
    assert not pruned[100.0]
    assert any(pruned[level] for level in (5.0, 4.0, 3.0, 2.0))


@pytest.mark.slow
@pytest.mark.law
def test_the_sessions_of_a_trial_are_pruned_together(tmp_path: Path) -> None:
    rates = "algo.lr=1e-2,1e-7,2e-7,3e-7"
    done = sweep(tmp_path, rates, "seed=0,1", "frames=80000", "hydra/sweeper/pruner=asha", "parallel=1")
    assert done.returncode == 0, done.stderr
    found = states(tmp_path)
    assert found[:2] == ["completed", "completed"], "the best goes on to its end"
    assert found[2:] == ["pruned"] * 6
    session = SweepDir(tmp_path).trial(1).session(0)
    status = session.read_status()
    assert "pruned at rung 1 of 10: mean return" in status["error"]
    assert status["frame"] < 60_000
    assert session.checkpoint("last").exists()
    assert read_json(tmp_path / "experiment.json")["sessions"] == {"planned": 8, "completed": 2, "pruned": 6}


@pytest.mark.slow
@pytest.mark.law
def test_a_trial_gets_no_sessions_of_other_code(tmp_path: Path) -> None:
    place = tmp_path / "project"
    place.mkdir()
    (place / "mine.py").write_text(MINE)
    git(place, "init", "-q")
    git(place, "add", "-A")
    git(place, "commit", "-qm", "mine")
    there: dict[str, Any] = {"cwd": place, "env": {"PYTHONPATH": str(ROOT)}}
    words = ("algo=a2c", "env=gymnasium", "env.id=mine:Mine-v0", "name=mine", *SMALL[2:], "frames=200", "log.every=100")
    done = lab("-m", *words, "seed=0", "hydra.sweep.dir=trial", **there)
    assert done.returncode == 0, done.stderr
    facts = read_json(place / "trial" / "seed-0" / "provenance.json")
    sha = git(place, "rev-parse", "HEAD")
    (own,) = (one for one in facts["repositories"] if one["path"] == str(place))
    assert (own["sha"], own["uncommitted"], own["modules"]) == (sha, False, ["mine"])
    assert set(facts["code"]) >= {"lab", "mine"}
    (place / "README.md").write_text("another commit, but no other code\n")
    git(place, "add", "-A")
    git(place, "commit", "-qm", "documents")
    (place / "mine.py").write_text(MINE.replace("40", "50"))
    before = {path: path.read_bytes() for path in (place / "trial").rglob("*") if path.is_file()}
    done = lab("resume", "trial", "seed=0,1", **there)
    assert done.returncode == 2
    assert "trial has Sessions of other code than the current one: mine (commit" in done.stderr
    assert f"commit {sha[:12]} there, commit {git(place, 'rev-parse', 'HEAD')[:12]} with changes here" in done.stderr
    assert "seed 1 would be mixed with seed 0, so nothing was started" in done.stderr
    assert {path: path.read_bytes() for path in (place / "trial").rglob("*") if path.is_file()} == before
    done = lab("resume", "trial", "seed=0,1", "mix_code=true", **there)
    assert done.returncode == 0, done.stderr
    assert "Warning: trial has Sessions of different code of mine." in done.stderr
