"""`python -m lab compare`, from its arguments to what it prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.analysis.compare import compare
from lab.analysis.experiment import read_experiment
from lab.command.compare import describe_comparison, main
from lab.common.text import format_chance
from lab.errors import LabError
from lab.run.directory import SweepDir
from tests import synthetic
from tests.analysis.test_compare import HIGH, LOW, entry


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> SweepDir:
    folder = tmp_path_factory.mktemp("sweep") / "lr=1"
    return synthetic.experiment(folder, trials=3, seeds=4, rows=20, states={(1, 2): "failed"})


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    main([str(argument) for argument in arguments])
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_it_prints_metrics_and_what_they_allow_to_conclude(
    sweep: SweepDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = run(capsys, *(sweep.trial(number).path for number in range(3)), f"out={tmp_path}/new")
    header, first, second = lines[1:4]
    assert header.startswith("return algo.")
    assert header.endswith("sessions mean IQM P(better than trial-000) IQM better by")
    assert first.startswith("trial-000")
    assert " 3 of 4 " in second
    assert sum(line.startswith("With ") for line in lines) == 2, "each against the first"
    assert "Note: In trial-001, seed 2 failed: Sessions that did not complete are excluded." in lines
    assert lines[-1] == f"Made {tmp_path}/new/compare.png"
    assert (tmp_path / "new" / "compare.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "name", "start"),
    [
        (["out={}/a.svg"], "a.svg", b"<?xml"),
        (["out={}/new/a.pdf", "format=pdf"], "new/a.pdf", b"%PDF"),
        (["out={}/new", "format=pdf"], "new/compare.pdf", b"%PDF"),
        (["out={}/v1.0"], "v1.0/compare.png", b"\x89PNG"),
    ],
)
def test_the_picture_has_the_place_and_format_of_the_options(
    arguments: list[str], name: str, start: bytes, sweep: SweepDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [argument.format(tmp_path) for argument in arguments]
    lines = run(capsys, sweep.trial(0).path, sweep.trial(1).path, "labels=old,new one", *options)
    assert lines[2].startswith("old ") and lines[3].startswith("new one ")
    assert lines[-1] == f"Made {tmp_path}/{name}"
    assert (tmp_path / name).read_bytes().startswith(start)


def test_a_format_that_the_file_contradicts_is_refused(sweep: SweepDir) -> None:
    with pytest.raises(LabError, match=r"format=pdf is not allowed with out=a.svg, whose format is svg\."):
        main([str(sweep.path), str(sweep.trial(1).path), "out=a.svg", "format=pdf"])


def test_budgets_that_differ_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [
        synthetic.experiment(tmp_path / str(rows), trials=1, seeds=4, rows=rows, frames=500 * rows).trial(0).path
        for rows in (20, 60)
    ]
    lines = run(capsys, *paths, f"out={tmp_path}")
    assert lines[1].startswith("return at frame 10,000 sessions mean IQM")
    assert sum(line.startswith("With 4 and 4 seeds at frame 10,000, ") for line in lines) == 1
    assert sum(line.startswith("Note: The budgets of frames differ") for line in lines) == 1


def test_it_draws_into_the_working_directory(
    sweep: SweepDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(sweep.path.rglob("*"))
    lines = run(capsys, sweep.path, sweep.trial(1).path, "metric=strength")
    assert lines[-1] == "Made outputs/compare.png"
    assert Path("outputs/compare.png").exists()
    assert lines[1].startswith("strength ")
    assert any("stands for its best Trial" in line for line in lines)
    assert sorted(sweep.path.rglob("*")) == before, "comparing writes nothing into a run directory"


def test_names_are_shown_whole_and_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["a" * 150, "[bold]b$"]
    for seed, name in enumerate(names):
        synthetic.experiment(tmp_path / name, trials=1, seeds=2, rows=4, seed=seed)
    lines = run(capsys, *(tmp_path / name / "trial-000" for name in names), f"out={tmp_path}")
    assert [line.split()[0] for line in lines[2:4]] == names
    assert any(f"between {names[0]} and {names[1]} " in line or f"{names[1]} and {names[0]} " in line for line in lines)


def test_wrong_arguments(sweep: SweepDir, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"]):
        main(arguments)
        assert capsys.readouterr().out.startswith("Usage: python -m lab compare DIR")
    with pytest.raises(LabError, match="compare has no key 'metrics'"):
        main([str(sweep.path), str(sweep.trial(0).path), "metrics=return"])
    with pytest.raises(LabError, match="metric=retrun is not allowed"):
        main([str(sweep.path), str(sweep.trial(1).path), "metric=retrun"])
    with pytest.raises(LabError, match="there is no such directory"):
        main([str(sweep.path), f"{sweep.path}/nothing"])


def test_the_order_of_the_directories_changes_no_conclusion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = synthetic.experiment(tmp_path / "sweep", trials=2, seeds=4, rows=20)
    sentences = []
    for numbers in ((0, 1), (1, 0)):
        lines = run(capsys, *(made.trial(number).path for number in numbers), f"out={tmp_path}")
        sentences += [line for line in lines if line.startswith("With 4 and 4 seeds, ")]
    one, other = (re.sub(r" between .* on return", "", sentence) for sentence in sentences)
    assert one == other
    improvement = read_experiment(made).ranking[0].improvement
    assert improvement and f" = {format_chance(improvement)}, IQM higher" in one, "as the sweep says"


def test_one_side_is_better() -> None:
    expected = "With 4 and 4 seeds, a is better than b on return: P(a > b) = 1.00 [1.00, 1.00], IQM higher by 10.0 ["
    assert describe_comparison(compare(entry("a", HIGH), entry("b", LOW), "return")).startswith(expected)
    assert describe_comparison(compare(entry("b", LOW), entry("a", HIGH), "return")).startswith(expected)


def test_one_side_is_better_in_being_lower() -> None:
    one, other = entry("a", HIGH, "frames_to_solve"), entry("b", LOW, "frames_to_solve")
    assert describe_comparison(compare(one, other, "frames_to_solve")).startswith(
        "With 4 and 4 seeds, b is better than a on frames_to_solve, of which less is better:"
        " P(b < a) = 1.00 [1.00, 1.00], IQM lower by 10 ["
    )


def test_no_side_is_shown_to_be_better() -> None:
    sentence = describe_comparison(compare(entry("a", (1.0, 2, 3, 9)), entry("b", (2.0, 3, 4, 5)), "return"))
    assert sentence.startswith(
        "With 4 and 4 seeds, no difference between b and a on return can be concluded: P(b > a) = 0.62 ["
    )
    assert sentence.endswith("; the intervals contain 0.5 and 0.")
    few = describe_comparison(compare(entry("a", HIGH[:3]), entry("b", LOW), "return"))
    assert few.startswith(
        "With 3 and 4 seeds, no difference between a and b on return can be concluded: P(a > b) = 1.00"
    )
    assert few.endswith("; it takes 4 seeds each.")


def test_sides_that_cannot_be_compared() -> None:
    assert describe_comparison(compare(entry("b", LOW[:1]), entry("a", HIGH[:1]), "return")) == (
        "a and b cannot be compared on return: one seed each says nothing about another seed."
    )


def test_a_picture_that_is_there_keeps_another_name(
    sweep: SweepDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "compare.png").write_text("mine")
    arguments = (sweep.trial(0).path, sweep.trial(1).path, f"out={tmp_path}")
    assert run(capsys, *arguments)[-1].endswith("compare.png; the earlier one is now " + f"{tmp_path}/compare-1.png")
    assert run(capsys, *arguments)[-1].endswith("compare.png"), "the same picture is made again"
    assert (tmp_path / "compare-1.png").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"compare.png", "compare-1.png"}


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> list[SweepDir]:
    """The same two Trials in two environments, of which one has no reference."""
    sweeps = []
    for env in ("CartPole-v1", "Other-v0"):
        folder = tmp_path_factory.mktemp("environments") / env
        sweep = synthetic.experiment(folder, trials=2, seeds=4, rows=10, states={(0, 3): "failed"})
        for trial in (sweep.trial(number) for number in range(2)):
            for seed in range(4):
                file = trial.session(seed).spec
                file.write_text(file.read_text().replace("  id: CartPole-v1\n  num", f"  id: {env}\n  num"))
        sweeps.append(sweep)
    return sweeps


def test_trials_of_several_environments_are_grouped_by_their_settings(
    environments: list[SweepDir], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [sweep.trial(number).path for sweep in environments for number in range(2)]
    lines = run(capsys, *paths, f"out={tmp_path}")
    assert lines[1] == "IQM of normalized return over 2 environments and 3 to 4 seeds"
    assert lines[2] == "setting rank IQM of scores CartPole-v1 Other-v0"
    assert [line.split()[0][:3] for line in lines[3:5]] == ["lr=", "lr="]
    assert any("as no reference is known: Other-v0 (" in line for line in lines)
    assert any("the one that counts as solved: CartPole-v1 (22.2 and 475.0)" in line for line in lines)
    assert sum(line.startswith("Note: Sessions that did not complete are excluded") for line in lines) == 1
    assert lines[-1] == f"Made {tmp_path}/compare.png"
    labelled = run(capsys, *paths, f"out={tmp_path}/b", "labels=old,new,old,new")
    assert {line.split()[0] for line in labelled[3:5]} == {"old", "new"}


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ("labels=a,a,b,b", "a is the setting of two Trials in the same environment"),
        ("labels=a,b", "give 4, one for each directory"),
    ],
)
def test_labels_over_environments_name_settings(environments: list[SweepDir], labels: str, problem: str) -> None:
    paths = [str(sweep.trial(number).path) for sweep in environments for number in range(2)]
    with pytest.raises(LabError, match=problem):
        main([*paths, labels])
