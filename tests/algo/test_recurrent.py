"""Learning with networks that remember, against a reference that takes one step at a time with torch's cells."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from lab.env.vector import probe
from lab.memory.rollout import Rollout
from lab.training.agent import Agent
from tests.helpers import specs

T, E, SIZE = 6, 4, 5
GAMMA, LAM, LR, CLIP, ENTROPY, VALUE, NORM = 0.9, 0.8, 1e-2, 0.2, 0.03, 0.4, 0.7


def make(algo: str, net: str, *overrides: str) -> tuple[Agent, Rollout]:
    settings = (
        f"algo={algo}", "env=acrobot", f"algo.horizon={T}", f"env.num_envs={E}", f"algo.gamma={GAMMA}",
        f"algo.lr={LR}", "algo.optimizer.lr_schedule=constant",
        f"algo.entropy_coef={ENTROPY}", f"algo.value_coef={VALUE}",
        f"algo.optimizer.max_grad_norm={NORM}", f"algo.gae_lambda={LAM}", "algo.policy_gain=1.0",
        "algo.normalize_advantage=false",
        "~tuned", f"net={net}", "net.hidden=[8]", "net.activation=tanh", f"net.size={SIZE}", "seed=3",
    )  # fmt: skip
    made = specs(*settings, *overrides)
    spaces = probe(made[0].env)
    agent = Agent(made, spaces, torch.device("cpu"))
    rng = np.random.default_rng(0)
    observation = torch.tensor(rng.standard_normal((T + 1, 1, E, 6)), dtype=torch.float32)
    ends = torch.tensor(rng.choice(3, size=(T, 1, E), p=[0.6, 0.2, 0.2]))
    done = ends > 0
    valid = torch.cat([torch.ones(1, 1, E, dtype=torch.bool), ~done[:-1]])
    valid[0, 0, 1] = False  # as the last horizon ended with an episode
    rollout = Rollout(
        observation=observation,
        action=torch.tensor(rng.integers(3, size=(T, 1, E))),
        reward=torch.tensor(rng.standard_normal((T, 1, E)), dtype=torch.float32) * valid,
        terminated=((ends == 1) & valid).float(),
        truncated=((ends == 2) & valid).float(),
        valid=valid.float(),
        carry=torch.tensor(rng.standard_normal((1, E, agent.algorithm.carry_size)), dtype=torch.float32),
    )
    assert 0 < rollout.terminated.sum() < rollout.done.sum() < T * E
    assert not rollout.valid[-1].all()
    return agent, rollout


class Reference(nn.Module):
    """The same networks from torch's own layers, which see one step of one environment at a time."""

    def __init__(self, agent: Agent, net: str) -> None:
        super().__init__()
        values, self.net = agent.algorithm.weights(0), net
        order = [0, 1, 2] if net == "gru" else [0, 1, 3, 2]
        self.encoders, self.cells, self.heads = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()

        def take(prefix: str, inputs: int) -> tuple[torch.Tensor, torch.Tensor]:
            weight, bias = values[f"{prefix}.weight"], values[f"{prefix}.bias"][0]
            return (weight if tuple(weight.shape) == (len(bias), inputs) else weight.T).clone(), bias.clone()

        for name in ("policy", "value"):
            trunk = f"network.trunks.{name}"
            self.encoders[name], self.heads[name] = nn.Linear(6, 8), nn.Linear(SIZE, 3 if name == "policy" else 1)
            self.cells[name] = {"gru": nn.GRUCell, "lstm": nn.LSTMCell}[net](8, SIZE)
            for layer, prefix, inputs in (
                (self.encoders[name], f"{trunk}.encoder.0", 6),
                (self.heads[name], f"network.heads.{name}", SIZE),
            ):
                layer.weight.data, layer.bias.data = take(prefix, inputs)
            for suffix, part, inputs in (("ih", "input_gates", 8), ("hh", "hidden_gates", SIZE)):
                weight, bias = take(f"{trunk}.cell.{part}", inputs)
                for kind, whole in (("weight", weight), ("bias", bias)):
                    gates = whole.chunk(len(order))
                    getattr(self.cells[name], f"{kind}_{suffix}").data = torch.cat([gates[k] for k in order])

    def outputs(self, rollout: Rollout, e: int, burn_in: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits [T + 1, 3] and the values [T + 1] of one environment."""
        width = SIZE if self.net == "gru" else 2 * SIZE
        actual: dict[str, list[torch.Tensor]] = {"policy": [], "value": []}
        for k, name in enumerate(actual):
            carried = rollout.carry[0, e, k * width : (k + 1) * width]
            state = (carried[:SIZE], carried[SIZE:])
            for t in range(T + 1):
                if t and not rollout.valid[t - 1, 0, e]:
                    state = (torch.zeros(SIZE), torch.zeros(SIZE))
                seen = self.encoders[name](rollout.observation[t, 0, e]).tanh()
                if self.net == "gru":
                    state = (self.cells[name](seen, state[0]), state[1])
                else:
                    state = self.cells[name](seen, state)
                if t < burn_in:
                    state = (state[0].detach(), state[1].detach())
                actual[name].append(self.heads[name](state[0]))
        return torch.stack(actual["policy"]), torch.cat(actual["value"])


def advantages(rollout: Rollout, value: torch.Tensor, e: int) -> torch.Tensor:
    """GAE of one environment, one step at a time."""
    result, following = torch.zeros(T), 0.0
    for t in reversed(range(T)):
        going = 1 - float(rollout.terminated[t, 0, e])
        error = rollout.reward[t, 0, e] + GAMMA * going * value[t + 1] - value[t]
        linked = going * (1 - float(rollout.truncated[t, 0, e]))
        following = float(error) + GAMMA * LAM * linked * following
        result[t] = following
    return result


def step(reference: Reference, optimizer: torch.optim.Optimizer, losses: list[torch.Tensor]) -> None:
    optimizer.zero_grad()
    torch.stack(losses).mean().backward()
    nn.utils.clip_grad_norm_(reference.parameters(), NORM)
    optimizer.step()


def same_weights(agent: Agent, reference: Reference, before: Reference) -> None:
    after = Reference(agent, reference.net)
    for (name, ours), theirs, old in zip(
        after.named_parameters(), reference.parameters(), before.parameters(), strict=True
    ):
        assert torch.allclose(ours, theirs, atol=5e-6), f"{name}: {(ours - theirs).abs().max()}"
        assert not torch.allclose(ours, old, atol=1e-4), f"{name} has not moved"


@pytest.mark.parametrize("burn_in", [0, 2])
@pytest.mark.parametrize("net", ["gru", "lstm"])
def test_a_step_of_a2c(net: str, burn_in: int) -> None:
    agent, rollout = make("a2c", net, f"algo.n_step={T}", f"net.burn_in={burn_in}")
    reference, before = Reference(agent, net), Reference(agent, net)
    optimizer = torch.optim.Adam(reference.parameters(), LR, eps=1e-5)
    losses = []
    for e in range(E):
        logits, value = reference.outputs(rollout, e, burn_in)
        advantage = advantages(rollout, value.detach(), e)
        for t in range(burn_in, T):
            if rollout.valid[t, 0, e]:
                policy = torch.distributions.Categorical(logits=logits[t])
                error = value[t] - (advantage[t] + value[t].detach())
                log_prob = policy.log_prob(rollout.action[t, 0, e])
                losses.append(-log_prob * advantage[t] + VALUE * 0.5 * error**2 - ENTROPY * policy.entropy())
    step(reference, optimizer, losses)
    agent.algorithm.learn(rollout, agent.streams, 0.0, diagnose=True)
    same_weights(agent, reference, before)


@pytest.mark.parametrize(("net", "burn_in"), [("gru", 0), ("gru", 1), ("lstm", 0)])
def test_two_epochs_of_ppo_by_whole_sequences(net: str, burn_in: int) -> None:
    overrides = ["algo.epochs=2", f"algo.batch_size={2 * T}", f"algo.clip_range={CLIP}", f"net.burn_in={burn_in}"]
    agent, rollout = make("ppo", net, *overrides)
    agent.algorithm.check_steps()
    reference, before = Reference(agent, net), Reference(agent, net)
    optimizer = torch.optim.Adam(reference.parameters(), LR, eps=1e-5)
    old_value, old_log_prob, advantage = [], [], []
    for e in range(E):
        logits, value = reference.outputs(rollout, e)
        old_value.append(value.detach())
        policy = torch.distributions.Categorical(logits=logits[:-1])
        old_log_prob.append(policy.log_prob(rollout.action[:, 0, e]).detach())
        advantage.append(advantages(rollout, value.detach(), e))
    stream = copy.deepcopy(agent.streams[0].minibatches)
    for _ in range(2):
        for chosen in stream.permutation(E).reshape(2, 2):
            losses = []
            for e in chosen:
                logits, value = reference.outputs(rollout, e, burn_in)
                for t in range(burn_in, T):
                    if rollout.valid[t, 0, e]:
                        policy = torch.distributions.Categorical(logits=logits[t])
                        ratio = (policy.log_prob(rollout.action[t, 0, e]) - old_log_prob[e][t]).exp()
                        target = advantage[e][t]
                        gain = torch.min(ratio * target, ratio.clamp(1 - CLIP, 1 + CLIP) * target)
                        error = value[t] - (target + old_value[e][t])
                        losses.append(-gain + VALUE * 0.5 * error**2 - ENTROPY * policy.entropy())
            step(reference, optimizer, losses)
    agent.algorithm.learn(rollout, agent.streams, 0.0, diagnose=True)
    assert agent.algorithm.problems == {}
    same_weights(agent, reference, before)


@pytest.mark.parametrize("net", ["gru", "lstm"])
def test_acting_is_what_learning_computes(net: str) -> None:
    agent, rollout = make("ppo", net, f"algo.batch_size={T}")
    values = agent.algorithm.values(rollout)[:, 0]
    _, value = agent.algorithm.policy_and_value(agent.algorithm.network_inputs(rollout, T))
    assert torch.allclose(value.view(E, T), values[:-1].T, atol=1e-6)
    reference = Reference(agent, net)
    for e in range(E):
        assert torch.allclose(reference.outputs(rollout, e)[1], values[:, e], atol=1e-5)
    carry, chosen = rollout.carry, []
    for t in range(T):
        action, carry = agent.algorithm.act(rollout.observation[t], None, carry)
        carry = carry * rollout.valid[t].unsqueeze(-1)
        chosen.append(action[0])
    modes = torch.stack([reference.outputs(rollout, e)[0][:-1].argmax(-1) for e in range(E)], 1)
    assert torch.equal(torch.stack(chosen), modes)
