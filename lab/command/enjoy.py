"""`python -m lab enjoy DIR`: play episodes with a trained agent."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lab import spec as specs
from lab.command.options import command, option
from lab.common.imports import installed_only
from lab.common.signals import stop_signals
from lab.common.text import plural
from lab.common.validation import Count, Natural
from lab.errors import LabError, require, visible
from lab.run.directory import RunDir, best_session, find_level, find_sessions
from lab.run.exported import describe_missing
from lab.run.files import make_ignored_folder

if TYPE_CHECKING:
    import gymnasium as gym

    from lab.train.agent import Agent


Episode = tuple[float, int, dict[str, float]]  # return, length and, if it ended by itself, env.metrics


@dataclass
class Options:
    """Options of the command."""

    checkpoint: Literal["best", "last"] = option("best", "best (by evaluation) or last")
    episodes: Count = option(10, "episodes to play")
    max_steps: Count | None = option(
        None, "steps after which an episode that goes on is cut; null for eval.max_steps of the spec"
    )
    seed: Natural = option(0, "origin of the environment's random draws")
    deterministic: bool = option(True, "whether to take the likeliest action, or to draw one")
    render: Literal["none", "human"] = option("none", "human: show a window while it plays")
    video: str = option("", "film every episode into this directory; a new one is ignored by git", shown="video=DIR")
    format: Literal["mp4", "gif"] = option("mp4", "mp4 or gif")
    code: Literal["installed", "here"] = option(
        "installed", "what the spec may import: installed packages alone, or also modules in this directory (here)"
    )

    def films(self) -> list[Path | None]:
        """Return the film of each episode; None for no film."""
        names = [f"episode-{episode}.{self.format}" for episode in range(self.episodes)]
        return [Path(self.video, name) if self.video else None for name in names]


@command("the run directory of a Session, or one that holds a single agent, as an exported Trial does", Options)
def main(path: Path, options: Options) -> None:
    """Play episodes with the agent of a Session.

    Raises:
        LabError: the directory holds no Session that can be played, or a film would be overwritten.
    """
    require(not (options.video and options.render == "human"), "video", options.video, "left out with render=human")
    for film in options.films():
        if film and os.path.lexists(film):  # perhaps of another agent
            raise LabError(f"{film} is there already, and no film is overwritten: choose another video=DIR.")
    directory = find_agent(path, options.checkpoint)
    with installed_only(directory.path) if options.code == "installed" else nullcontext():
        play(directory, specs.load(directory.spec), options)


def find_agent(path: Path, checkpoint: str) -> RunDir:
    """Return the Session in a directory, or the only one below it that has the checkpoint.

    Raises:
        LabError: there is none, or a choice; with the commands that play what there is.
    """
    directory = RunDir(path)
    if directory.spec.exists():
        if directory.checkpoint(checkpoint).exists():
            return directory
        beside = _list_commands(path.parent, checkpoint)
        here = f" Here is:\n{beside}" if beside else ""
        raise LabError(f"{describe_missing(directory, directory.checkpoint(checkpoint))}{here}")
    sessions = _sessions_below(path)
    if not sessions:
        level = find_level(path).capitalize()  # raises
        status = f"python -m lab status {shlex.quote(str(path))}"
        raise LabError(f"No Session of the {level} {path} has started, so it holds no agent yet: see `{status}`.")
    if [session.path for session in sessions] == [path]:
        raise LabError(f"{path} is not the run directory of a Session: {directory.spec.name} is missing.")
    playable = [session for session in sessions if session.checkpoint(checkpoint).exists()]
    count = plural(len(sessions), "Session")
    if len(playable) == 1:
        only = f"the only one of {count} with" if len(sessions) > 1 else "its only Session, with"
        print(visible(f"Playing {playable[0].path}, {only} a {checkpoint} checkpoint"))
        return playable[0]
    some = (
        "" if len(playable) == len(sessions) else f", {len(playable) or 'none'} of them with a {checkpoint} checkpoint"
    )
    commands = _list_commands(path, checkpoint)
    choice = f"; choose one:\n{commands}" if commands else "."
    raise LabError(f"{path} holds {count}{some}{choice}")


def _sessions_below(path: Path) -> list[RunDir]:
    """Return the Sessions in a directory that may be one of several runs too, as in outputs/ppo_cartpole/2026-01-01."""
    return find_sessions(path) or [RunDir(spec.parent) for spec in sorted(path.glob("*/spec.yaml"))]


def _list_commands(path: Path, checkpoint: str) -> str:
    """Return the commands that play the Sessions in a directory that have a checkpoint, or, if none has it, another.

    The best is marked.
    """
    for name in (checkpoint, "best", "last"):
        sessions = [session for session in _sessions_below(path) if session.checkpoint(name).exists()]
        if sessions:
            extra = "" if name == "best" else f" checkpoint={name}"
            best = best_session(sessions) if len(sessions) > 1 else None
            return "\n".join(
                f"  python -m lab enjoy {shlex.quote(str(session.path))}{extra}"
                f"{'  # the best by evaluation' if session is best else ''}"
                for session in sessions
            )
    return ""


def play(directory: RunDir, spec: specs.Spec, options: Options) -> None:
    """Play episodes, and print the return and length of each and their spread.

    Raises:
        LabError: the agent cannot be read, or the environment cannot be shown.
        KeyboardInterrupt: it was asked to stop; the films so far are whole.
    """
    import torch

    from lab.env.guard import close, pop_notices
    from lab.env.vector import probe
    from lab.run.tensor_files import read
    from lab.train.agent import Agent

    torch.set_num_threads(spec.threads)
    state = read(directory.checkpoint(options.checkpoint))
    spec = replace(spec, compile=False)  # which may take longer than to play
    agent = Agent([spec], probe(spec.env), torch.device("cpu"))
    agent.restore(0, state)
    env = make_env(spec, options)
    print(visible(f"{spec.name} seed {spec.seed}, {options.checkpoint} checkpoint, at frame {state['frame']:,}"))
    try:
        with stop_signals() as stop:
            episodes = play_all(Player(agent, env, spec, options, state["frame"] / spec.frames), options, stop)
    finally:
        if options.render == "human":  # its window belongs to this thread
            env.close()
        else:
            close(f"env.id={spec.env.id}", env.close)
        for text in pop_notices():
            print(visible(f"Warning: {text}"), file=sys.stderr)
    print_spread(episodes)
    if stop():
        raise KeyboardInterrupt


def make_env(spec: specs.Spec, options: Options) -> gym.Env[Any, Any]:
    """Make the environment, with the render mode that the options need."""
    from lab.env.make import isolate, make_single
    from lab.env.vector import isolated_rngs

    mode = "rgb_array" if options.video else "human" if options.render == "human" else None
    if mode != "human":
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    generators = isolated_rngs(replace(spec.env, vectorization_mode="sync"))
    env = isolate(make_single(spec.env, mode, options.seed), generators)
    if mode and mode not in env.metadata.get("render_modes", []):
        raise LabError(f"{spec.env.id} cannot be shown: it has no render mode {mode!r}.")
    return env


def play_all(player: Player, options: Options, stop: Callable[[], bool]) -> list[Episode]:
    """Play and print episodes until asked to stop; return those that ended."""
    import numpy as np

    from lab.command.film import film

    if options.video:
        make_ignored_folder(Path(options.video))
    ended = []
    seeds = np.random.SeedSequence(options.seed).generate_state(options.episodes)
    for episode, (seed, path) in enumerate(zip(seeds, options.films(), strict=True)):
        with film(path, player.env.metadata.get("render_fps", 30)) if path else nullcontext() as show:
            total, length, done, metrics = player.play(int(seed), show, stop)
        cut = "" if done else "  interrupted" if stop() else f"  cut after max_steps={length}"
        note = "".join(f"  {name} {value:g}" for name, value in metrics.items()) + (f"  {path}" if path else "")
        print(visible(f"episode {episode:>3}  return {total:>10.2f}  length {length:>6}{cut}{note}"), flush=True)
        if done or not stop():
            ended.append((total, length, metrics))
        if stop():
            break
    return ended


class Player:
    """An agent and the environment that it plays in."""

    def __init__(
        self, agent: Agent, env: gym.Env[Any, Any], spec: specs.Spec, options: Options, fraction_done: float
    ) -> None:
        import numpy as np

        from lab.env.spaces import ActionConverter

        self.agent, self.env, self.spec, self.fraction_done = agent, env, spec, fraction_done
        self.max_steps = options.max_steps or spec.eval.max_steps
        self.deterministic = options.deterministic
        self.actions = ActionConverter(env.action_space)
        agent.streams[0].actions = np.random.default_rng(options.seed)

    def play(
        self, seed: int, show: Callable[[Any], None] | None, stop: Callable[[], bool]
    ) -> tuple[float, int, bool, dict[str, float]]:
        """Play an episode; return its return and length, whether it ended by itself and, if so, env.metrics.

        Args:
            seed: the seed of the environment.
            show: takes each picture; None for no pictures.
            stop: whether to end the episode.
        """
        import torch

        from lab.env.guard import ProcessSettings, guard
        from lab.env.spaces import flatten

        agent, env, settings = self.agent, self.env, ProcessSettings()
        with guard(f"env.id={self.spec.env.id}"):
            raw, info = env.reset(seed=seed)
            carry = torch.zeros(1, 1, agent.algorithm.carry_size)
            total, length, done, over = 0.0, 0, False, False
            while not over and length < self.max_steps and not stop():
                if show:
                    show(env.render())
                settings.restore_step_settings()
                if done:  # a wrapper ended what is learned from, as at the loss of a life, and the episode may go on
                    raw, info = env.reset()
                    score, over = info["reported"][:2]
                    total, done, carry = total + float(score), False, torch.zeros_like(carry)
                    continue
                flat = flatten(env.observation_space, raw).astype(agent.observations.dtype)
                observation = agent.normalize(torch.from_numpy(flat)[None, None])
                noise = None
                if not self.deterministic:
                    noise = agent.algorithm.draw_noise(1, 1, agent.streams, self.fraction_done)[0]
                action, carry = agent.algorithm.act(observation, noise, carry)
                raw, reward, terminated, truncated, info = env.step(self.actions.convert(action[0].cpu().numpy())[0])
                done = bool(terminated or truncated)
                score, over = info["reported"][:2] if "reported" in info else (reward, done)
                total, length = total + float(score), length + 1
            if show:
                show(env.render())
        metrics = info["reported"][2:].tolist() if over and "reported" in info else []
        return total, length, bool(over), dict(zip(self.spec.env.metrics, metrics, strict=False))


def print_spread(episodes: list[Episode]) -> None:
    """Print the mean and the spread of returns and lengths, and the means of env.metrics."""
    import numpy as np

    if not episodes:
        return
    returns, lengths = np.array([episode[:2] for episode in episodes]).T
    spread = f" ± {returns.std(ddof=1):.2f}" if len(returns) > 1 else ""
    count = plural(len(returns), "episode")
    print(visible(f"\nreturn {returns.mean():.2f}{spread} (from {returns.min():.2f} to {returns.max():.2f})"))
    print(visible(f"length {lengths.mean():.1f} (from {lengths.min():.0f} to {lengths.max():.0f}), {count}"))
    finished = [metrics for _, _, metrics in episodes if metrics]
    for name in finished[0] if finished else ():
        print(visible(f"{name} {np.mean([metrics[name] for metrics in finished]):.4g}"))
