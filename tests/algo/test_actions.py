"""Actions with asymmetric bounds, of any shape and type, or with a start: each algorithm gives those of the space."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.training.lockstep import check_spaces
from tests.helpers import ALGORITHMS, BOX, CHOICE, CHOICES, serves, specs, train

KINDS = {"start": CHOICE, "table": CHOICES, "bits": CHOICES, "box": BOX, "whole": BOX, "half": BOX}
USUAL = {("ppo", kind) for kind in KINDS} | {("dqn", "start"), ("sac", "box"), ("sac", "start"), ("td3", "box")}
UNBOUNDED = ("a2c", "ppo", "reinforce")  # algorithms for a Box without bounds
PAIRS = [
    pytest.param(algo, kind, marks=() if (algo, kind) in USUAL else pytest.mark.slow)
    for algo in ALGORITHMS
    for kind in KINDS
    if serves(algo, "", KINDS[kind]) and (kind != "half" or algo in UNBOUNDED)
]
SPACE = ("env=gymnasium", "env.id=tests.envs:Acts-v0", "name=acts")


@pytest.mark.parametrize(("algo", "kind"), PAIRS)
def test_every_action_is_in_its_space(tmp_path: Path, algo: str, kind: str) -> None:
    """The environment raises at an action that is not, in training and in evaluation."""
    chosen = ["algo.horizon=16"]
    if algo in ("ppo", "pqn"):
        chosen += ["algo.batch_size=32", "algo.epochs=1"]
    elif hasattr(specs(f"algo={algo}")[0].algo, "learning_starts"):
        chosen += ["algo.learning_starts=128", "algo.batch_size=8", "algo.memory.size=500"]
    overrides = (f"algo={algo}", *SPACE, f"+env.kwargs.kind={kind}", *chosen, "frames=384", "eval.every=384")
    status = train(tmp_path, *overrides, "eval.max_steps=20")[0].read_status()
    assert (status["state"], status["error"]) == ("completed", None)


@pytest.mark.parametrize("algo", ["sac", "crossq", "td3"])
def test_a_space_without_bounds_is_refused_where_they_are_needed(algo: str) -> None:
    supported = re.escape(f"algo={algo} supports") + ".*bounded Box actions only"
    with pytest.raises(LabError, match=supported):
        check_spaces(specs(f"algo={algo}", *SPACE, "+env.kwargs.kind=half"))
