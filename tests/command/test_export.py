"""`python -m lab export`, and what the other commands say and do with what it wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lab.analysis.experiment import read_experiment
from lab.command import enjoy, export, rerun, resume
from lab.command.reproduction import compare_sessions
from lab.common.terminal import Terminal
from lab.errors import LabError
from lab.run.directory import RunDir, SweepDir, TrialDir
from lab.run.files import read_json, write_json
from lab.run.tags import write_tags
from tests import synthetic
from tests.helpers import lab, train


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Trial of two small Sessions, of which the second is better by evaluation."""
    folder = tmp_path_factory.mktemp("trained") / "a2c_cartpole"
    for seed in range(2):
        (made,) = train(folder, "frames=2000", "algo.horizon=16", f"seed={seed}", "log.tensorboard=true")
        made.path.rename(folder / f"seed-{seed}")
    write_json(TrialDir(folder).point, {"number": 0, "overrides": [], "hyperparameters": {}, "seeds": [0, 1]})
    table = TrialDir(folder).session(1).metrics
    lines = table.read_text().splitlines()
    column = lines[0].split(",").index("eval_return")
    rows = [line.split(",") for line in lines]
    rows[-1][column] = "400.0"
    table.write_text("\n".join(",".join(row) for row in rows) + "\n")
    status = dict(TrialDir(folder).session(1).read_status())
    del status["tables"]
    write_json(TrialDir(folder).session(1).status, status)
    return folder


@pytest.fixture(scope="module")
def place(trial: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with that Trial in `trained` and its export in `published/a2c_cartpole`."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(trial, folder / "trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        export.main(["trained", "out=published/a2c_cartpole"])
    return folder


@pytest.fixture
def exported(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return Path("published/a2c_cartpole")


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_it_copies_tables_and_the_agent_that_is_best_by_evaluation(exported: Path) -> None:
    each = {"spec.yaml", "provenance.json", "status.json", "episodes.csv", "metrics.csv", "timing.csv", "exported.json"}
    assert names(exported) - {f"seed-{seed}/uncommitted.patch" for seed in range(2)} == {
        "card.md", "trial.json", "trial.png", "point.json", "seed-1/checkpoint/best.pt",
        *(f"seed-{seed}/{name}" for seed in range(2) for name in each),
    }  # fmt: skip
    for seed in range(2):
        for name in ("episodes.csv", "metrics.csv", "spec.yaml"):
            assert (exported / f"seed-{seed}" / name).read_bytes() == Path(f"trained/seed-{seed}", name).read_bytes()
        assert read_json(exported / f"seed-{seed}" / "exported.json")["of"] == f"trained/seed-{seed}"
    assert "python -m lab enjoy DIR/seed-1 " in (exported / "card.md").read_text()


def test_it_does_not_tell_whose_machine_it_was(exported: Path) -> None:
    known = read_json(Path("trained/seed-0/provenance.json"))
    facts = read_json(exported / "seed-0/provenance.json")
    assert not {"user", "host"} & set(facts)
    assert facts["git"]["sha"] == known["git"]["sha"]
    assert (facts["git"]["branch"], facts["git"]["path"]) == (None, ".")
    text = "".join(path.read_text() for path in exported.rglob("*.json"))
    assert known["git"]["path"] not in text and f'"host": {json.dumps(known["host"])}' not in text


def test_its_agent_is_played(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    enjoy.main([str(exported), "episodes=1"])
    expected = "Playing published/a2c_cartpole/seed-1, the only one of 2 Sessions with a best checkpoint\n"
    assert capsys.readouterr().out.startswith(f"{expected}a2c_cartpole seed 1, ")


def test_what_is_missing_is_said_with_where_it_is(exported: Path) -> None:
    with pytest.raises(LabError) as refused:
        enjoy.main([str(exported / "seed-0")])
    assert str(refused.value) == (
        "published/a2c_cartpole/seed-0 has no checkpoint/best.pt: it is the small part of trained/seed-0 that was"
        " exported. Where DVC keeps the rest, `dvc pull trained/seed-0` fetches it. Here is:\n"
        "  python -m lab enjoy published/a2c_cartpole/seed-1"
    )
    with pytest.raises(LabError, match=r"dvc pull trained/seed-0` fetches it"):
        resume.main([str(exported), "seed=0,1,2"])
    with pytest.raises(LabError, match=r"seed-1 has no checkpoint/last\.pt"):
        enjoy.main([str(exported / "seed-1"), "checkpoint=last"])


def test_the_agent_plays(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    enjoy.main([str(exported / "seed-1"), "episodes=1"])
    assert "1 episode" in capsys.readouterr().out


def test_a_damaged_copy_of_weights_is_seen_by_rerun(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = exported / "seed-0"
    rerun.main([str(session), "out=same", "code=here"])
    text = capsys.readouterr().out
    assert "1 of 1 Session is the same to the last bit." in text
    assert "Compared: episodes.csv and metrics.csv, and the final weights by the digest in exported.json." in text
    record = read_json(session / "exported.json")
    for weights, same in (("0" * 64, False), (None, None)):
        write_json(session / "exported.json", {**record, "weights": weights})
        verdict = compare_sessions("seed-0", RunDir(session), RunDir("same"))
        assert verdict.identical == {"episodes": True, "metrics": True, "weights": same}
        assert verdict.is_identical is (same is None)
    rerun.print_verdicts(Terminal(soft_wrap=True, width=200), session, Path("same"), [verdict], 0.0)
    assert f"Not compared, because {session} lacks them: weights of seed-0." in capsys.readouterr().out
    write_json(session / "exported.json", record)


def test_of_an_experiment_the_best_trial_has_its_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = synthetic.experiment(tmp_path / "sweep", trials=3, seeds=2, rows=4).path
    for session in path.glob("trial-*/seed-*"):
        RunDir(session).checkpoint("best").parent.mkdir(exist_ok=True)
        RunDir(session).checkpoint("best").write_bytes(b"agent")
    for tagged in (path, path / "trial-001", path / "trial-001" / "seed-0"):
        write_tags(tagged, ["paper"])
    export.main(["sweep", "out=new"])
    assert sorted(map(str, Path("new").rglob("tags.json"))) == [
        "new/tags.json", "new/trial-001/seed-0/tags.json", "new/trial-001/tags.json",
    ]  # fmt: skip
    best = read_experiment(SweepDir("new")).front
    agents = [name for name in names(Path("new")) if name.endswith("best.pt")]
    assert [name.split("/")[0] for name in agents] == [ranked.trial.directory.path.name for ranked in best]
    assert {"experiment.json", "trials.csv", "experiment.png", "sweep.json"} <= names(Path("new"))


def test_it_refuses_what_it_cannot_export(exported: Path) -> None:
    with pytest.raises(LabError, match="is not empty, and nothing is ever overwritten"):
        export.main(["trained", f"out={exported}"])
    with pytest.raises(LabError, match="out=NEW is missing"):
        export.main(["trained"])
    status = dict(RunDir("trained/seed-0").read_status())
    write_json(RunDir("trained/seed-0").status, {**status, "state": "failed"})
    with pytest.raises(LabError, match="none of its Sessions has completed"):
        export.main(["trained/seed-0", "out=new"])
    write_json(RunDir("trained/seed-0").status, status)
    assert not Path("new").exists()


def test_the_command_line_knows_it(trial: Path, tmp_path: Path) -> None:
    done = lab("export", str(trial), f"out={tmp_path / 'new'}")
    assert done.returncode == 0, done.stderr
    assert "Exported 2 Sessions to" in done.stdout
    assert "with the agent of seed-1, best by evaluation." in done.stdout
