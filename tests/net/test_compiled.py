"""Methods of an algorithm that are compiled."""

from __future__ import annotations

import torch

from lab.env.vector import probe
from lab.net.compiled import References
from lab.net.layers import ACTIVATIONS
from lab.train.agent import Agent
from tests.helpers import specs


def agent(*overrides: str) -> Agent:
    made = specs("~tuned", *overrides)
    made_agent = Agent(made, probe(made[0].env), torch.device("cpu"))
    made_agent.algorithm.allocate(made[0].env.num_envs)
    return made_agent


def test_activations_lead_to_functions_of_their_own() -> None:
    known = [References(agent(f"net.activation={name}").algorithm).plain for name in ACTIVATIONS]
    assert all(known)
    assert len({repr(plain) for plain in known}) == len(ACTIVATIONS)


def test_a_method_only_reads_the_replay_memory() -> None:
    algorithm = agent("algo=dqn", "algo.memory.size=5000").algorithm
    references = References(algorithm)
    largest = max(references.bases, key=torch.numel)
    assert largest.numel() >= 5000 * 4 and not references.writes(largest)
    assert all(references.writes(learner.parameters.values) for learner in algorithm.learners.values())
