"""How many Sessions fit into the memory of a GPU, measured by one learning step of a few of them."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from lab.env.vector import Environments, Spaces, detect_restore_method
from lab.spec import Spec
from lab.training.agent import Agent, prepare_device
from lab.training.collect import Collector

# Of the free memory. The rest is for what the measurement does not see: evaluation, checkpoints, workspaces that
# libraries take later, and what the allocator loses between blocks of different sizes.
FRACTION = 0.8
MEASURED = 2  # Sessions
MAX_HORIZONS = 100  # until the first learning step, which waits for an episode at times


def largest_stack(used: int, sessions: int, free: int) -> int:
    """Return how many Sessions fit into memory: 1 or more.

    What does not grow with the number of Sessions is counted as if it did, so the result is never too large for that.

    Args:
        used: bytes that a learning step took at most.
        sessions: Sessions that were stacked in it.
        free: bytes that are free now.
    """
    return max(1, int(FRACTION * free) * sessions // max(used, 1))


def fit_stack(specs: Sequence[Spec], spaces: Spaces) -> int:
    """Return how many of some Sessions that can be stacked fit into the memory of their device; all on a CPU."""
    device = prepare_device(specs[0].device, specs[0].threads)
    if device.type != "cuda" or len(specs) <= MEASURED:
        return len(specs)
    used = measure_memory(specs[:MEASURED], spaces, device)
    torch.cuda.empty_cache()
    return min(len(specs), largest_stack(used, MEASURED, torch.cuda.mem_get_info(device)[0]))


def measure_memory(sessions: Sequence[Spec], spaces: Spaces, device: torch.device) -> int:
    """Return the bytes that a stack of Sessions takes at most on a GPU, up to its first learning step."""
    specs = [copy.deepcopy(spec) for spec in sessions]
    for spec in specs:
        spec.compile = False  # which takes no more memory, but the time for a program of this stack
        if hasattr(spec.algo, "learning_starts"):
            spec.algo.learning_starts = 0
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    agent = Agent(specs, spaces, device)
    agent.algorithm.allocate(specs[0].env.num_envs)
    method = detect_restore_method(specs[0].env)
    envs = [
        Environments(spec.env, spec.env.num_envs, streams.environments, method)
        for spec, streams in zip(specs, agent.streams, strict=True)
    ]
    collector = Collector(agent, envs)
    try:
        for _ in range(MAX_HORIZONS):
            metrics = agent.algorithm.learn(collector.collect(), agent.streams, 0.0, diagnose=True)
            if not collector.alive or bool((metrics["steps"] > 0).any()):
                break
    finally:
        for env in envs:
            env.close()
    return torch.cuda.max_memory_allocated(device) - before
