"""Old config keys: every one is answered with its new name."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.common.renamed import RENAMED
from tests.helpers import lab

# The algorithm that has a key, where it is not a2c, and one that has it by its other name.
ALGORITHM = {
    "algo.lam": ("a2c", "sarsa"),
    "algo.target_noise": ("td3",),
    "algo.target_entropy_share": ("sac",),
    **dict.fromkeys(("algo.minibatch", "algo.clip", "algo.value_clip", "algo.kl_stop"), ("ppo",)),
    **dict.fromkeys(("algo.updates", "algo.target_rate", "algo.target_every", "algo.exploration.share"), ("dqn",)),
}


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_key_on_the_command_line_gets_its_new_name(old: str, tmp_path: Path) -> None:
    for algorithm, new in zip(ALGORITHM.get(old, ("a2c",)), RENAMED[old], strict=True):
        done = lab(f"algo={algorithm}", f"{old}=1", cwd=tmp_path)
        assert done.returncode == 2
        assert f"{old} is now {new}." in " ".join((done.stdout + done.stderr).split())
        assert not list(tmp_path.iterdir())


def test_keys_of_a_renamed_group_and_added_keys_get_theirs(tmp_path: Path) -> None:
    for override, sentence in {
        "algo.optimiser.eps=1": "algo.optimiser.eps is now algo.optimizer.eps.",
        "+algo.lam=0.5": "algo.lam is now algo.gae_lambda.",
    }.items():
        done = lab(override, cwd=tmp_path)
        assert sentence in " ".join((done.stdout + done.stderr).split())


def test_an_old_key_that_the_algorithm_never_had_is_unknown(tmp_path: Path) -> None:
    done = lab("algo=dqn", "algo.lam=1", cwd=tmp_path)
    assert "algo has no key 'lam'" in " ".join((done.stdout + done.stderr).split())
