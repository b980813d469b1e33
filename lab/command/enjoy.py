"""`python -m lab enjoy DIR`: play episodes with a trained agent."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import spec as specs
from lab.common.imports import installed_only
from lab.common.signals import stop_signals
from lab.errors import LabError, require, require_one_of, visible
from lab.run.directory import RunDir

if TYPE_CHECKING:
    import gymnasium as gym

    from lab.train.agent import Agent

USAGE = """Usage: python -m lab enjoy DIR [key=value ...]

  DIR                the run directory of a Session
  checkpoint=best    best (by evaluation) or last
  episodes=10        episodes to play
  max_steps=null     steps after which an episode that goes on is cut; null for eval.max_steps of the spec
  seed=0             origin of the environment's random draws
  deterministic=true whether to take the likeliest action, or to draw one
  render=none        human: show a window while it plays
  video=DIR          film every episode into this directory
  format=mp4         mp4 or gif
  code=installed     what may be imported that the spec names: installed packages alone, or what lies here too (here)"""


@dataclass
class Options:
    """What can follow the directory, as key=value."""

    checkpoint: str = "best"
    episodes: int = 10
    max_steps: int | None = None
    seed: int = 0
    deterministic: bool = True
    render: str = "none"
    video: str = ""
    format: str = "mp4"
    code: str = "installed"

    def check(self) -> None:
        """Raise LabError for a value that is not allowed."""
        require_one_of("checkpoint", self.checkpoint, ("best", "last"))
        require_one_of("render", self.render, ("none", "human"))
        require_one_of("format", self.format, ("mp4", "gif"))
        require_one_of("code", self.code, ("installed", "here"))
        require(self.episodes >= 1, "episodes", self.episodes, "1 or more")
        require(self.max_steps is None or self.max_steps >= 1, "max_steps", self.max_steps, "null, or 1 or more")
        require(self.seed >= 0, "seed", self.seed, "0 or a positive whole number")
        require(not (self.video and self.render == "human"), "video", self.video, "left out with render=human")


def main(words: list[str]) -> None:
    """Run the command with the words that follow its name.

    Raises:
        LabError: the words are not understood, or the directory holds no Session that can be played.
    """
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return
    options = specs.arguments(Options, words[1:], "enjoy")
    options.check()
    require_new_films(options)
    directory = find_session(Path(words[0]))
    with installed_only(directory.path) if options.code == "installed" else nullcontext():
        play(directory, specs.load(directory.spec), options)


def require_new_films(options: Options) -> None:
    """Raise LabError if a film of this name is there: it may be of another agent, and cannot be had again."""
    for episode in range(options.episodes if options.video else 0):
        film = Path(options.video) / f"episode-{episode}.{options.format}"
        if os.path.lexists(film):
            raise LabError(f"{film} is there already, and no film is written over: choose another video=DIR.")


def find_session(path: Path, command: str = "enjoy") -> RunDir:
    """Return the run directory at a path.

    Raises:
        LabError: it is not one; those of the stack that it holds are named.
    """
    directory = RunDir(path)
    if directory.spec.exists():
        return directory
    within = sorted(spec.parent for spec in path.glob("*/spec.yaml")) if path.is_dir() else []
    if within:
        commands = "\n".join(f"  python -m lab {command} {shlex.quote(str(folder))}" for folder in within)
        raise LabError(f"{path} holds {len(within)} Sessions; choose one:\n{commands}")
    raise LabError(f"{path} is not the run directory of a Session: it has no spec.yaml.")


def play(directory: RunDir, spec: specs.Spec, options: Options) -> None:
    """Play episodes one after the other, and print each one's return and length and their spread.

    Raises:
        LabError: the agent cannot be read, or the environment cannot be shown.
        KeyboardInterrupt: it was asked to stop; the films so far are whole.
    """
    import torch

    from lab.env.guard import close, pop_notices
    from lab.env.vector import probe
    from lab.run.checkpoint import read
    from lab.train.agent import Agent

    torch.set_num_threads(spec.threads)
    state = read(directory.checkpoint(options.checkpoint))
    agent = Agent([spec], probe(spec.env), torch.device("cpu"))
    agent.restore(0, state)
    env = make_env(spec, options)
    name = f"{spec.name} seed {spec.seed}, {options.checkpoint} checkpoint"
    try:
        print(visible(f"{name}, at frame {state['frame']:,}"))
        with stop_signals() as stop:
            figures = play_all(Player(agent, env, spec, options, state["frame"] / spec.frames), options, stop)
    finally:
        if options.render == "human":  # its window belongs to this thread
            env.close()
        else:
            close(f"env.id={spec.env.id}", env.close)
        for text in pop_notices():
            print(visible(f"Warning: {text}"), file=sys.stderr)
    print_spread(figures)
    if stop():
        raise KeyboardInterrupt


def make_env(spec: specs.Spec, options: Options) -> gym.Env[Any, Any]:
    """Make the environment that is played, to be shown as the options say."""
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


def play_all(player: Player, options: Options, stop: Callable[[], bool]) -> list[tuple[float, int]]:
    """Play and print every episode, until asked to stop; return the returns and lengths of those that ended."""
    import numpy as np

    from lab.command.film import Film

    figures = []
    video = Path(options.video) if options.video else None
    if video:
        video.mkdir(parents=True, exist_ok=True)
    for episode, seed in enumerate(np.random.SeedSequence(options.seed).generate_state(options.episodes)):
        path = video / f"episode-{episode}.{options.format}" if video else None
        with Film(path, player.env.metadata.get("render_fps", 30)) if path else nullcontext() as film:
            total, length, done = player.play(int(seed), film.add if film else None, stop)
        cut = "" if done else "  interrupted" if stop() else f"  cut after max_steps={length}"
        note = f"  {path}" if path else ""
        print(visible(f"episode {episode:>3}  return {total:>10.2f}  length {length:>6}{cut}{note}"), flush=True)
        if stop() and not done:
            break
        figures.append((total, length))
        if stop():
            break
    return figures


class Player:
    """An agent and the environment that it plays in."""

    def __init__(
        self, agent: Agent, env: gym.Env[Any, Any], spec: specs.Spec, options: Options, fraction_done: float
    ) -> None:
        import numpy as np

        self.agent, self.env, self.spec, self.fraction_done = agent, env, spec, fraction_done
        self.max_steps = options.max_steps or spec.eval.max_steps
        self.deterministic = options.deterministic
        from lab.env.spaces import ActionConverter

        self.units = ActionConverter(env.action_space)
        agent.streams[0].actions = np.random.default_rng(options.seed)

    def play(self, seed: int, show: Callable[[Any], None] | None, stop: Callable[[], bool]) -> tuple[float, int, bool]:
        """Play an episode; return its return and length, and whether it came to its end.

        Args:
            seed: of the environment.
            show: takes each picture; None for no pictures.
            stop: says whether to end it.
        """
        import torch

        from lab.env.guard import ProcessSettings, guard
        from lab.env.spaces import flatten

        agent, env, settings = self.agent, self.env, ProcessSettings()
        with guard(f"env.id={self.spec.env.id}"):
            raw, _ = env.reset(seed=seed)
            carry = torch.zeros(1, 1, agent.algorithm.carry_size)
            total, length, done = 0.0, 0, False
            while not done and length < self.max_steps and not stop():
                if show:
                    show(env.render())
                settings.restore_step_settings()
                seen = agent.observe(torch.from_numpy(flatten(env.observation_space, raw))[None, None])
                random = not self.deterministic
                noise = agent.algorithm.noise(1, 1, agent.streams, self.fraction_done)[0] if random else None
                action, carry = agent.algorithm.act(seen, noise, carry)
                raw, reward, terminated, truncated, _ = env.step(self.units.convert(action[0].cpu().numpy())[0])
                total, length, done = total + float(reward), length + 1, bool(terminated or truncated)
            if show:
                show(env.render())
        return total, length, done


def print_spread(figures: list[tuple[float, int]]) -> None:
    """Print the mean and the spread of returns and lengths."""
    import numpy as np

    if not figures:
        return
    returns, lengths = np.array(figures).T
    spread = f" ± {returns.std(ddof=1):.2f}" if len(returns) > 1 else ""
    plural = "s" if len(returns) > 1 else ""
    said = f"return {returns.mean():.2f}{spread} (from {returns.min():.2f} to {returns.max():.2f})"
    print(visible(f"\n{said}"))
    said = (
        f"length {lengths.mean():.1f} (from {lengths.min():.0f} to {lengths.max():.0f}), {len(returns)} episode{plural}"
    )
    print(visible(said))
