"""Action masks: an environment says in its infos which actions are valid, and a policy gets it as an observation."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from lab.common.rows import ActionMask
from lab.env.validation import Validated, describe
from lab.errors import LabError

KEY = "action_mask"  # in infos, as in Gymnasium's Taxi


def offers_mask(env: gym.Env[Any, Any]) -> bool:
    """Whether the info of an environment's last reset, or what a wrapper made of it, had an action mask."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, Validated) and env._offers_mask:
            return True
        env = env.env
    return False


class Valid:
    """Makes a space sample valid actions, by a mask that is set at each step, for trials by random actions."""

    mask: Any = None

    def sample(self, mask: Any = None, probability: Any = None) -> Any:
        """Sample an action."""
        return super().sample(self.mask if mask is None else mask, probability)  # type: ignore[misc] # of the space


class ValidDiscrete(Valid, gym.spaces.Discrete):
    """One choice."""


class ValidMultiDiscrete(Valid, gym.spaces.MultiDiscrete):
    """Several choices."""


class WithActionMask(gym.Wrapper[Any, Any, Any, Any]):
    """An environment whose observations are a dict: `observation`, its own, and `action_mask`, that of its infos.

    With several discrete choices the mask has the masks of all of them, one after the other, or is a sequence of these.
    """

    def __init__(self, env: gym.Env[Any, Any], name: str, infos: bool = False) -> None:
        """Wrap it, or raise LabError if its actions cannot have a mask.

        Args:
            env: the environment.
            name: as "env.id=Taxi-v4".
            infos: whether to pass infos on, which workers would send.
        """
        super().__init__(env)
        space = env.action_space
        self.action_space: Any
        if isinstance(space, gym.spaces.Discrete):
            self._choices = [int(space.n)]
            self.action_space = ValidDiscrete(space.n, start=space.start)
        elif isinstance(space, gym.spaces.MultiDiscrete) and len(space.shape) == 1:
            self._choices = [int(number) for number in space.nvec]
            self.action_space = ValidMultiDiscrete(space.nvec, start=space.start)
        else:
            raise LabError(
                f"env.action_mask=true is not possible with {name}, whose actions are {space}: only Discrete and"
                " MultiDiscrete ones can have a mask."
            )
        self._name, self._infos = name, infos
        mask = ActionMask(sum(self._choices))
        self.observation_space = gym.spaces.Dict({KEY: mask, "observation": env.observation_space})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        return {KEY: self._read("reset", info, False), "observation": observation}, info if self._infos else {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        joined = {KEY: self._read("step", info, bool(terminated)), "observation": observation}
        return joined, reward, terminated, truncated, info if self._infos else {}

    def _read(self, method: str, info: dict[str, Any], terminated: bool) -> np.ndarray:
        """Return the mask in an info as int8, or raise LabError; all actions are valid where an episode is over."""
        value: Any = info.get(KEY)
        size = sum(self._choices)
        try:
            mask = np.concatenate([np.ravel(part) for part in (value if isinstance(value, (tuple, list)) else [value])])
            fits = mask.shape == (size,) and mask.dtype.kind in "biuf" and bool(np.isin(mask, (0, 1)).all())
        except ValueError:
            fits = False
        if not fits:
            problem = f"{KEY!r} {describe(value)}" if KEY in info else f"no {KEY!r}"
            raise LabError(
                f"{self._name}: the info that {method} returned has {problem}, and env.action_mask=true needs one:"
                f" {size} numbers, 1 for each action that is valid and 0 for the others."
            )
        mask = mask.astype(np.int8)
        choices = np.split(mask, np.cumsum(self._choices)[:-1])
        self.action_space.mask = choices[0] if len(choices) == 1 else tuple(choices)
        if not all(choice.any() for choice in choices):
            if not terminated:
                raise LabError(
                    f"{self._name}: the action mask that {method} returned leaves no action: {mask.tolist()}."
                )
            return np.ones(size, np.int8)
        return mask
