"""Old names of config keys, for errors that tell the new one."""

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


def renamed(key: str, exists: Callable[[str], bool]) -> str:
    """Return a sentence with the new name of a key, or an empty string if it has none in this config.

    Args:
        key: the full key, as algo.lam; keys below a renamed group count too.
        exists: whether the config has a key.
    """
    for old, names in RENAMED.items():
        if key == old or key.startswith(f"{old}."):
            for name in filter(exists, names):
                return f"{key} is now {name}{key.removeprefix(old)}."
    return ""
