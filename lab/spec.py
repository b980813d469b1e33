"""Composed configs become typed, checked specs here; what does not fit is a LabError.

conf/config.yaml explains each key.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from omegaconf import DictConfig

from lab.algo.algorithm import Algorithm
from lab.build import build
from lab.common.compilers import find_compiler, require_compiler
from lab.common.interpolation import resolve, resolve_by_seed
from lab.common.text import canonical, flatten, format_value
from lab.common.validation import Count, Natural, Positive
from lab.env.spec import EnvSpec
from lab.errors import LabError, require, warn_once
from lab.net.module import Module
from lab.net.net import Net
from lab.run.files import plain, read_yaml
from lab.run.parent import find_parent
from lab.run.trackers import read_trackers
from lab.sweep_spec import SWEEP_KEYS


@dataclass
class EvalSpec:
    """Evaluation with the deterministic policy in environments of its own."""

    every: Natural
    episodes: Count
    max_steps: Count


@dataclass
class LogSpec:
    """What a Session writes while it trains."""

    every: Count
    tensorboard: bool
    histograms: Natural
    trackers: str | list[str] | dict[str, Any] | None = None


@dataclass
class CheckpointSpec:
    """How often a Session saves itself."""

    every: Count
    minutes: Positive | None


@dataclass
class InitFrom:
    """The checkpoint that a Session takes its first weights from, and their digest."""

    NOUN: ClassVar[str] = "the path of a run directory or of a checkpoint"

    file: str
    weights: str


@dataclass
class Tuning:
    """How the settings were found; it decides no number."""

    source: str = "defaults"
    seeds: list[Natural] = field(default_factory=list)


COMPILED_FROM = 20_000  # learning steps: they save some 15 seconds, and compiling takes 20 to 30, once on a machine


@dataclass
class Spec:
    """All that decides the result of one Session: spec + git SHA is enough to run it again."""

    seed: Natural
    frames: Count
    name: str
    mode: Literal["train", "dev"]
    device: str
    threads: Count
    algo: Algorithm
    env: EnvSpec
    net: Net
    eval: EvalSpec
    log: LogSpec
    checkpoint: CheckpointSpec
    compile: bool | Literal["auto"] = False  # `resolve_compile` decides what `auto` is
    stop_at: float | None = None
    init_from: InitFrom | None = None
    extended_from: list[Count] = field(default_factory=list)
    tuning: Tuning = field(default_factory=Tuning)

    def check(self) -> None:
        """Raise LabError for a value, or a pair of values, that no Session could train with."""
        self.check_choices()
        self.check_numbers()

    def check_choices(self) -> None:
        """Raise LabError for names, environments, networks and algorithms that are not allowed, or not together."""
        require_name(self.name)
        kind, _, index = self.device.partition(":")
        named = kind in ("auto", "cpu", "cuda") and (not index or (kind == "cuda" and index.isdigit()))
        require(named, "device", self.device, "auto, cpu, cuda or cuda:N")
        read_trackers(self.log.trackers)
        self.env.check()
        self.net.check()
        taken = [name for name in self.env.metrics if name in self.algo.metrics]
        free = f"free of the names of metrics of algo={self.algo.name} ({', '.join(self.algo.metrics)})"
        require(not taken, "env.metrics", self.env.metrics, free)
        self.algo.check_net(self.net)

    def check_numbers(self) -> None:
        """Raise LabError for numbers and settings that do not fit together."""
        self.algo.check(self.env)
        starts = getattr(self.algo, "learning_starts", 0)
        require(starts < self.frames, "algo.learning_starts", starts, f"less than frames ({self.frames})")
        plans = [*self.extended_from, self.frames]
        rising = f"growing numbers below frames={self.frames}: those of earlier plans, as `resume` writes them"
        require(plans == sorted(set(plans)), "extended_from", self.extended_from, rising)
        obstacle = self.obstacle_to_compiling
        require(self.compile is not True or not obstacle, "compile", True, f"auto or false {obstacle}")

    def planned_frames(self, frame: int) -> int:
        """Return the frames that schedules are over at a frame: before an extension, those of the earlier plan."""
        return next((plan for plan in self.extended_from if plan > frame), self.frames)

    @property
    def obstacle_to_compiling(self) -> str:
        """Why the learning step cannot be compiled, as "with mode=dev"; empty if it can be."""
        optimizer = getattr(self.algo, "optimizer", None)
        if self.mode == "dev":
            return "with mode=dev, which checks every step"
        if isinstance(self.net, Module):
            return f"with net._target_={self.net.target}, a module of your own, which may do what cannot be compiled"
        if optimizer and optimizer.is_path:
            return f"with algo.optimizer.name={optimizer.name}, which reads its numbers in Python"
        return "" if self.algo.COMPILES else f"with algo={self.algo.name}, which learns from varying numbers of steps"

    def resolve_compile(self) -> None:
        """Decide what `compile=auto` is: true where it saves more time than compiling takes.

        Raises:
            LabError: `compile=true` without a C++ compiler.
        """
        if self.compile == "auto":
            enough = self.algo.learning_steps(self.planned_frames(0), self.env.num_envs) >= COMPILED_FROM
            own = not type(self.algo).__module__.startswith("lab.")  # may do what cannot be compiled
            self.compile = not (own or self.net.recurrent or self.obstacle_to_compiling) and enough
            if self.compile and not find_compiler():
                self.compile = False
                warn_once("No C++ compiler was found, so learning steps are not compiled (compile=false).")
        elif self.compile:
            require_compiler()

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as plain data, in the form that `read` takes back."""
        plain = asdict(self)
        algo = type(self.algo)
        plain["algo"] = {"_target_": f"{algo.__module__}.{algo.__qualname__}", **plain["algo"]}
        plain["net"] = self.net.to_dict()
        return plain


def require_name(name: str) -> None:
    """Raise LabError unless a run of this name stays below the directory of all output."""
    inside = bool(name) and not name.startswith("/") and ".." not in name.split("/")
    require(inside, "name", name, "the name of a directory as well: not empty, without '..', no '/' in front")


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Name the keys in which two specs, as plain data, are not the same, with both values."""
    before, after = flatten(old), flatten(new)
    return [
        f"{key} is {format_value(before.get(key))} there and {format_value(after.get(key))} here"
        for key in dict.fromkeys((*before, *after))
        if canonical(before.get(key)) != canonical(after.get(key))
    ]


def require_same_spec(recorded: dict[str, Any], spec: Spec, directory: Path, advice: str) -> None:
    """Raise LabError if the spec recorded in a directory is another one; `advice` says what to do.

    How the settings were found may differ: it decides no number.
    """
    with suppress(LabError):  # an older one lacks keys that have had a default since
        recorded = build(Spec, plain(recorded), "").to_dict()
    changes = differences(*({**values, "tuning": None} for values in (recorded, spec.to_dict())))
    if changes:
        raise LabError(f"{directory} holds a Session of another spec: {'; '.join(changes)}. {advice}")


def read(config: DictConfig, numbers: bool = True) -> list[Spec]:
    """Turn a composed config into one checked Spec for each seed that it names.

    Interpolations are resolved for each Session by itself, so that ${seed} is its own seed. Without `numbers`,
    `check_numbers` is not called.

    Raises:
        LabError: an unknown or missing key, a value of the wrong type, or one that is not allowed.
    """
    keys = [str(key) for key in config if key not in (*SWEEP_KEYS, "provenance", "hydra")]
    seeds = resolve(config, [key for key in keys if key == "seed"]).get("seed")
    listed = seeds if isinstance(seeds, list) else [seeds]
    require(bool(listed), "seed", seeds, "a whole number, or a list of one or more of them")
    repeated = len(set(map(str, listed))) < len(listed)
    require(not repeated, "seed", seeds, "a list in which no seed stands twice")
    for seed in listed:
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise LabError(f"seed={format_value(seed)} is not allowed: seed must be a whole number or a list of them.")
    specs: list[Spec] = []
    before: dict[str, Any] | None = None
    for seed, values in resolve_by_seed(config, keys, listed):
        if values is not before and isinstance(values.get("init_from"), str):
            values["init_from"] = find_parent(values["init_from"])
        spec = replace(specs[-1], seed=seed) if values is before else build(Spec, {**values, "seed": seed}, "")
        spec.check_choices()
        if numbers:
            spec.check_numbers()
        specs.append(spec)
        before = values
    _require_same_frames(specs)
    return specs


def _require_same_frames(specs: list[Spec]) -> None:
    """Raise LabError if Sessions of different seeds have different lengths: there would be no curve over them."""
    frames = {spec.frames: spec.seed for spec in specs}
    if len(frames) > 1:
        (one, first), (two, second) = list(frames.items())[:2]
        raise LabError(
            f"frames is {one} with seed={first} and {two} with seed={second}: it must be the same for all seeds."
        )


def load(path: Path) -> Spec:
    """Read the spec.yaml of a run directory.

    Raises:
        LabError: the file is missing, is not YAML, or is not a spec.
    """
    try:
        values = plain(read_yaml(path))
    except FileNotFoundError as error:
        raise LabError(f"{path.parent} is not the run directory of a Session: it has no {path.name}.") from error
    try:
        spec = build(Spec, values, "")  # its texts are literal: nothing in them is an interpolation
        spec.check()
    except LabError as error:
        raise LabError(f"{path} cannot be used as a spec: {error}") from error
    return spec
