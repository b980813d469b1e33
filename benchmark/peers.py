"""Train with another library and print its frames per second.

python -m benchmark.peers stable-baselines3|sbx|rejax WORK [SEEDS]

It imports nothing of lab, so that it runs in an environment that has the peer alone. What is compiled is compiled
before the clock starts.
"""

from __future__ import annotations

import sys
from time import perf_counter

from benchmark.works import WORK, Work

REJAX_SECONDS = 2.0  # a call is repeated until so much time is measured


def stable_baselines3(work: Work, seeds: int) -> float:
    """Return frames per second of Stable-Baselines3's `learn`."""
    import stable_baselines3
    import torch

    torch.set_num_threads(1)
    activation = getattr(torch.nn, {"tanh": "Tanh", "relu": "ReLU"}[work.activation])
    return learn(getattr(stable_baselines3, work.algorithm), activation, work)


def sbx(work: Work, seeds: int) -> float:
    """Return frames per second of sbx's `learn`."""
    import flax.linen
    import sbx

    return learn(getattr(sbx, work.algorithm), getattr(flax.linen, work.activation), work)


def learn(algorithm: type, activation: object, work: Work) -> float:
    """Train with a class in the style of Stable-Baselines3, and time what follows the warm-up."""
    from stable_baselines3.common.env_util import make_atari_env, make_vec_env
    from stable_baselines3.common.vec_env import VecFrameStack

    network: dict[str, object] = {"net_arch": list(work.hidden), "activation_fn": activation}
    if work.atari:
        import ale_py
        import gymnasium

        gymnasium.register_envs(ale_py)
        policy, envs = "CnnPolicy", VecFrameStack(make_atari_env(work.env_id, work.num_envs, seed=0), 4)
        network = {}  # the policy's own is that of Mnih et al. 2015
    else:
        policy, envs = "MlpPolicy", make_vec_env(work.env_id, work.num_envs, seed=0)
    model = algorithm(
        policy,
        envs,
        policy_kwargs=network,
        device="cpu",
        seed=0,
        **work.arguments,
    )
    model.learn(work.warm_up)
    start, before = perf_counter(), model.num_timesteps
    model.learn(work.frames_of(1), reset_num_timesteps=False)
    return (model.num_timesteps - before) / (perf_counter() - start)


def rejax(work: Work, seeds: int) -> float:
    """Return frames per second of rejax, summed over seeds that one program trains."""
    import jax
    import rejax
    from jax import numpy as jnp

    def is_counter(leaf: jax.Array) -> bool:
        return leaf.ndim == 1 and not jnp.issubdtype(leaf.dtype, jnp.floating)

    frames = max(work.frames_of(seeds), work.warm_up)  # the first call must fill the replay memory
    config = {"env": work.env_id, "num_envs": work.num_envs, "total_timesteps": frames, "eval_freq": frames}
    algorithm = rejax.get_algo(work.algorithm.lower()).create(
        **config | {"skip_initial_evaluation": True} | (work.rejax or {})
    )
    algorithm = algorithm.replace(eval_callback=lambda *_: ())
    state, train = algorithm.init_state, lambda state: algorithm.train(train_state=state)[0]
    if seeds == 1:  # vmap over one seed is several times slower
        state = jax.jit(state)(jax.random.PRNGKey(0))
    else:
        state = jax.jit(jax.vmap(state))(jax.random.split(jax.random.PRNGKey(0), seeds))
        # Counters stay one number for all seeds, as where `train` begins with them: a condition on a number of each
        # seed makes vmap compute both sides of it.
        state = jax.tree.map(lambda leaf: leaf[0] if is_counter(leaf) else leaf, state)
        axes = jax.tree.map(lambda leaf: 0 if leaf.ndim else None, state)
        train = jax.vmap(train, in_axes=(axes,), out_axes=axes)
    train = jax.jit(train)
    for _ in range(2):  # the second compiles again, as numbers that were Python's are JAX's by then
        state = jax.block_until_ready(train(state))
    start, done = perf_counter(), 0
    while perf_counter() - start < REJAX_SECONDS:
        state = jax.block_until_ready(train(state))
        done += frames * seeds
    return done / (perf_counter() - start)


def main(peer: str, work: str, seeds: str = "1") -> None:
    """Measure a peer and print its frames per second."""
    measure = {"stable-baselines3": stable_baselines3, "sbx": sbx, "rejax": rejax}[peer]
    print(measure(WORK[work], int(seeds)))


if __name__ == "__main__":
    main(*sys.argv[1:])
