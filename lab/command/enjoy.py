"""`python -m lab enjoy DIR`: play episodes with a trained agent."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

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
    from lab.training.play import Episode, Player


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
        play(directory, options)


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


def play(directory: RunDir, options: Options) -> None:
    """Play episodes, and print the return and length of each and their spread.

    Raises:
        LabError: the agent cannot be read, or the environment cannot be shown.
        KeyboardInterrupt: it was asked to stop; the films so far are whole.
    """
    from lab.training.play import Player, close_env, describe_spread, make_env
    from lab.training.policy import read_policy, session_threads

    policy = read_policy(directory, options.checkpoint, options.seed)
    spec = policy.spec
    env = make_env(
        spec.env, "rgb_array" if options.video else "human" if options.render == "human" else None, options.seed
    )
    print(visible(f"{spec.name} seed {spec.seed}, {options.checkpoint} checkpoint, at frame {policy.frame:,}"))
    try:
        with session_threads(spec), stop_signals() as stop:
            episodes = play_all(Player(policy, env, options.max_steps, options.deterministic), options, stop)
    finally:
        close_env(env, spec.env, here=options.render == "human")
    if episodes:
        print(visible(f"\n{describe_spread(episodes)}"))
    if stop():
        raise KeyboardInterrupt


def play_all(player: Player, options: Options, stop: Callable[[], bool]) -> list[Episode]:
    """Play and print episodes until asked to stop; return those that ended."""
    from lab.command.film import film
    from lab.training.play import episode_seeds

    if options.video:
        make_ignored_folder(Path(options.video))
    ended = []
    seeds = episode_seeds(options.seed, options.episodes)
    for number, (seed, path) in enumerate(zip(seeds, options.films(), strict=True)):
        with film(path, player.env.metadata.get("render_fps", 30)) if path else nullcontext() as show:
            episode = player.play(seed, show, stop)
        cut = "" if episode.ended else "  interrupted" if stop() else f"  cut after max_steps={episode.length}"
        note = "".join(f"  {name} {value:g}" for name, value in episode.metrics.items()) + (f"  {path}" if path else "")
        figures = f"return {episode.total:>10.2f}  length {episode.length:>6}"
        print(visible(f"episode {number:>3}  {figures}{cut}{note}"), flush=True)
        if episode.ended or not stop():
            ended.append(episode)
        if stop():
            break
    return ended
