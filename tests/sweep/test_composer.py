"""Composing the specs of a sweep."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext

from lab.sweep.composer import Composer
from tests.helpers import CONF, specs


def make_composer() -> Composer:
    loader = GlobalHydra.instance().config_loader()
    config = compose("config", ["algo=ppo", "env=pendulum"], return_hydra_config=True)
    return Composer(config, HydraContext(config_loader=loader, callbacks=None), None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "overrides",
    [
        ["algo.lr=0.5", "frames=1e5"],
        ["mode=dev", "algo.lr=0.5"],
        ["algo=a2c", "env=cartpole", "net.hidden=[8,8]", "~tuned"],
        ["algo.lr=0.25", "algo=a2c", "name='a, b'"],
        ["+env.kwargs.g=9.0", "env.num_envs=4"],
        ["algo.clip_range_vf=0.3", "algo.gamma=0.5"],
        ["algo=reinforce", "algo.baseline=false"],
        ["algo.lr=0.1", "++algo.lr=0.2"],
        ["+env.kwargs.g=9.0", "env.kwargs.g=8.0", "++env.kwargs.h={a:1}", "+env.kwargs.i.j=[1]"],
        ["+env.kwargs={g:1}", "net.hidden=[4]", "algo.sil={gradient_steps:2}"],
    ],
)
def test_a_spec_is_the_same_as_composed_anew(overrides: list[str]) -> None:
    base = ["algo=ppo", "env=pendulum"]
    chosen = {override.partition("=")[0] for override in overrides}
    every = [*(override for override in base if override.partition("=")[0] not in chosen), *overrides]
    expected, plain = specs(*every)[0].to_dict(), specs(*base)[0].to_dict()
    with initialize_config_dir(str(CONF)):
        composer = make_composer()
        for _ in range(2):  # the second time from what was composed before, which the first must not have changed
            assert composer.specs(every, [0])[0].to_dict() == expected
        assert composer.specs(base, [0])[0].to_dict() == plain
