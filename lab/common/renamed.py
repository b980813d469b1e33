"""Old names of config keys and those of Stable-Baselines3, for errors that name the key to use."""

from __future__ import annotations

from collections.abc import Callable

# Old keys with their new names; of several, the first that the composed config has.
RENAMED = {
    "algo.lam": ("algo.gae_lambda", "algo.td_lambda"),
    "algo.n": ("algo.n_step",),
    "algo.minibatch": ("algo.batch_size",),
    "algo.updates": ("algo.gradient_steps",),
    "algo.clip": ("algo.clip_range",),
    "algo.value_clip": ("algo.clip_range_vf",),
    "algo.kl_stop": ("algo.target_kl",),
    "algo.target_rate": ("algo.tau",),
    "algo.target_every": ("algo.target_update_interval",),
    "algo.target_entropy_share": ("algo.target_entropy_fraction",),
    "algo.target_noise": ("algo.target_policy_noise",),
    "algo.log_std": ("algo.log_std_init",),
    "algo.normalise_advantage": ("algo.normalize_advantage",),
    "algo.exploration.share": ("algo.exploration.fraction",),
    "algo.sil.minibatch": ("algo.sil.batch_size",),
    "algo.sil.updates": ("algo.sil.gradient_steps",),
    "algo.optimiser": ("algo.optimizer",),
    "algo.lr_schedule": ("algo.optimizer.lr_schedule",),
    "algo.lr_schedule_kwargs": ("algo.optimizer.lr_schedule_kwargs",),
    "algo.lr_final": ("algo.optimizer.lr_final",),
    "algo.max_grad_norm": ("algo.optimizer.max_grad_norm",),
    "env.normalise_observations": ("env.normalize_observations",),
    "env.normalise_rewards": ("env.normalize_rewards",),
    "env.normalise_clip": ("env.normalize_clip",),
    "env.vectorise": ("env.vectorization_mode",),
    "env.vectorize": ("env.vectorization_mode",),
}

# Names of Stable-Baselines3 and its Zoo, which are typed with algo. in front or alone.
STABLE_BASELINES3 = {
    "total_timesteps": ("frames",),
    "n_timesteps": ("frames",),
    "env_id": ("env.id",),
    "n_envs": ("env.num_envs",),
    "policy_kwargs": ("net",),
    "net_arch": ("net.hidden",),
    "activation_fn": ("net.activation",),
    "learning_rate": ("algo.lr",),
    "n_steps": ("algo.horizon",),
    "train_freq": ("algo.horizon",),
    "n_epochs": ("algo.epochs",),
    "ent_coef": ("algo.entropy_coef", "algo.temperature"),
    "vf_coef": ("algo.value_coef",),
    "max_grad_norm": ("algo.optimizer.max_grad_norm",),
    "rms_prop_eps": ("algo.optimizer.eps",),
    "buffer_size": ("algo.memory.size",),
    "exploration_fraction": ("algo.exploration.fraction",),
    "exploration_initial_eps": ("algo.exploration.start",),
    "exploration_final_eps": ("algo.exploration.final",),
    "eval_freq": ("eval.every",),
    "n_eval_episodes": ("eval.episodes",),
    "tensorboard_log": ("log.tensorboard",),
}


def renamed(key: str, exists: Callable[[str], bool]) -> str:
    """Return a sentence that names the key to use instead of an old or foreign one; empty for any other key.

    Args:
        key: the full key, as algo.lam; keys below a renamed group count too.
        exists: whether the config has a key.
    """
    for old, names in RENAMED.items():
        if key == old or key.startswith(f"{old}."):
            for name in filter(exists, names):
                return f"{key} is now {name}{key.removeprefix(old)}."
    other = key.removeprefix("algo.").partition(".")[0]
    for name in filter(exists, STABLE_BASELINES3.get(other, ())):
        return f"{key} cannot be set: Stable-Baselines3's {other} is {name} here."
    return ""
