"""Names of metrics in TensorBoard: those of Stable-Baselines3, where it has one."""

from __future__ import annotations

from collections.abc import Sequence

TAGS = {
    "return": "rollout/ep_rew_mean", "length": "rollout/ep_len_mean", "exploration_rate": "rollout/exploration_rate",
    "eval_return": "eval/mean_reward", "eval_length": "eval/mean_ep_length", "q_loss": "train/loss",
    "episodes": "time/episodes", "frames_per_second": "time/fps", "is_success": "rollout/success_rate",
    "eval_is_success": "eval/success_rate",
}  # by column of metrics.csv or timing.csv; others are train/<column>  # fmt: skip
HPARAM_METRICS = ("return", "eval_return")  # columns in the table of hyperparameters
HISTOGRAMS = "values"  # TensorBoard opens on the first groups of tags by name, and this one comes after all scalars


def tag(column: str, env_metrics: Sequence[str] = ()) -> str:
    """Return the tag of a column; `env_metrics` are those of env.metrics."""
    evaluated = column.removeprefix("eval_")
    if evaluated in env_metrics:
        return TAGS.get(column, f"{'rollout' if evaluated == column else 'eval'}/{evaluated}")
    return TAGS.get(column, f"train/{column}")
