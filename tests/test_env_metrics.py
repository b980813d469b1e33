"""env.metrics: from the info at an episode's end to tables, figures, TensorBoard, pages and objectives."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from lab.analysis import analyze
from lab.command.compare import main as compare
from lab.command.enjoy import main as enjoy
from lab.env.vector import detect_restore_method, probe
from lab.errors import LabError
from lab.run.directory import RunDir, SweepDir, TrialDir
from lab.run.files import read_json
from lab.training.stack import Stack
from tests.helpers import lab, specs
from tests.test_resume import check, killed, signalled

GOAL = ("env=gymnasium", "env.id=tests.envs:Goal-v0", "env.name=goal")
METRICS = "env.metrics=[is_success,distance]"
SMALL = ("algo=a2c", "~tuned", "algo.horizon=16", "frames=1000", "log.every=500", "eval.every=500", "eval.episodes=3")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search for the best is_success, with two Trials of two seeds."""
    folder = tmp_path_factory.mktemp("metrics") / "sweep"
    chosen = ("objective.metric=is_success", "algo.lr=0.001,0.01", "seed=0,1")
    done = lab("-m", *GOAL, METRICS, *SMALL, *chosen, f"hydra.sweep.dir={folder}", "parallel=1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is_success" in done.stdout
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_tables_have_a_column_of_each_metric(sweep: Path) -> None:
    session = RunDir(sweep / "trial-000" / "seed-0")
    episodes, metrics = table(session.episodes), table(session.metrics)
    assert list(episodes[0]) == ["frame", "return", "length", "is_success", "distance"]
    assert all(float(row["is_success"]) == (float(row["distance"]) > 0) for row in episodes)
    assert list(metrics[0])[5:7] == ["is_success", "distance"]
    assert list(metrics[0])[-4:] == ["eval_return", "eval_length", "eval_is_success", "eval_distance"]
    last, window = metrics[-1], episodes[-100:]
    results = read_json(session.results)
    for name in ("is_success", "distance"):
        mean = sum(float(row[name]) for row in window) / len(window)
        assert float(last[name]) == results[name] == pytest.approx(mean)
        assert float(last[f"eval_{name}"]) == results[f"eval_{name}"]
    assert 3 * results["eval_is_success"] in (0, 1, 2, 3)


def test_metrics_do_not_change_how_environments_are_restored() -> None:
    plain, measured = specs(*SMALL, *GOAL)[0].env, specs(*SMALL, *GOAL, METRICS)[0].env
    assert detect_restore_method(plain) == detect_restore_method(measured) == "pickle"


def test_trials_are_ranked_by_a_metric(sweep: Path) -> None:
    trial = read_json(TrialDir(sweep / "trial-000").results)
    values = [read_json(RunDir(sweep / "trial-000" / f"seed-{seed}").results)["is_success"] for seed in (0, 1)]
    assert trial["metrics"]["is_success"]["mean"]["value"] == pytest.approx(sum(values) / 2)
    assert len(read_json(SweepDir(sweep).results)["ranking"]) == 2
    page = SweepDir(sweep).report.read_text(encoding="utf-8")
    assert "mean of is_success over the last 100 episodes" in page and "mean of eval_" not in page
    assert "eval_is_success" in page


def test_pictures_and_cards_show_metrics(sweep: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from lab.analysis import panels
    from lab.analysis.card import write_card
    from lab.analysis.session import read_tables
    from lab.analysis.trial import read_trial

    session = RunDir(sweep / "trial-000" / "seed-0")
    drawn = panels.drawn_columns([read_tables(session)])
    assert drawn[2:7] == ["length", "is_success", "distance", "eval_is_success", "eval_distance"]
    analyze(session.path)
    assert "| is_success | 2 |" in write_card(read_trial(TrialDir(sweep / "trial-000")))
    monkeypatch.chdir(tmp_path)
    compare([str(sweep / "trial-000"), str(sweep / "trial-001"), "metric=is_success"])


def test_tensorboard_has_metrics_by_the_names_of_peers(sweep: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(sweep / "trial-000" / "seed-0"))
    events.Reload()
    tags = {"rollout/success_rate", "rollout/distance", "eval/success_rate", "eval/distance"}
    assert tags <= set(events.Tags()["scalars"])


def test_enjoy_says_the_metrics_of_each_episode(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    enjoy([str(sweep / "trial-000" / "seed-0"), "episodes=3", "code=here"])
    lines = capsys.readouterr().out.splitlines()
    success = [float(line.split("is_success ")[1].split()[0]) for line in lines if line.startswith("episode")]
    assert f"is_success {sum(success) / 3:.4g}" in lines


@pytest.mark.law
@pytest.mark.parametrize(
    "chosen",
    [("env.restore=pickle", "seed=[3,4]"), pytest.param(("env.vectorization_mode=async",), marks=pytest.mark.slow)],
    ids=["pickle", "async"],
)
def test_law_1_with_metrics_killed_and_resumed(tmp_path: Path, chosen: tuple[str, ...]) -> None:
    moments = ((3, signalled), (5, killed), (2, signalled))
    interruptions = [(Stack, "collect_and_learn", moment, act) for moment, act in moments]
    check(tmp_path, (*GOAL, METRICS, "frames=1500", *chosen), *interruptions)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ("env.metrics=[is_sucess]",),
            r"names 'is_sucess', .* Did you mean 'is_success'\? Its keys are: is_success, d",
        ),
        (
            ("env.metrics=[kind]", "+env.kwargs.kind=far"),
            "'kind' of env.metrics, .* is 'far' .*must be a finite number",
        ),
        (("env.metrics=[kind]", "+env.kwargs.kind=nan"), "'kind' of env.metrics, .* is nan"),
        (("+env.kwargs.kind=nothing", METRICS), "It is empty. It must be there at every end"),
        (("env.metrics=[return]",), "env.metrics=.* is not allowed: .* column of Lab's .'return' is not"),
        (("env.metrics=[eval_x]",), "begins with eval_"),
        (("env.metrics=[consistency]",), "column of Lab's .'consistency' is not"),
        (("env.metrics=[importance]",), "column of Lab's .'importance' is not"),
        (("env.metrics=[sil_policy_loss]", "algo.sil.gradient_steps=1"), "free of .* of algo=a2c .*sil_policy_loss"),
        (("env.metrics=[entropy]",), "free of the names of metrics of algo=a2c"),
        (("env.metrics=[a,a]",), "must be different names"),
        (("env.metrics=[a]", "env.backend=envpool"), "env.metrics must be empty with env.backend=envpool"),
    ],
)
def test_mistakes_are_sentences_before_the_first_frame(overrides: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        probe(specs(*GOAL, *overrides)[0].env)


def test_an_objective_may_only_name_what_there_is() -> None:
    done = lab("-m", *GOAL, METRICS, "objective.metric=is_succes", "seed=0,1")
    assert "objective.metric=is_succes is not allowed" in done.stderr and "Did you mean 'is_success'" in done.stderr
    done = lab("-m", *GOAL, METRICS, "objective.metric=eval_is_success", "eval.every=0", "seed=0,1")
    assert "objective.metric=eval_is_success is not possible with eval.every=0" in done.stderr
