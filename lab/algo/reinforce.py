"""REINFORCE: Monte-Carlo policy gradient (Williams 1992; Sutton & Barto 2018, sections 13.3 and 13.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.algo.on_policy import OnPolicy
from lab.algo.returns import completed, lambda_return
from lab.common.imports import torch
from lab.common.streams import Streams
from lab.env.spec import EnvSpec
from lab.errors import require

if TYPE_CHECKING:
    from lab.env.vector import Spaces
    from lab.memory.recent import RecentSteps
    from lab.memory.rollout import Rollout
    from lab.net.net import Net


@dataclass
class REINFORCE(OnPolicy):
    """Follow the gradient of the discounted return of whole episodes.

    After each horizon one step is learned from the episodes that ended in it, from their beginnings on, which may lie
    several horizons back; where none ended there is no step. A return is the sum of what was seen to the end of the
    episode, a truncation being one too: no value completes it. The baseline is subtracted, and nothing else.

    Where several environments go on side by side, an episode may have been begun by earlier parameters; it is learned
    from as if all of it were the present policy's. (A step that left out what goes on would favor short episodes.)
    With algo.horizon=1 and env.num_envs=1 a step follows each episode at once, and all of an episode is played by the
    same parameters, as in the book. Its factor gamma**t before each gradient is left out, as nearly everywhere.
    """

    baseline: bool  # whether to subtract a learned state value from the return
    episode_steps: int  # steps of each environment that are kept for the episode that goes on

    def check(self, env: EnvSpec) -> None:
        super().check(env)
        require(self.episode_steps >= 1, "algo.episode_steps", self.episode_steps, "1 step or more")

    def build(self, spaces: Spaces, net: Net, streams: list[Streams], device: torch.device) -> None:
        super().build(spaces, net, streams, device)
        self._observations = spaces.observation

    def allocate(self, num_envs: int) -> None:
        from lab.memory.recent import RecentSteps

        stack = len(self.active)
        self.replay: RecentSteps | None = RecentSteps(
            self.episode_steps,
            self._observations,
            self.example_action(),
            stack,
            num_envs,
            self.horizon,
            self.carry_size,
        )

    @property
    def has_value(self) -> bool:
        return self.baseline

    def learn(
        self, rollout: Rollout, streams: list[Streams], progress: float, diagnose: bool
    ) -> dict[str, torch.Tensor]:
        recent, statistics = self.replay, rollout.statistics
        assert recent
        recent.add(rollout)
        usable = recent.valid * completed(recent.done, self.horizon)
        needed: list[bool] = usable.unflatten(0, (recent.blocks, -1)).flatten(1).any(1).tolist()
        if not any(needed):
            self.update_schedules(
                progress
            )  # schedules count horizons, whether or not other Sessions learn from this one
            return {"steps": torch.zeros_like(self.active[:, 0])}
        blocks = [recent.read_block(index, statistics) if use else None for index, use in enumerate(needed)]
        first = needed.index(True) * recent.block
        reward = recent.reward[first:] if statistics is None else statistics.normalize_rewards(recent.reward[first:])
        nothing = torch.zeros_like(reward)
        discount = self.gamma * (1 - recent.done[first:])
        returns = lambda_return(reward, discount, nothing, nothing, lam=1.0)
        before = returns.new_zeros(first, *returns.shape[1:])
        return self.learn_from_parts(blocks, torch.cat([before, returns]), None, usable, progress, diagnose)
