"""Programs of a trained agent that run without Lab: ONNX, and torch.export.

A program takes a batch of the environment's own observations, an input for each part of a Dict or Tuple, normalizes
them as in training, and gives the deterministic actions as the environment takes them. That of a recurrent agent also
takes its state, zeros where an episode starts, and gives the next one.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from lab import __version__
from lab.common.conf import install_command
from lab.env.guard import guard
from lab.env.spaces import is_image
from lab.errors import LabError, summary
from lab.net.kernels import exporting
from lab.training.play import close_env, make_env
from lab.training.policy import Policy, batch_of, keys

SUFFIXES = (".onnx", ".pt2")
TOLERANCE = 1e-4  # largest difference from `act`, as a fraction of an action's range, or of the action
CHECKED = 16  # observations of the environment on which a program is compared with the agent
SPACES = (gym.spaces.Box, gym.spaces.Discrete, gym.spaces.MultiDiscrete, gym.spaces.MultiBinary)  # of observations
Run = Callable[..., Sequence[np.ndarray]]  # a program: takes its inputs, gives actions and perhaps the state


def export_policy(policy: Policy, path: Path) -> None:
    """Write an agent's deterministic policy as a program, in the format that the suffix names: .onnx or .pt2.

    Raises:
        LabError: the format is unknown or needs packages, the file exists, the agent cannot be exported, or the program
            acts otherwise than the agent.
    """
    if path.suffix not in SUFFIXES:
        raise LabError(
            f"{path} cannot be written: a policy is exported as {' or '.join(f'*{end}' for end in SUFFIXES)}."
        )
    if os.path.lexists(path):
        raise LabError(f"{path} is there already, and nothing is ever overwritten: choose another name.")
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if path.suffix == ".onnx" and not find_spec(name)]
    if missing:
        raise LabError(f"ONNX needs packages that are not installed ({', '.join(missing)}): {install_command('onnx')}")
    module = _Program(policy)
    aside = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _quiet():
            program = _trace(module)
            run = (_write_onnx if path.suffix == ".onnx" else _write_pt2)(module, program, aside)
        _check(policy, module, run, path)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


class _Program(nn.Module):
    """The deterministic policy of an agent, from observations [N, ...] to actions [N, ...].

    Attributes:
        names: of the inputs.
        outputs: names of the outputs.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self._agent, self._space = policy.agent, policy.action_space
        self._policy, self._parts = policy, policy.parts
        self._carry_size = policy.agent.algorithm.carry_size
        state, next_state = (["state"], ["next_state"]) if self._carry_size else ([], [])
        names = ["_".join(map(str, keys(place))) or "observation" for place, _ in self._parts]
        self.names, self.outputs = [*names, *state], ["action", *next_state]
        for place, part in self._parts:
            if not isinstance(part, SPACES):
                what = f"{part}{place and f' at {place}'}"
                raise LabError(f"env.id={policy.spec.env.id} observes {what}, which an exported policy cannot take.")

    def facts(self) -> dict[str, Any]:
        """Return what a program says of itself."""
        spec = self._policy.spec
        return {
            "name": spec.name,
            "seed": spec.seed,
            "env": spec.env.id,
            "frame": self._policy.frame,
            "lab": __version__,
        }

    def describe(self) -> str:
        """Return which agent it is, for errors."""
        spec = self._policy.spec
        return f"The agent of algo={spec.algo.name} with net._target_={spec.net.path}"

    def examples(self) -> list[np.ndarray]:
        """Return inputs of the right types and shapes."""
        arrays = [np.zeros((2, *(part.shape or ())), _dtype(part)) for _, part in self._parts]
        return [*arrays, *([self.first_state(2)] if self._carry_size else [])]

    def first_state(self, number: int) -> np.ndarray:
        """Return the state of a recurrent agent where episodes start, [N, K]."""
        return np.zeros((number, self._carry_size), np.float32)

    def inputs(self, observations: Sequence[Any]) -> list[np.ndarray]:
        """Return the inputs for some observations of the environment, without the state."""
        columns = zip(*([value for *_, value in self._policy.values(each)] for each in observations), strict=True)
        return [np.stack(column).astype(_dtype(part)) for column, (_, part) in zip(columns, self._parts, strict=True)]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        parts, agent = inputs[: len(self._parts)], self._agent
        if is_image(self._policy.observation_space):
            flat = parts[0]
        else:
            flat = torch.cat([_flatten(part, x) for (_, part), x in zip(self._parts, parts, strict=True)], -1)
            flat = flat.unflatten(-1, agent.observations.shape)
        carry = inputs[-1].unsqueeze(0) if self._carry_size else None
        observation = agent.statistics.normalize_observations(flat.unsqueeze(0))
        action, carry = agent.algorithm.choose(observation, None, carry)
        own = _convert(self._space, action.squeeze(0))
        return (own,) if carry is None else (own, carry.squeeze(0))


def _dtype(space: gym.Space[Any]) -> Any:
    """Return the type of an input: float32 for all floating-point numbers."""
    return np.float32 if np.dtype(space.dtype).kind == "f" else space.dtype


def _flatten(space: gym.Space[Any], x: Tensor) -> Tensor:
    """Return a part [N, ...] flat, as `lab.env.spaces.flatten` does."""
    if isinstance(space, gym.spaces.Discrete):
        return (x.unsqueeze(-1) - int(space.start) == torch.arange(int(space.n))).float()
    if isinstance(space, gym.spaces.MultiDiscrete):
        sizes, starts, x = space.nvec.ravel().tolist(), space.start.ravel().tolist(), x.flatten(1)
        columns = [
            x[:, i : i + 1] - start == torch.arange(n) for i, (n, start) in enumerate(zip(sizes, starts, strict=True))
        ]
        return torch.cat(columns, -1).float()
    return x.float().flatten(1) if x.dim() > 1 else x.float().unsqueeze(-1)


def _convert(space: gym.Space[Any], action: Tensor) -> Tensor:
    """Return a policy's actions [N, ...] in the environment's units, as `lab.env.spaces.ActionConverter` does."""
    if isinstance(space, gym.spaces.Box):
        low, high = (torch.from_numpy(bound.ravel().astype(float)) for bound in (space.low, space.high))
        action = action.double()
        if np.isfinite(space.low).all() and np.isfinite(space.high).all():
            action = low + (action.clamp(-1.0, 1.0) + 1.0) * (0.5 * (high - low))
        if np.dtype(space.dtype).kind in "iu":
            action = action.round()
        action = torch.minimum(torch.maximum(action, low), high)
    elif not isinstance(space, gym.spaces.MultiBinary):
        action = action + torch.from_numpy(np.ravel(getattr(space, "start", 0))).squeeze()
    kind = torch.from_numpy(np.zeros(0, space.dtype)).dtype
    shape = space.shape or ()
    return (action.unflatten(-1, shape) if len(shape) > 1 else action).to(kind)


def _trace(module: _Program) -> torch.export.ExportedProgram:
    """Return the program for a batch of any size."""
    examples = tuple(map(torch.from_numpy, module.examples()))
    sizes = tuple({0: torch.export.Dim("batch", min=1)} for _ in examples)
    try:
        with exporting(), torch.no_grad():
            return torch.export.export(module, examples, dynamic_shapes=(sizes,), strict=False)
    except Exception as error:  # of any type, as where a network of one's own leaves torch
        raise LabError(
            f"{module.describe()} cannot be exported, as torch.export cannot trace it: {summary(error)}."
        ) from error


def _write_pt2(module: _Program, traced: torch.export.ExportedProgram, path: Path) -> Run:
    torch.export.save(traced, path, extra_files={"lab.json": json.dumps(module.facts())})
    program = torch.export.load(path).module()

    def run(*inputs: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            return [output.numpy() for output in program(*map(torch.from_numpy, inputs))]

    return run


def _write_onnx(module: _Program, traced: torch.export.ExportedProgram, path: Path) -> Run:
    import onnxruntime

    names: dict[str, Any] = {"input_names": module.names, "output_names": module.outputs}
    try:
        program: Any = torch.onnx.export(traced, (), dynamo=True, verbose=False, **names)
    except Exception as error:  # of any type, for what ONNX does not have
        raise LabError(f"{module.describe()} cannot be exported to ONNX: {summary(error)}. Try *.pt2.") from error
    program.model.metadata_props.update({key: str(value) for key, value in module.facts().items()})
    program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(*inputs: np.ndarray) -> list[np.ndarray]:
        return list(session.run(None, dict(zip(module.names, inputs, strict=True))))

    return run


def _check(policy: Policy, module: _Program, run: Run, path: Path) -> None:
    """Raise LabError unless a program acts as the agent on observations of the environment, one by one and together."""
    observations, space = _observe(policy), policy.action_space
    agent, state = policy.another(0), [module.first_state(1)] if len(module.outputs) > 1 else []
    expected, got = [], []
    for observation in observations:
        expected.append(agent.act(observation))
        action, *state = run(*module.inputs([observation]), *state)
        got.append(action[0])
    batch = policy.another(0)
    expected += list(batch.act(batch_of(policy.observation_space, observations)))
    first = [module.first_state(len(observations))] if state else []
    got += list(run(*module.inputs(observations), *first)[0])
    wanted, given = np.array(expected), np.array(got)
    if wanted.shape == given.shape and wanted.dtype == given.dtype:
        scale: Any = np.maximum(np.abs(wanted), 1.0)
        if isinstance(space, gym.spaces.Box):
            width = space.high.astype(float) - space.low
            scale = np.where(np.isfinite(width), width, scale)
        difference = float(np.max(np.abs(wanted.astype(float) - given) / scale))
        if difference <= TOLERANCE:
            return
        how = f"its actions differ from the agent's by {difference:.2g} of their range, and {TOLERANCE:g} is allowed"
    else:
        kinds = [f"{array.dtype} {list(array.shape)}" for array in (given, wanted)]
        how = f"its actions are {kinds[0]}, and the agent's {kinds[1]}"
    raise LabError(f"{path} was not written, because the program does not act as the agent: {how}.")


def _observe(policy: Policy) -> list[Any]:
    """Return observations of the environment, by random actions."""
    env, spec = make_env(policy.spec.env), policy.spec.env
    observations: list[Any] = []
    try:
        env.action_space.seed(0)
        with guard(f"env.id={spec.id}"):
            done = True
            while len(observations) < CHECKED:
                if done:
                    observation, done = env.reset(seed=len(observations))[0], False
                else:
                    observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
                    done = bool(terminated or truncated)
                observations.append(copy.deepcopy(observation))
    finally:
        close_env(env, spec)
    return observations


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch says about packages and arguments that are no concern of ours."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
