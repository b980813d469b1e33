"""Lab from Python: train, load an agent, read results and find runs, on the same code as the command line.

`import lab` has all of it: `lab.train`, `lab.load`, `lab.results`, `lab.find`. Mistakes are raised as `lab.LabError`.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lab.analysis.objects import LEVELS, open_run
from lab.analysis.objects import Experiment as Experiment
from lab.analysis.objects import Session as Session
from lab.analysis.objects import Trial as Trial
from lab.common.imports import installed_only
from lab.errors import LabError as LabError
from lab.errors import require_one_of, visible, warn_once

if TYPE_CHECKING:
    import gymnasium as gym
    import numpy as np

    from lab.analysis.frames import Results
    from lab.training.play import Episode
    from lab.training.policy import Policy


def train(
    overrides: Sequence[str],
    seeds: Sequence[int] | None = None,
    directory: str | os.PathLike[str] | None = None,
    show: bool = True,
) -> Session | Trial | Experiment:
    """Train what the command line `python -m lab` trains with these overrides, and wait for it.

    It runs in a process of its own, in the working directory: the same spec gives the same numbers from either side,
    and this process is left as it is. Ctrl-C, or a notebook's interrupt, lets Sessions save their work and end, and is
    raised then; `python -m lab resume DIR` continues.

    Args:
        overrides: as on the command line, for example ["algo=ppo", "env=cartpole", "algo.lr=3e-4"].
        seeds: one for each Session; the spec's own seed by default.
        directory: where to write; by default a new one below outputs/, as on the command line.
        show: whether to show its progress.

    Returns:
        A Session; a Trial if there are several seeds; an Experiment if overrides sweep other keys (algo.lr=1e-3,1e-4)
        or choose a search. Sessions of it may have failed, unless all have.

    Raises:
        LabError: a mistake in the overrides, found before the first frame; or no Session completed.
        KeyboardInterrupt: it was interrupted; what is done is saved.
    """
    from lab.launch.child import run_command_line, train_arguments

    arguments = train_arguments(overrides, seeds, directory)
    ended = run_command_line(arguments, show)
    error, written = ended.last("error"), ended.last("sweep", "output")
    if ended.interrupted and ended.status:
        there = _relative(Path(written)) if written and Path(written).is_dir() else None
        raise KeyboardInterrupt(*([f"`python -m lab resume {shlex.quote(str(there))}` continues"] if there else []))
    if error or written is None or not Path(written).is_dir():
        what = f"python -m lab {shlex.join(arguments)}"
        if error and directory is not None:  # which was not given as a key
            error = re.sub(r"hydra\.(run|sweep)\.dir", "directory", error)
        raise LabError(error or f"`{what}` ended with exit status {ended.status}: what it printed says why.")
    run = open_run(_relative(Path(written)))
    states = [session.state for session in run.sessions]
    if ended.status and not {"completed", "pruned", "running"} & {*states}:
        errors = [session.error for session in run.sessions if session.error]
        reason = f": {errors[0].strip().splitlines()[-1]}" if errors else ""
        raise LabError(f"No Session of {run.path} completed{reason}. Its session.log has more.")
    return run


def load(
    path: str | os.PathLike[str],
    checkpoint: Literal["best", "last"] = "best",
    code: Literal["installed", "here"] = "installed",
) -> Agent:
    """Load the agent of a Session, or the best one of a Trial or an Experiment.

    Nothing that the directory holds is run: it is read as data. The best is that with the highest mean return in an
    evaluation, and among equals the highest return, as for `enjoy` and `export`.

    Args:
        path: the run directory, or what `train` returned.
        checkpoint: `best` (by evaluation) or `last`.
        code: what the spec may import: `installed` packages alone, or also modules in the working directory (`here`).

    Raises:
        LabError: there is no such agent, it cannot be read, or its environment cannot be made.
    """
    from lab.run.exported import find_best
    from lab.training.policy import read_policy

    require_one_of("checkpoint", checkpoint, ("best", "last"))
    require_one_of("code", code, ("installed", "here"))
    directory = find_best(Path(path), checkpoint)
    with _imports(directory.path, code):
        return Agent(directory.path, read_policy(directory, checkpoint), code)


def results(path: str | os.PathLike[str]) -> Results:
    """Return the results in a run directory, as tables of pandas: curves, episodes, sessions and trials.

    Raises:
        LabError: it is not a run directory.
    """
    from lab.analysis.frames import Results

    open_run(path)
    return Results(Path(path))


def find(
    *conditions: str,
    root: str | os.PathLike[str] = "outputs",
    sort: str = "date",
    level: Literal["session", "trial", "experiment"] | None = None,
) -> list[Session | Trial | Experiment]:
    """Return the runs below a directory of which all conditions hold, as `python -m lab ls` lists them.

    If there is none and a value resembles one that a run has, a note says so.

    Args:
        conditions: as texts, for example "algo=ppo", "env.id=CartPole-v1", "return>450", "since=7d", "tag=paper".
        root: where to look.
        sort: the key to sort by, the best or newest first; a minus sign in front reverses it.
        level: every session, trial or experiment; None for what lies in no larger run.

    Raises:
        LabError: there is no such directory, or a condition has a key or a value that is not allowed.
    """
    from lab.analysis.conditions import explain_none, find_runs

    runs = find_runs(Path(root), *conditions, sort=sort, level=level)
    if not runs and "Did you mean" in (why := explain_none(Path(root), conditions, level)):
        warn_once(why)
    return [LEVELS[run.level](run.path) for run in runs]


class Agent:
    """A trained agent that acts in its environment's own observations and actions.

    Attributes:
        path: the run directory of its Session.
    """

    def __init__(self, path: Path, policy: Policy, code: str = "installed") -> None:
        """Join a policy and the directory that it was read from; `load` does this."""
        self.path = path
        self._policy, self._code = policy, code

    @property
    def spec(self) -> dict[str, Any]:
        """The resolved spec of its Session, as plain data."""
        return Session(self.path).spec

    @property
    def frame(self) -> int:
        """The frame at which its checkpoint was written."""
        return self._policy.frame

    @property
    def observation_space(self) -> gym.Space[Any]:
        """The space of observations that it takes."""
        return self._policy.observation_space

    @property
    def action_space(self) -> gym.Space[Any]:
        """The space of its actions."""
        return self._policy.action_space

    def act(self, observation: Any, deterministic: bool = True) -> Any:
        """Choose the action for one observation, or the actions for a batch.

        Observations are normalized as in training. A recurrent agent remembers: call `reset` where an episode starts.

        Args:
            observation: of `observation_space`; or a batch [N, ...] of them, in a Dict or Tuple part by part.
            deterministic: whether to take the likeliest action; False draws one.

        Returns:
            What `env.step` takes: an action of `action_space`, or a batch [N, ...].

        Raises:
            LabError: it is no such observation, or a recurrent agent acted on a batch of another size before.
        """
        from lab.training.policy import session_threads

        with session_threads(self._policy.spec):
            return self._policy.act(observation, deterministic)

    def reset(self, done: Any = None, seed: int | None = None) -> None:
        """Forget what was observed, at the start of an episode.

        Args:
            done: [N], which of a batch of episodes start; None for all.
            seed: the new origin of the actions that are drawn; None leaves it.
        """
        self._policy.reset(done)
        if seed is not None:
            self._policy.seed(seed)

    def make_env(self, render_mode: Literal["rgb_array", "human"] | None = None) -> gym.Env[Any, Any]:
        """Make the environment that it was trained in, with its wrappers.

        Raises:
            LabError: it cannot be made, or not be shown so.
        """
        from lab.training.play import make_env

        with _imports(self.path, self._code):
            return make_env(self._policy.spec.env, render_mode)

    def evaluate(
        self, episodes: int = 10, seed: int = 0, deterministic: bool = True, max_steps: int | None = None
    ) -> Evaluation:
        """Play episodes in a new environment, as `python -m lab enjoy` does: the same seed gives the same episodes.

        Args:
            episodes: how many.
            seed: origin of the environment's random draws.
            deterministic: whether to take the likeliest actions, or to draw them.
            max_steps: steps after which an episode that goes on is cut; None for eval.max_steps of the spec.

        Returns:
            An Evaluation: `mean_return`, arrays of `returns` and `lengths`, and the `episodes` themselves.

        Raises:
            LabError: there are no episodes, or the environment failed.
        """
        from lab.training.play import Player, close_env, episode_seeds, make_env
        from lab.training.policy import session_threads

        for name, value in (("episodes", episodes), ("max_steps", max_steps)):
            if value is not None and value < 1:
                raise LabError(f"{name}={value} is not allowed: {name} must be 1 or more.")
        spec = self._policy.spec
        with _imports(self.path, self._code), session_threads(spec):
            env = make_env(spec.env, None, seed)
            try:
                player = Player(self._policy.another(seed), env, max_steps, deterministic)
                played = [player.play(one) for one in episode_seeds(seed, episodes)]
            finally:
                close_env(env, spec.env)
        return Evaluation(played)

    def export(self, path: str | os.PathLike[str]) -> Path:
        """Write its deterministic policy as a program that runs without Lab: an ONNX model (*.onnx), or *.pt2.

        The program normalizes observations and takes a batch of any size; before it is written, its actions are
        compared with those of `act`. `torch.export.load` reads a *.pt2. A recurrent agent's takes and gives a state.

        Returns:
            The path.

        Raises:
            LabError: the format is unknown or needs packages, the file exists, or it does not act as the agent.
        """
        from lab.training.policy import session_threads
        from lab.training.program import export_policy

        with _imports(self.path, self._code), session_threads(self._policy.spec):
            export_policy(self._policy, Path(path))
        return Path(path)

    def __repr__(self) -> str:
        spec = self._policy.spec
        return visible(f"Agent {spec.name} seed {spec.seed} at frame {self.frame:,}, of {self.path}")


@dataclass(frozen=True)
class Evaluation:
    """Episodes that an agent played.

    Attributes:
        episodes: each has its return as `total`, its steps as `length`, whether it `ended` by itself, and the values of
            env.metrics by name as `metrics`.
    """

    episodes: list[Episode]

    @property
    def returns(self) -> np.ndarray:
        """The return of each episode."""
        import numpy as np

        return np.array([episode.total for episode in self.episodes])

    @property
    def lengths(self) -> np.ndarray:
        """The steps of each episode."""
        import numpy as np

        return np.array([episode.length for episode in self.episodes])

    @property
    def mean_return(self) -> float:
        """The mean return of the episodes."""
        return float(self.returns.mean())

    def __str__(self) -> str:
        from lab.training.play import describe_spread

        return visible(describe_spread(self.episodes))

    __repr__ = __str__


def _imports(path: Path, code: str) -> AbstractContextManager[None]:
    """Return the context in which what a spec names may be imported."""
    return installed_only(path) if code == "installed" else nullcontext()


def _relative(path: Path) -> Path:
    """Return a path relative to the working directory, if it lies there."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
