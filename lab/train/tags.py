"""Names of metrics in TensorBoard: those of Stable-Baselines3, where it has one."""

from __future__ import annotations

TAGS = {
    "return": "rollout/ep_rew_mean", "length": "rollout/ep_len_mean", "exploration_rate": "rollout/exploration_rate",
    "eval_return": "eval/mean_reward", "eval_length": "eval/mean_ep_length", "q_loss": "train/loss",
    "episodes": "time/episodes", "frames_per_second": "time/fps",
}  # by column of metrics.csv or timing.csv; others are train/<column>  # fmt: skip
HPARAM_METRICS = ("return", "eval_return")  # columns in the table of hyperparameters
HISTOGRAMS = "values"  # TensorBoard opens on the first groups of tags by name, and this one comes after all scalars


def tag(column: str) -> str:
    """Return the tag of a column."""
    return TAGS.get(column, f"train/{column}")
