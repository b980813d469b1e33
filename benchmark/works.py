"""What all contenders of benchmark.throughput are to do, with the same settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

DIVISORS = {1: 1, 4: 2, 16: 4}  # of the frames of each Session, by the number of seeds trained at once


@dataclass(frozen=True)
class Work:
    """An algorithm on an environment."""

    title: str
    frames: int  # that are measured, of one seed alone
    warm_up: int  # frames before them that no figure counts: they compile programs and fill replay memories
    interval: int  # frames between two learning calls, of which all counts of frames are multiples
    env_id: str
    num_envs: int
    hidden: tuple[int, ...]
    activation: str
    overrides: tuple[str, ...]  # of our command line
    algorithm: str  # the class in Stable-Baselines3 and sbx
    arguments: dict[str, Any]  # of its constructor
    sbx: bool = True  # whether sbx has the algorithm
    atari: bool = False  # whether it is a game with the usual preprocessing and convolutions
    rejax: dict[str, Any] | None = None  # the config of rejax, if it has algorithm and environment

    def frames_of(self, seeds: int) -> int:
        """Return the frames that each of so many seeds is measured for."""
        return -(-self.frames // DIVISORS[seeds] // self.interval) * self.interval

    def lab(self, seeds: int) -> list[str]:
        """Return the overrides of our command line."""
        return [
            *self.overrides,
            f"env.num_envs={self.num_envs}",
            f"net.hidden=[{','.join(map(str, self.hidden))}]",
            f"net.activation={self.activation}",
            f"frames={self.warm_up + self.frames_of(seeds)}",
            f"log.every={self.warm_up}",
            f"seed=[{','.join(map(str, range(seeds)))}]",
        ]


WORK = {
    "ppo": Work(
        title="PPO CartPole-v1, 8 x 128 steps, 10 epochs, batches of 256, two networks of 64, 64",
        frames=40_960,
        warm_up=2_048,
        interval=1_024,
        env_id="CartPole-v1",
        num_envs=8,
        hidden=(64, 64),
        activation="tanh",
        overrides=(
            "algo=ppo", "env=cartpole", "algo.horizon=128", "algo.epochs=10", "algo.batch_size=256", "algo.lr=1e-3",
            "algo.optimizer.lr_schedule=constant", "net.shared=false",
        ),
        algorithm="PPO",
        arguments={"n_steps": 128, "n_epochs": 10, "batch_size": 256, "learning_rate": 1e-3},
        rejax={
            "num_steps": 128, "num_epochs": 10, "num_minibatches": 4, "learning_rate": 1e-3, "gae_lambda": 0.95,
            "max_grad_norm": 0.5, "ent_coef": 0.0, "agent_kwargs": {"activation": "tanh"},
        },
    ),
    "dqn": Work(
        title="DQN CartPole-v1, a batch of 64 every 4 frames, 64, 64",
        frames=8_000,
        warm_up=2_000,
        interval=4,
        env_id="CartPole-v1",
        num_envs=1,
        hidden=(64, 64),
        activation="relu",
        overrides=(
            "algo=dqn", "env=cartpole", "algo.horizon=4", "algo.gradient_steps=1", "algo.batch_size=64", "algo.lr=5e-4",
            "algo.learning_starts=1000", "algo.target_update_interval=250", "algo.memory.size=50_000",
            "algo.exploration.fraction=0.1",
        ),
        algorithm="DQN",
        arguments={
            "batch_size": 64, "learning_rate": 5e-4, "buffer_size": 50_000, "learning_starts": 1_000, "train_freq": 4,
            "gradient_steps": 1, "target_update_interval": 1_000,
        },
        rejax={  # it learns once after a step of all its environments, so that four of them stand for four steps
            "num_envs": 4, "batch_size": 64, "learning_rate": 5e-4, "buffer_size": 50_000, "fill_buffer": 1_000,
            "target_update_freq": 1_000, "polyak": 0.0, "max_grad_norm": 10.0, "ddqn": False,
            "agent_kwargs": {"activation": "relu"},
        },
    ),
    "sac": Work(
        title="SAC Pendulum-v1, a batch of 256 every frame, 256, 256",
        frames=400,
        warm_up=200,
        interval=1,
        env_id="Pendulum-v1",
        num_envs=1,
        hidden=(256, 256),
        activation="relu",
        overrides=(
            "algo=sac", "env=pendulum", "algo.horizon=1", "algo.gradient_steps=1", "algo.batch_size=256",
            "algo.lr=1e-3", "algo.temperature_lr=1e-3", "algo.learning_starts=100", "algo.memory.size=50_000",
        ),
        algorithm="SAC",
        arguments={
            "batch_size": 256, "learning_rate": 1e-3, "buffer_size": 50_000, "learning_starts": 100, "train_freq": 1,
            "gradient_steps": 1,
        },
        rejax={
            "num_envs": 1, "batch_size": 256, "learning_rate": 1e-3, "buffer_size": 50_000, "fill_buffer": 100,
            "polyak": 0.995, "hidden_layer_sizes": (256, 256), "agent_kwargs": {"activation": "relu"},
        },
    ),
    "a2c": Work(
        title="A2C CartPole-v1, 8 x 5 steps, RMSprop, two networks of 64, 64",
        frames=40_000,
        warm_up=2_000,
        interval=40,
        env_id="CartPole-v1",
        num_envs=8,
        hidden=(64, 64),
        activation="tanh",
        overrides=(  # Stable-Baselines3's settings
            "algo=a2c", "env=cartpole", "algo.horizon=5", "algo.lr=7e-4", "algo.optimizer.lr_schedule=constant",
            "algo.optimizer.name=rmsprop", "algo.optimizer.beta1=0", "algo.optimizer.beta2=0.99", "algo.value_coef=1.0",
            "net.shared=false",
        ),
        algorithm="A2C",
        arguments={"n_steps": 5},
        sbx=False,
    ),
    "halfcheetah": Work(
        title="PPO HalfCheetah-v5, 8 x 256 steps, 10 epochs, batches of 64, two networks of 64, 64",
        frames=8_192,
        warm_up=2_048,
        interval=2_048,
        env_id="HalfCheetah-v5",
        num_envs=8,
        hidden=(64, 64),
        activation="tanh",
        overrides=(
            "algo=ppo", "env=gymnasium", "env.id=HalfCheetah-v5", "algo.horizon=256", "algo.epochs=10",
            "algo.batch_size=64", "algo.lr=3e-4", "algo.optimizer.lr_schedule=constant", "net.shared=false",
        ),
        algorithm="PPO",
        arguments={"n_steps": 256, "n_epochs": 10, "batch_size": 64, "learning_rate": 3e-4},
    ),
    "pong": Work(
        title="PPO PongNoFrameskip-v4, 8 x 128 steps, 4 epochs, batches of 256, the network of Mnih et al. 2015",
        frames=4_096,
        warm_up=1_024,
        interval=1_024,
        env_id="PongNoFrameskip-v4",
        num_envs=8,
        hidden=(512,),
        activation="relu",
        overrides=(
            "algo=ppo", "env=atari", "env.id=PongNoFrameskip-v4", "name=pong",
            "env.wrappers=[{name: AtariWrapper, terminal_on_life_loss: true}]", "algo.horizon=128", "algo.epochs=4",
            "algo.batch_size=256", "algo.lr=2.5e-4", "algo.optimizer.lr_schedule=constant", "algo.clip_range=0.1",
            "algo.entropy_coef=0.01", "algo.value_coef=1.0",
        ),
        algorithm="PPO",
        arguments={
            "n_steps": 128, "n_epochs": 4, "batch_size": 256, "learning_rate": 2.5e-4, "clip_range": 0.1,
            "ent_coef": 0.01,
        },
        sbx=False,
        atari=True,
    ),
}  # fmt: skip

WORK["pong_bfloat16"] = replace(
    WORK["pong"],
    title=f"{WORK['pong'].title}, ours with net.precision=bfloat16",
    overrides=(*WORK["pong"].overrides, "net.precision=bfloat16"),
)
