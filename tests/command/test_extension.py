"""More frames for Sessions that have ended: `resume DIR frames=...`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lab.analysis.experiment import read_experiment
from lab.command import resume
from lab.command.extension import extend, split_frames
from lab.common.text import dump_yaml
from lab.errors import LabError
from lab.run.directory import RunDir, SweepDir, TrialDir
from lab.run.files import read_json, write_sealed_yaml
from lab.spec import Spec, load
from lab.training.evaluate import Evaluation
from lab.training.stack import Stack
from tests.helpers import go_on, lab, result, specs, train, weights

QUICK = ("env=cartpole", "log.tensorboard=false", "log.every=300", "eval.every=900", "eval.episodes=2",
         "checkpoint.every=500", "~tuned")  # fmt: skip
LINEAR = ("algo=a2c", "algo.horizon=16", "algo.optimizer.lr_schedule=linear")
PRIORITIZED = ("algo=ddqn_per", "algo.horizon=4", "algo.learning_starts=200", "algo.memory.size=900",
               "algo.batch_size=8")  # fmt: skip
SMALL = ("algo.horizon=16", "log.every=500", "eval.every=1000", "eval.episodes=2", "log.tensorboard=false")
RESET = (*LINEAR, "env.restore=reset", "env.normalize_rewards=true", "env.normalize_observations=true")


def run(*arguments: str, code: int = 0) -> str:
    """Run the command line, and return what it prints."""
    done = lab(*arguments, timeout=240)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def extended(folder: Path, made: list[Spec], frames: int) -> tuple[list[Spec], list[RunDir]]:
    """Extend Sessions of a stack; return their new specs, and their directories."""
    directories = [RunDir(folder / str(spec.seed)) for spec in made]
    extension = extend(folder, directories, frames)
    extension.write()
    return list(extension.specs.values()), directories


@pytest.mark.law
@pytest.mark.parametrize(
    "chosen",
    [
        pytest.param(LINEAR, id="schedule"),
        pytest.param(RESET, id="reset"),
        pytest.param(PRIORITIZED, id="memory", marks=pytest.mark.slow),
    ],
)
def test_law_1_an_extended_session_is_one_that_was_planned_so(tmp_path: Path, chosen: tuple[str, ...]) -> None:
    """Alone or stacked, killed before and after its earlier end, it has the numbers of its spec."""
    made = specs(*QUICK, *chosen, "frames=1000", "seed=[3,4]")
    apart = [RunDir(tmp_path / str(spec.seed)) for spec in made]
    assert go_on(made, apart) == ["completed"] * 2
    new, apart = extended(tmp_path, made, 2500)
    assert [spec.extended_from for spec in new] == [[1000], [1000]]

    def killed() -> None:
        raise KeyboardInterrupt

    assert go_on(new, apart, (Stack, "finish_interval", 9, killed)) == ["interrupted"] * 2
    assert go_on(new, apart) == ["completed"] * 2
    alone = [RunDir(tmp_path / "alone")]
    assert go_on(new[:1], alone, (Evaluation, "step", 8, killed)) == ["interrupted"]
    assert go_on(new[:1], alone) == ["completed"]
    assert result(alone[0]) == result(apart[0])
    assert weights(alone[0], "best") == weights(apart[0], "best")
    frames = [int(line.split(",")[0]) for line in apart[0].metrics.read_text().splitlines()[1:]]
    assert any(1000 <= frame < 1000 + 64 for frame in frames), "a row at the earlier end"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two Sessions of a Trial that a single job trained."""
    folder = tmp_path_factory.mktemp("trained")
    for session in train(folder, *LINEAR, "frames=1000", "~tuned", "seed=[0,1]"):
        shutil.move(session.path, folder / session.path.name.partition("-")[2])
    return folder


def test_a_trial_is_extended_by_the_command_and_says_so(trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "trial"))
    resume.main([str(folder), "frames=2_000"])
    for session in (TrialDir(folder).session(seed) for seed in (0, 1)):
        status, spec = session.read_status(), load(session.spec)
        assert (status["state"], status["frames"], spec.frames, spec.extended_from) == ("completed", 2000, 2000, [1000])
        resumed = read_json(session.provenance)["resumed"][-1]
        assert (resumed["frame"], resumed["frames"], resumed["extended_from"]) == (1024, 2000, [1000])
        assert "extended to 2,000 frames from 1,000" in session.log.read_text()
    assert "Planned for 1,000 frames, and extended" in TrialDir(folder).card.read_text()
    with pytest.raises(LabError, match="There is nothing to resume"):
        resume.main([str(folder), "frames=2000"])
    with pytest.raises(
        LabError, match=r"frames=1500 is not allowed: .*seed-0 was planned for 2,000 frames and has done"
    ):
        resume.main([str(folder), "frames=1500"])


def test_what_cannot_be_extended_is_refused_and_stays_as_it_is(trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "trial"))
    session = TrialDir(folder).session(0)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def refused(*arguments: str) -> str:
        with pytest.raises(LabError) as error:
            resume.main([*arguments])
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
        return str(error.value)

    assert "frames=1024 is not allowed" in refused(str(folder), "frames=1024")
    assert "frames must be a whole number" in refused(str(folder), "frames=many")
    assert f"for all Sessions of a Trial, which differ in nothing but the seed: resume {folder}" in refused(
        str(session.path), "frames=2000"
    )
    assert "plan=true is not possible with frames=2000" in refused(str(folder), "frames=2000", "plan=true")
    for name in ("last", "previous"):
        before.pop(session.checkpoint(name), None)
        session.checkpoint(name).unlink(missing_ok=True)
    assert "cannot be trained for more frames" in refused(str(folder), "frames=2000")
    session.write_status("completed", 640, 1000, stopped="return 480 >= stop_at=475")
    with pytest.raises(LabError, match=r"stopped at frame 640 \(return 480 >= stop_at=475\).*init_from="):
        extend(session.path, [session], 2000)
    session.write_status("pruned", 640, 1000)
    with pytest.raises(LabError, match="was pruned"):
        extend(session.path, [session], 2000)


def test_a_session_that_stopped_on_success_stays_so_in_an_extended_trial(trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "trial"))
    stopped, other = (TrialDir(folder).session(seed) for seed in (0, 1))
    stopped.update_status(stopped="return 480 >= stop_at=475")
    extension = extend(folder, [stopped, other], 2000)
    extension.write()
    assert [session.read_status()["state"] for session in (stopped, other)] == ["completed", "interrupted"]
    assert [load(session.spec).extended_from for session in (stopped, other)] == [[1000], [1000]]
    assert extension.overrides == ["frames=2000", "extended_from=[1000]"]


def test_a_spec_whose_earlier_plans_do_not_grow_is_refused(trained: Path) -> None:
    spec = load(TrialDir(trained).session(0).spec)
    spec.extended_from = [500, 400]
    with pytest.raises(LabError, match=r"extended_from=\[500,400\] is not allowed"):
        spec.check()
    spec.extended_from, spec.frames = [500, 800], 1000
    assert [spec.planned_frames(frame) for frame in (0, 499, 500, 900, 1000)] == [500, 500, 800, 1000, 1000]
    assert split_frames(["seed=0,1", "frames=4e5"]) == (400_000, ["seed=0,1"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_trials_of_sweeps_are_extended_and_the_ranking_stays_fair(tmp_path: Path) -> None:
    run("-m", "algo=a2c", "algo.lr=0.01,0.001", "frames=1000", *SMALL, "seed=0,1", f"hydra.sweep.dir={tmp_path}/grid")
    sweep = SweepDir(tmp_path / "grid")
    before = read_json(sweep.results)["ranking"]
    assert "frames=2000 is for a Session or a Trial" in run("resume", str(sweep.path), "frames=2000", code=2)
    trial = sweep.trial(1)
    shown = run("resume", str(trial.path), "frames=2000")
    assert [trial.session(seed).read_status()["frame"] for seed in (0, 1)] == [2048, 2048]
    assert read_json(trial.results)["metrics"]["frames"]["mean"]["value"] == 2048
    after = read_json(sweep.results)["ranking"]
    assert [entry.pop("extended", False) for entry in after if entry["trial"] == 1] == [True]
    assert after == before, "all Trials at the frames of the sweep"
    note = "Extended to more frames, and ranked by what it had at those of the others: trial-001."
    assert note in shown
    assert note in sweep.report.read_text()
    run("resume", str(sweep.path))
    assert len(sweep.trials()) == 2, "it is the Trial of the same point"
    run("resume", str(trial.path), "seed=2")
    assert trial.session(2).read_status()["frame"] == 2048
    assert read_experiment(sweep).trials[1].sessions[2].frame == 1024


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_trial_on_its_own_is_extended_with_further_seeds_and_rerun(tmp_path: Path) -> None:
    run("-m", "algo=a2c", "frames=1000", *SMALL, "seed=0,1", f"hydra.sweep.dir={tmp_path}/trial")
    run("resume", str(tmp_path / "trial"), "frames=2000", "seed=0,1,2")
    alone = TrialDir(tmp_path / "trial")
    assert [alone.session(seed).read_status()["frame"] for seed in (0, 1, 2)] == [2048] * 3
    again = run("rerun", str(alone.path), f"out={tmp_path}/again", "code=here")
    assert "3 of 3 Sessions are the same to the last bit" in again


def test_another_value_that_is_made_of_frames_is_refused_in_a_sweep(trained: Path, tmp_path: Path) -> None:
    from lab.command.extension import extend_trial

    folder = Path(shutil.copytree(trained, tmp_path / "trial"))
    write_sealed_yaml(TrialDir(folder).session(0).hydra / "config.yaml", dump_yaml({"eval": {"every": "${frames}"}}))
    with pytest.raises(LabError, match="which would change with frames"):
        extend_trial(TrialDir(folder), 2000, swept=True)
