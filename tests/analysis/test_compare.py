"""What a comparison of Sessions, Trials and Experiments may say, and what it may not."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from lab.analysis.compare import (
    Entry,
    compare,
    describe_points,
    differing_keys,
    list_notes,
    plot_compare,
    read_entries,
    require_metric,
    short_entry_names,
)
from lab.analysis.statistics import MIN_SEEDS, difference, probability_of_improvement
from lab.analysis.trial import Trial
from lab.errors import LabError
from lab.run.directory import SweepDir
from lab.run.files import read_json, write_json
from tests import synthetic
from tests.analysis.test_trial import session, trial

LOW, HIGH = (1.0, 2.0, 3.0, 4.0), (11.0, 12.0, 13.0, 14.0)


def entry(
    name: str, values: tuple[float | None, ...], metric: str = "return", spec: dict[str, object] | None = None
) -> Entry:
    made = Entry(Path(name), trial(*(session(s, spec=spec, **{metric: v}) for s, v in enumerate(values))))
    made.name = name
    return made


def environment(name: str, **kwargs: object) -> dict[str, object]:
    reference = {"id": "E-v0", "random_return": None, "solved": None}
    return {"env": {"id": name, "kwargs": kwargs, "reference": reference}}


def test_metrics_are_those_of_the_statistics() -> None:
    actual = compare(entry("a", HIGH), entry("b", LOW), "return")
    assert actual.improvement == probability_of_improvement(np.array(HIGH), np.array(LOW))
    assert actual.difference == difference(np.array(HIGH), np.array(LOW))
    assert (actual.obstacle, actual.doubts) == ("", [])


def test_a_comparison_seen_from_the_other_side() -> None:
    actual = compare(entry("a", (1.0, 2, 3, 9)), entry("b", (2.0, 3, 4, 5)), "return")
    turned = actual.reversed()
    assert (turned.entry.name, turned.other.name) == ("b", "a")
    assert turned.improvement == {
        "value": 1 - actual.improvement["value"], "low": 1 - actual.improvement["high"],
        "high": 1 - actual.improvement["low"],
    }  # fmt: skip
    assert turned.difference["low"] == -actual.difference["high"]
    assert turned.reversed() == actual


@pytest.mark.parametrize(
    ("one", "other", "obstacle"),
    [
        (HIGH[:1], LOW[:1], "one seed each says nothing about another seed"),
        (HIGH[:1], LOW, "the one seed of a says nothing about another seed"),
        (HIGH, LOW[:1], "the one seed of b says nothing about another seed"),
        (HIGH, (None,), "no completed Session of b has any return"),
        ((), LOW, "no completed Session of a has any return"),
    ],
)
def test_what_cannot_be_compared(one: tuple[float, ...], other: tuple[float, ...], obstacle: str) -> None:
    assert compare(entry("a", one), entry("b", other), "return").obstacle == obstacle


def test_doubts() -> None:
    assert compare(entry("a", (1.0, 2, 3, 9)), entry("b", (2.0, 3, 4, 5)), "return").doubts == [
        "the intervals contain 0.5 and 0"
    ]
    for n in (2, 3):
        few = compare(entry("a", HIGH[:n]), entry("b", LOW), "return")
        assert few.improvement == {"value": 1.0, "low": 1.0, "high": 1.0}, "however far apart"
        assert few.doubts == ["it takes 4 seeds each"]
    metric = "frames_to_solve"
    assert compare(entry("a", (1.0, 2, 3, 4, None), metric), entry("b", HIGH, metric), metric).doubts == [
        "only 4 of 5 Sessions of a have frames_to_solve, which flatters it"
    ]
    less = compare(entry("a", LOW, metric), entry("b", HIGH, metric), metric)
    assert (less.improvement["value"], less.difference["value"], less.doubts) == (1.0, 10.0, []), "less is better"


def test_different_environments_cannot_be_compared() -> None:
    one, other = entry("a", HIGH, spec=environment("E-v0")), entry("b", LOW, spec=environment("F-v0", wind=0.5))
    assert compare(one, other, "return").obstacle == "E-v0 and F-v0 wind=0.5 are different environments"
    one = entry("a", HIGH, spec=environment("F-v0", wind=0.25))
    assert "wind=0.25 and F-v0 wind=0.5" in compare(one, other, "return").obstacle


def test_sides_of_different_budgets_are_compared_at_the_last_frame_of_the_shortest(tmp_path: Path) -> None:
    paths = []
    for rows, frames in ((20, 10_000), (60, 30_000)):  # of the same level: the longer one climbs further
        made = synthetic.experiment(tmp_path / str(frames), trials=1, seeds=4, rows=rows, frames=frames)
        paths.append(made.trial(0).path)
    short, long = read_entries(paths)
    assert (short.until, long.until) == (10_000, 10_000)
    assert short.values("return").tolist() == short.trial.values("return").tolist()
    assert long.trial_until.values("frames").tolist() == [10_000.0] * 4
    assert (long.values("return") < long.trial.values("return") - 50).all()
    assert (
        compare(long, short, "return").improvement["value"]
        == probability_of_improvement(long.values("return"), short.values("return"))["value"]
    )
    (note,) = list_notes([short, long])
    assert note.startswith(
        "The budgets of frames differ (frames=10000: 10,000, frames=30000: 30,000), so all are compared as they were at"
        " frame 10,000."
    )
    again = read_entries([paths[0], made.trial(0).session(0).path])
    assert [each.until for each in again] == [10_000, 10_000]


def test_a_side_that_stopped_before_all_frames_of_a_smaller_budget_is_named() -> None:
    one, other = entry("one", LOW), entry("other", LOW, "return", {"stop_at": 60.0})
    one.same_budget = other.same_budget = False
    one.until = other.until = other.trial.sessions[0].frame
    assert list_notes([one, other])[0].startswith("The budgets of frames differ (one: ")
    other.trial.sessions[0].stopped = "its return had reached stop_at"
    (note,) = list_notes([one, other])
    assert note.startswith(
        f"other stopped at frame {one.until:,} (stop_at=60.0), so all are compared as they were there."
    )


def test_frames_are_compared_where_all_sides_have_the_same_goal() -> None:
    one, other = (entry(name, LOW, "frames", {"stop_at": 100.0}) for name in ("one", "other"))
    assert not compare(other, one, "frames").obstacle
    without = entry("without", LOW, "frames", {"stop_at": None})
    obstacle = compare(without, one, "frames").obstacle
    assert "without has stop_at=null and one has stop_at=100.0; metric=frames_to_solve may do" in obstacle
    one.until = without.until = 2
    assert "metric=frames" not in list_notes([one, without])[0] and not list_notes([one, without], "frames")


def test_sides_of_one_budget_are_compared_at_their_end(sweep: SweepDir) -> None:
    entries = read_entries([sweep.trial(number).path for number in range(2)])
    assert [each.until for each in entries] == [None, None]
    assert list_notes(entries[:1]) == []


def test_labels_say_what_differs(sweep: SweepDir) -> None:
    one, other = read_entries([sweep.trial(0).path, sweep.trial(3).path])
    assert (one.name, other.name) == ("trial-000", "trial-003")
    assert re.fullmatch(r"trial-000:( (lr|gamma|advantage)=\S+){2,3}", one.label), one.label
    one, other = read_entries([sweep.trial(0).path, sweep.trial(3).path], ["mine", "theirs"])
    assert [(each.name, each.label) for each in (one, other)] == [("mine", "mine"), ("theirs", "theirs")]
    trials = [trial(session(0, spec={"algo": {"name": name, "lr": lr}})) for name, lr in (("a2c", 1), ("ppo", 2))]
    assert (
        describe_points(trials) == short_entry_names(trials, [Path("/x/1"), Path("/x/2")]) == ["algo=a2c", "algo=ppo"]
    )


def test_a_label_says_each_difference_once(tmp_path: Path) -> None:
    sides = []
    for name, frames in (("a2c", 4000), ("ppo", 8000)):
        made = synthetic.experiment(tmp_path / name, trials=1, seeds=1, rows=4, frames=frames).trial(0)
        spec = yaml.safe_load(made.session(0).spec.read_text())
        made.session(0).spec.write_text(yaml.safe_dump({**spec, "algo": {**spec["algo"], "name": name}}))
        sides.append(made.path)
    assert [(each.name, each.label) for each in read_entries(sides)] == [
        ("algo=a2c", "algo=a2c frames=4000"),
        ("algo=ppo", "algo=ppo frames=8000"),
    ]


@pytest.mark.parametrize("labels", [["a"], ["a", "a"], ["a", ""], ["a", "b", "c"]])
def test_labels_must_be_one_for_each_side(sweep: SweepDir, labels: list[str]) -> None:
    with pytest.raises(LabError, match=f"labels={','.join(labels)} is not allowed: labels must be 2 different names"):
        read_entries([sweep.trial(0).path, sweep.trial(3).path], labels)


def test_sessions_that_did_not_complete_are_noted_and_count_for_nothing() -> None:
    one = entry("a", HIGH)
    one.trial.sessions += [session(7, "failed", **{"return": 1e9}), session(8, "pruned", **{"return": 1e9})]
    actual = compare(one, entry("b", LOW), "return")
    assert actual == compare(one, actual.other, "return")
    assert actual.difference["value"] == 10.0
    assert one.n == "4 of 6"
    assert list_notes([one]) == ["In a, seed 7 failed; seed 8 was pruned: Sessions that did not complete are excluded."]


@pytest.mark.slow
def test_equal_agents_are_seldom_called_different() -> None:
    rng = np.random.default_rng(0)

    def called_different(n: int, m: int) -> bool:
        actual = compare(entry("a", tuple(rng.normal(size=n))), entry("b", tuple(rng.normal(size=m))), "return")
        return not [doubt for doubt in actual.doubts if "takes" not in doubt]

    comparisons = 200
    for n, m in ((4, 4), (5, 5), (10, 10)):
        # 5 % of 200 are 10, with a standard deviation of 3.1: four of them are 12.3.
        assert sum(called_different(n, m) for _ in range(comparisons)) <= 22, (n, m)
    fewer = MIN_SEEDS - 1
    assert sum(called_different(fewer, fewer) for _ in range(comparisons)) > 22, "why it takes four"


def test_names_are_those_of_the_specs_if_they_differ() -> None:
    trials = [trial(session(0, spec={"name": name})) for name in ("a2c_cartpole", "ppo_cartpole")]
    assert short_entry_names(trials, [Path("/x/1"), Path("/x/2")]) == ["a2c_cartpole", "ppo_cartpole"]


def test_names_are_the_one_hyperparameter_that_differs() -> None:
    trials = [trial(session(0, spec={"algo": {"lr": lr, "gamma": 0.9}})) for lr in (1e-2, 1e-4)]
    assert short_entry_names(trials, [Path("/x/1"), Path("/x/2")]) == ["lr=0.01", "lr=1e-4"]
    assert differing_keys(trials) == ["algo.lr"]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["/x/trial-000", "/x/trial-001"], ["trial-000", "trial-001"]),
        (["/x/a/seed-0", "/x/b/seed-0"], ["a", "b"]),
        (["/x/a/seed-0", "/x/b/seed-0", "/x/b/seed-1"], ["a/seed-0", "b/seed-0", "b/seed-1"]),
        (["/x/a", "/x/a/trial-003"], ["a", "trial-003"]),
        (["/x", "/y/x"], ["/", "y"]),
    ],
)
def test_names_are_as_much_of_the_path_as_it_takes(paths: list[str], expected: list[str]) -> None:
    assert short_entry_names([trial(session(0, spec={})) for _ in paths], list(map(Path, paths))) == expected


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> SweepDir:
    folder = tmp_path_factory.mktemp("sweep")
    return synthetic.experiment(folder, trials=5, seeds=4, rows=20, states={(1, 2): "failed", (2, 0): "pruned"})


def test_an_experiment_stands_for_its_best_trial(sweep: SweepDir) -> None:
    one, other = read_entries([sweep.path, sweep.trial(1).path])
    best = max((0, 3, 4), key=lambda number: mean_return(sweep, number))
    assert one.trial.number == best
    assert one.note == (
        f"{sweep.path} stands for its best Trial by mean return, trial-{best:03}:"
        " the best of 3 by these very seeds, so new seeds may well do worse."
    )
    assert (other.note, other.n) == ("", "3 of 4")


def mean_return(sweep: SweepDir, number: int) -> float:
    (one, _) = read_entries([sweep.trial(number).path, sweep.trial(1).path])
    return float(one.trial.values("return").mean())


def test_a_session_is_a_side_of_one_seed(sweep: SweepDir) -> None:
    one, other = read_entries([sweep.trial(0).session(2).path, sweep.trial(0).session(3).path])
    assert [each.seed for each in one.trial.sessions] == [2]
    assert (one.name, other.name, one.n) == ("seed-2", "seed-3", "1")


def test_an_experiment_of_several_objectives_has_no_best_trial(sweep: SweepDir, tmp_path: Path) -> None:
    made = synthetic.experiment(tmp_path, trials=2, seeds=2, rows=4)
    plain = read_json(made.sweep)
    plain["objective"] = {
        "metrics": ["return", "length"], "directions": ["maximize", "minimize"], "aggregate": "mean"
    }  # fmt: skip
    write_json(made.sweep, plain)
    with pytest.raises(LabError, match=r"several objectives.*Pareto front: .*trial-00"):
        read_entries([made.path, sweep.path])


def test_an_experiment_of_which_no_trial_is_ranked_stands_for_nothing(sweep: SweepDir, tmp_path: Path) -> None:
    made = synthetic.experiment(tmp_path, trials=1, seeds=2, rows=4, states={(0, 0): "failed"})
    with pytest.raises(LabError, match=r"has no ranked Trial to compare \(trial-000: seed 0 failed\)"):
        read_entries([made.path, sweep.path])


def test_sides_must_be_two_different_run_directories(sweep: SweepDir, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="name two directories or more"):
        read_entries([sweep.path])
    with pytest.raises(LabError, match="is named twice"):
        read_entries([sweep.path, sweep.path / "trial-000" / ".."])
    with pytest.raises(LabError, match="is not a run directory"):
        read_entries([sweep.path, tmp_path])


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(LabError, match=r"metric=retrun is not allowed.* Did you mean 'return'"):
        require_metric([entry("a", HIGH)], "retrun")
    with pytest.raises(LabError, match="None of the Sessions completed"):
        require_metric([Entry(Path("a"), trial(session(0, "failed")))], "return")


@pytest.mark.parametrize("metric", ["return", "eval_best", "length", "frames_to_solve"])
def test_the_same_sides_give_the_same_picture(sweep: SweepDir, metric: str) -> None:
    entries = read_entries([sweep.trial(number).path for number in range(3)])
    for form, start in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        picture = plot_compare(entries, metric, form)
        assert picture.startswith(start)
        assert plot_compare(entries, metric, form) == picture


def test_a_picture_of_many_sides_and_of_none_that_completed(sweep: SweepDir) -> None:
    entries = read_entries([session.path for t in (0, 3, 4) for session in map(sweep.trial(t).session, range(4))])
    assert plot_compare(entries, "return").startswith(b"\x89PNG")
    failed: Trial = trial(session(0, "failed"))
    assert plot_compare([Entry(Path("a"), failed), Entry(Path("b"), failed)], "return").startswith(b"\x89PNG")
