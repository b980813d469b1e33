"""What a clone of the repository has of published results: agents that play, and Trials to compare and run again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.analysis.trial import read_trial
from lab.run.directory import RunDir, TrialDir, find_level, find_sessions
from tests.helpers import ROOT, git, lab

WITH_SESSIONS = sorted({path.parents[1].name for path in ROOT.glob("published/*/seed-0/spec.yaml")})
FEW = 3  # megabytes of a Trial


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a fresh clone."""
    folder = tmp_path_factory.mktemp("fresh") / "clone"
    git(ROOT, "clone", "--quiet", str(ROOT), str(folder))
    return folder


def run(folder: Path, *arguments: str) -> str:
    done = lab(*arguments, cwd=folder, env={"PYTHONPATH": str(folder)}, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def uses(card: Path) -> str:
    """Return what a model card says about its use."""
    return card.read_text(encoding="utf-8").partition("## Use\n")[2].partition("## Limits")[0]


def test_most_trials_are_there_with_their_sessions() -> None:
    assert len(WITH_SESSIONS) >= 17


@pytest.mark.parametrize("name", WITH_SESSIONS)
def test_a_card_promises_what_a_clone_has(name: str) -> None:
    trial = TrialDir(ROOT / "published" / name)
    (seed,) = re.findall(r"lab enjoy DIR/seed-(\d+) ", uses(trial.card))
    tracked = git(ROOT, "ls-files", str(trial.path)).splitlines()
    agents = [file for file in tracked if file.endswith(".pt")]
    assert agents == [f"published/{name}/seed-{seed}/checkpoint/best.pt"]
    assert sum((ROOT / file).stat().st_size for file in tracked) < FEW * 1e6
    evaluations = {session.seed: session.metric("eval_best") for session in read_trial(trial).completed}
    assert evaluations[int(seed)] == max(filter(None, evaluations.values())) and len(evaluations) == 4
    for session in find_sessions(trial.path):
        text = session.provenance.read_text()
        sha = re.findall(r'"sha": "([0-9a-f]{40})"', text)[0]
        shallow = git(ROOT, "rev-parse", "--is-shallow-repository") == "true"  # such a clone lacks older commits
        assert shallow or git(ROOT, "cat-file", "-t", sha) == "commit"
        assert '"uncommitted": false' in text


def test_a_card_without_sessions_promises_nothing_of_its_directory() -> None:
    for card in sorted(ROOT.glob("published/*/card.md")):
        if card.parent.name not in WITH_SESSIONS:
            assert "DIR" not in uses(card) and "not its Sessions" in uses(card), card


def test_what_the_readme_names_is_there() -> None:
    names = re.findall(r"lab [a-z]+ (published/\S+)(?: (published/\S+))?", (ROOT / "README.md").read_text("utf-8"))
    assert len(names) >= 3
    for path in filter(None, (path for pair in names for path in pair)):
        assert find_level(ROOT / path) in ("session", "trial")
        assert find_level(ROOT / path) == "trial" or RunDir(ROOT / path).checkpoint("best").exists()


def test_a_published_agent_plays_in_a_clone(fresh: Path) -> None:
    (agent,) = fresh.glob("published/ppo_cartpole/seed-*/checkpoint/best.pt")
    session = agent.parents[1].relative_to(fresh)
    assert re.search(r"return 500\.00 .*\n.*2 episodes", run(fresh, "enjoy", str(session), "episodes=2"))
    others = [f"seed-{seed}" for seed in range(4) if f"seed-{seed}" != session.name]
    done = lab("enjoy", f"published/ppo_cartpole/{others[0]}", cwd=fresh, env={"PYTHONPATH": str(fresh)})
    assert done.returncode == 2
    assert f"`dvc pull trained/ppo_cartpole/{others[0]}` fetches it" in done.stderr
    assert f"python -m lab enjoy {session}" in done.stderr


def test_published_trials_are_compared_and_reported_in_a_clone(fresh: Path, tmp_path: Path) -> None:
    sides = ("published/reinforce_cartpole", "published/ppo_cartpole")
    assert "With 4 and 4 seeds, " in run(fresh, "compare", *sides, f"out={tmp_path}")
    before = TrialDir(fresh / sides[1]).results.read_bytes()
    run(fresh, "report", sides[1])
    assert TrialDir(fresh / sides[1]).results.read_bytes() == before


@pytest.mark.slow
def test_results_are_made_from_what_a_clone_has(fresh: Path) -> None:
    run(fresh, "publish", "published", "out=results", "against=benchmark/slm_lab.csv")
    for name in ("results.csv", "results.json", "results.md"):
        assert (fresh / "results" / name).read_text("utf-8") == (ROOT / "results" / name).read_text("utf-8")
    assert (fresh / "results/search_a2c_cartpole.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_published_trial_runs_again_in_a_clone(fresh: Path) -> None:
    text = run(fresh, "rerun", "quick/a2c_cartpole", "out=again")
    assert "4 of 4 Sessions are the same to the last bit." in text
    assert "Compared: episodes.csv and metrics.csv, and the final weights by the digest in exported.json." in text
    assert RunDir(fresh / "again/seed-3").checkpoint("last").exists()
    assert TrialDir(fresh / "again").point.exists()
