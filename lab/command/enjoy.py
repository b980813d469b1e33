"""`python -m lab enjoy DIR`: play episodes with a trained agent."""

from __future__ import annotations

import os
import shlex
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab import spec as specs
from lab.errors import LabError, require, require_one_of, visible
from lab.imports import installed_only
from lab.run_dir import RunDir, write_atomically

USAGE = """Usage: python -m lab enjoy DIR [key=value ...]

  DIR                the run directory of a Session
  checkpoint=best    best (by evaluation) or last
  episodes=10        episodes to play
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
    directory = find_session(Path(words[0]))
    with installed_only(directory.path) if options.code == "installed" else nullcontext():
        play(directory, specs.load(directory.spec), options)


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
    """Play episodes one after the other, and print each one's return and length and their spread."""
    import numpy as np
    import torch

    from lab.agent import Agent
    from lab.checkpoint import read
    from lab.env.making import isolate, make_single
    from lab.env.side_by_side import flatten
    from lab.env.vector import ActionUnits, isolated_generators, probe

    torch.set_num_threads(spec.threads)
    state = read(directory.checkpoint(options.checkpoint))
    spaces = probe(spec.env)
    agent = Agent([spec], spaces, torch.device("cpu"))
    agent.restore(0, state)
    video = Path(options.video) if options.video else None
    if video:
        video.mkdir(parents=True, exist_ok=True)
    mode = "rgb_array" if video else "human" if options.render == "human" else None
    if mode != "human":
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    generators = isolated_generators(replace(spec.env, vectorise="sync"))
    env = isolate(make_single(spec.env, mode, options.seed), generators)
    if mode and mode not in env.metadata.get("render_modes", []):
        raise LabError(f"{spec.env.id} cannot be shown: it has no render mode {mode!r}.")
    units = ActionUnits(env.action_space)
    seeds = np.random.SeedSequence(options.seed).generate_state(options.episodes)
    agent.streams[0].actions = np.random.default_rng(options.seed)
    print(visible(f"{spec.name} seed {spec.seed}, {options.checkpoint} checkpoint, at frame {state['frame']:,}"))
    progress = state["frame"] / spec.frames
    figures = []
    for episode in range(options.episodes):
        frames: list[Any] = []
        raw, _ = env.reset(seed=int(seeds[episode]))
        carry = torch.zeros(1, 1, agent.algorithm.carry_size)
        total, length, done = 0.0, 0, False
        while not done:
            if video:
                frames.append(env.render())
            seen = agent.observe(torch.from_numpy(flatten(env.observation_space, raw))[None, None])
            noise = None if options.deterministic else agent.algorithm.noise(1, 1, agent.streams, progress)[0]
            action, carry = agent.algorithm.act(seen, noise, carry)
            raw, reward, terminated, truncated, _ = env.step(units.convert(action[0].cpu().numpy())[0])
            total, length, done = total + float(reward), length + 1, terminated or truncated
        figures.append((total, length))
        note = ""
        if video:
            frames.append(env.render())
            path = video / f"episode-{episode}.{options.format}"
            film(path, frames, env.metadata.get("render_fps", 30))
            note = f"  {path}"
        print(visible(f"episode {episode:>3}  return {total:>10.2f}  length {length:>6}{note}"), flush=True)
    env.close()
    returns, lengths = np.array(figures).T
    spread = f" ± {returns.std(ddof=1):.2f}" if len(returns) > 1 else ""
    plural = "s" if len(returns) > 1 else ""
    said = f"return {returns.mean():.2f}{spread} (from {returns.min():.2f} to {returns.max():.2f})"
    print(visible(f"\n{said}"))
    said = (
        f"length {lengths.mean():.1f} (from {lengths.min():.0f} to {lengths.max():.0f}), {len(returns)} episode{plural}"
    )
    print(visible(said))


def film(path: Path, frames: list[Any], frames_per_second: float) -> None:
    """Write pictures [H, W, 3] as a film.

    Raises:
        LabError: the packages for it are not installed.
    """
    try:
        import imageio.v3 as imageio
    except ImportError as error:
        raise LabError("Films need packages that are not installed: pip install 'lab-rl[video]'") from error
    extension = path.suffix
    if extension == ".gif":
        content = imageio.imwrite("<bytes>", frames, extension=extension, duration=1000 / frames_per_second, loop=0)
    else:
        content = imageio.imwrite(
            "<bytes>", frames, extension=extension, plugin="FFMPEG", fps=frames_per_second, macro_block_size=2
        )
    write_atomically(path, content)
