"""Extensions: Sessions that completed, or were interrupted, go on for more frames than they were planned for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lab.common.text import dump_yaml, plural
from lab.common.validation import Count, validate
from lab.errors import LabError
from lab.run.checkpoint import load_generations
from lab.run.directory import RunDir, TrialDir, find_level
from lab.run.files import plain, write_sealed_json, write_sealed_yaml
from lab.spec import Spec, load
from lab.trial import Point


def split_frames(overrides: Sequence[str]) -> tuple[int | None, list[str]]:
    """Return the frames that overrides ask for, or None, and the other overrides."""
    from lab.sweep.overrides import parse_value

    given = [override for override in overrides if override.partition("=")[0] == "frames"]
    others = [override for override in overrides if override not in given]
    if not given:
        return None, others
    frames = validate(Count, parse_value(given[-1].partition("=")[2]), "frames")
    for override in others:
        if override.startswith("plan="):
            raise LabError(f"{override} is not possible with {given[-1]}, which changes the specs in the directory.")
    return frames, others


@dataclass(frozen=True)
class Extension:
    """More frames for Sessions, checked; `write` changes their directories.

    Attributes:
        specs: the new spec of each Session by its directory.
        ongoing: those that go on; the others failed, or stopped on success.
    """

    specs: dict[RunDir, Spec]
    ongoing: list[RunDir]

    def write(self) -> None:
        """Write the new specs, and let the Sessions be resumed."""
        for directory, spec in self.specs.items():
            directory.refuse_links()
            write_sealed_yaml(directory.spec, dump_yaml(spec.to_dict()))
            completed = directory in self.ongoing and directory.read_status()["state"] == "completed"
            changes = {"state": "interrupted", "error": None, "lost": False} if completed else {}
            directory.update_status(frames=spec.frames, **changes)

    @property
    def overrides(self) -> list[str]:
        """Overrides that make the specs of these Sessions, and of further seeds, what they are now."""
        spec = next(iter(self.specs.values()))
        return [f"frames={spec.frames}", f"extended_from=[{','.join(map(str, spec.extended_from))}]"]


def extend(path: Path, sessions: Sequence[RunDir], frames: int) -> Extension:
    """Check that the Sessions of a directory can be trained for more frames, and return how.

    Raises:
        LabError: one of them is running, was pruned, has done as many frames, or cannot go on.
    """
    specs, ongoing, stopped = {}, [], ""
    for directory in sessions:
        status, spec = directory.read_status(), load(directory.spec)
        if status["state"] == "running":
            raise LabError(f"{directory.path} is in use: {directory.lock.holder()} trains a Session there.")
        if status["state"] == "pruned":
            raise LabError(f"{directory.path} was pruned: no Session of its Trial is trained any more.")
        done = max(status["frame"], spec.frames)
        if frames < spec.frames or spec.frames < frames <= status["frame"]:
            raise LabError(
                f"frames={frames} is not allowed: {directory.path} was planned for {plural(spec.frames, 'frame')} and"
                f" has done {status['frame']:,}, so it must be more than {done:,}. No frames are ever undone."
            )
        if status.get("stopped"):
            stopped = f"{directory.path} stopped at frame {status['frame']:,} ({status['stopped']})"
        elif status["state"] == "interrupted" or status.get("lost"):
            ongoing.append(directory)
        elif status["state"] == "completed" and status["frame"] < frames:
            ongoing.append(directory)
            require_checkpoint(directory)
        plans = [*spec.extended_from, spec.frames] if spec.frames < frames else spec.extended_from
        specs[directory] = replace(spec, frames=frames, extended_from=plans)
        specs[directory].check()
    if not ongoing:
        if stopped:
            raise LabError(f"{stopped}, so it has no more to learn. Start from it instead: init_from={path}.")
        raise LabError(f"There is nothing to resume in {path}: no Session of it can do more of {frames:,} frames.")
    return Extension(specs, ongoing)


def require_checkpoint(directory: RunDir) -> None:
    """Raise LabError unless a completed Session still has the checkpoint that it would go on from."""
    states, problems = load_generations(directory)
    if not states:
        reason = " ".join(problems) or f"{directory.checkpoint('last')} is missing."
        raise LabError(f"{directory.path} cannot be trained for more frames: {reason}")


def extend_session(directory: RunDir, frames: int) -> None:
    """Extend a Session of its own.

    Raises:
        LabError: it belongs to a Trial, or cannot be extended.
    """
    trial = directory.path.absolute().parent
    if directory.path.absolute().name.startswith("seed-") and len(TrialDir(trial).seeds()) > 1:
        raise LabError(
            f"frames={frames} is for all Sessions of a Trial, which differ in nothing but the seed: resume {trial}."
        )
    extend(directory.path, [directory], frames).write()


def extend_trial(trial: TrialDir, frames: int, swept: bool) -> list[str]:
    """Extend all Sessions of a Trial; return the overrides that a sweep of it needs from now on.

    Args:
        trial: the Trial.
        frames: the new ones.
        swept: whether a sweep trains it, which composes its specs again.

    Raises:
        LabError: it cannot be extended.
    """
    sessions = [trial.session(seed) for seed in trial.seeds() if trial.session(seed).spec.exists()]
    if not sessions:
        raise LabError(f"No Session of {trial.path} has started: give frames={frames} when you start it.")
    extension = extend(trial.path, sessions, frames)
    if swept:
        for session in sessions:
            require_free(session)
        content = plain(trial.read_point())
        if "frames" in content["hyperparameters"]:
            raise LabError(
                f"frames={frames} is not possible: frames is a hyperparameter of the Experiment of {trial.path}."
            )
        point = Point(content["overrides"], content["hyperparameters"]).extend(extension.overrides)
        write_sealed_json(trial.point, {**content, "overrides": point.overrides})
    extension.write()
    return extension.overrides


def require_free(session: RunDir) -> None:
    """Raise LabError if another value in the config of a Session is made of `frames`, and would change with it."""
    config = session.hydra / "config.yaml"
    for line in config.read_text(encoding="utf-8").splitlines() if config.exists() else ():
        if "${frames}" in line:
            raise LabError(
                f"{config} has `{line.strip()}`, which would change with frames, so the Trial cannot be extended."
            )


def refuse_experiment(path: Path, frames: int) -> None:
    """Raise LabError, as the Trials of an Experiment are compared at the same number of frames."""
    if find_level(path) == "experiment":
        raise LabError(
            f"frames={frames} is for a Session or a Trial, and {path} holds an Experiment. Extend single Trials of it,"
            f" as in `resume {path}/trial-000 frames={frames}`: the ranking keeps what they had at the frames of all."
        )
