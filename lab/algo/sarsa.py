"""SARSA, with lambda-returns (Sutton & Barto 2018, sections 6.4 and 12.7) or expected ones (section 6.6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lab.algo.returns import lambda_return
from lab.algo.samples import gather_actions
from lab.algo.value_based import OnPolicyValueBased
from lab.common.imports import torch
from lab.common.streams import Streams

if TYPE_CHECKING:
    from lab.memory.rollout import Rollout


@dataclass
class SARSA(OnPolicyValueBased):
    """Learns the values of the policy that acts, exploration included.

    The return is G_t = r_t + gamma ((1 - lambda) Q(s_t+1, a_t+1) + lambda G_t+1) (equation 12.19); one-step SARSA has
    lambda = 0. The expectation over the policy replaces Q(s_t+1, a_t+1) where there is no next action, at the end of
    the horizon and of a truncated episode, and with `expected` everywhere (equation 12.20).
    """

    expected: bool

    def learn(
        self, rollout: Rollout, streams: list[Streams], fraction_done: float, diagnose: bool
    ) -> dict[str, torch.Tensor]:
        values = self.rollout_values(rollout)
        mask = self.action_mask(rollout.observation[1:])
        next_value = self.exploration.expectation(values[1:], fraction_done, mask)
        if not self.expected:
            of_next_action = gather_actions(values[1:-1], rollout.action[1:])
            onward = torch.where(rollout.done[:-1] > 0, next_value[:-1], of_next_action)
            next_value = torch.cat([onward, next_value[-1:]])
        discount = self.gamma * (1 - rollout.terminated)
        returns = lambda_return(rollout.reward, discount, next_value, rollout.truncated, self.td_lambda)
        return self.fit(rollout, values, returns, streams, fraction_done)
