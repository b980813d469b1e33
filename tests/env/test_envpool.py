"""Environments of EnvPool are trained, stacked and resumed as others are; mistakes are sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.env.rng_isolation import DryRun
from lab.env.vector import Environments, detect_restore_method, probe, try_out
from lab.errors import LabError
from lab.run.directory import RunDir
from lab.training.stack import Stack
from tests.helpers import QUIET, ROOT, go_on, lab, result, specs, train

POOL = ("env.backend=envpool", "~tuned")


def env_spec(*overrides: str) -> Any:
    return specs(*POOL, *overrides)[0].env


def test_without_the_package_the_sentence_says_how_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "envpool.py").write_text("raise ModuleNotFoundError(name='envpool')")
    ended = lab("env=cartpole", *POOL, "frames=1000", env={"PYTHONPATH": f"{tmp_path}:{ROOT}"}, fresh=True)
    assert ended.returncode == 2
    assert "needs a package that is not installed: in the clone of Lab, pip install -e '.[envpool]'" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("env.vectorization_mode=sync", "env.vectorization_mode must be auto with env.backend=envpool"),
        ("env.restore=pickle", "env.restore must be auto or reset with env.backend=envpool"),
    ],
)
def test_settings_that_a_pool_has_not(override: str, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        env_spec(override)


def test_an_environment_that_is_not_deterministic_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.env.vector.cached_dry_run", lambda spec: DryRun((), repeatable=False))
    with pytest.raises(LabError, match=r"behaves differently with the same seed .* env\.backend=envpool"):
        try_out(env_spec())


class TestInstalled:
    """Tests that need the package."""

    @pytest.fixture(autouse=True)
    def installed(self) -> None:
        pytest.importorskip("envpool")

    def test_mistakes_name_what_is_near(self) -> None:
        with pytest.raises(LabError, match=r"env.id=CartPole-v7 does not exist in EnvPool. Did you mean 'CartPole-v1'"):
            probe(env_spec("env=gymnasium", "env.id=CartPole-v7"))
        with pytest.raises(LabError, match=r"env.kwargs.num_thread is not an argument of CartPole-v1 .* 'num_threads'"):
            probe(env_spec("+env.kwargs.num_thread=2"))

    def test_an_episode_ends_and_the_next_step_resets(self) -> None:
        spec = env_spec("env=pendulum", "env.max_episode_steps=3")
        envs = Environments(spec, 2, np.random.default_rng(0))
        start, rows = envs.reset(), []
        for _ in range(8):
            rows.append(envs.step(np.zeros((2, 1), np.float32)))
        assert [row.truncated.tolist() for row in rows] == [[step in (2, 6)] * 2 for step in range(8)]
        assert not any(row.terminated.any() for row in rows)
        assert [bool(row.reward.any()) for row in rows] == [step not in (3, 7) for step in range(8)]
        assert not np.array_equal(rows[3].observation, start)
        envs.close()

    def test_a_terminal_state_is_no_truncation(self) -> None:
        envs = Environments(env_spec("env=cartpole"), 2, np.random.default_rng(0))
        envs.reset()
        rows = [envs.step(np.ones(2, np.int64)) for _ in range(30)]
        assert any(row.terminated.any() for row in rows) and not any(row.truncated.any() for row in rows)
        envs.close()

    @pytest.mark.parametrize("env_id", ["FrozenLake-v1", "HalfCheetah-v5", "Pong-v5"])
    def test_spaces_of_all_kinds(self, env_id: str) -> None:
        spec = env_spec("env=gymnasium", f"env.id={env_id}")
        spaces = probe(spec)
        assert spaces.observation.shape == {"F": (16,), "H": (17,), "P": (84, 84, 4)}[env_id[0]]
        envs = Environments(spec, 2, np.random.default_rng(0))
        assert envs.reset().shape == (2, *spaces.observation.shape)
        action = np.zeros((2, *(spaces.action.shape or ())), spaces.action.dtype)
        assert envs.step(action).observation.shape == (2, *spaces.observation.shape)
        assert detect_restore_method(spec) == "reset"
        try_out(spec)
        envs.close()

    def test_threads_change_no_result(self) -> None:
        traces = []
        for threads in (1, 3):
            envs = Environments(env_spec(f"+env.kwargs.num_threads={threads}"), 5, np.random.default_rng(0))
            rng = np.random.default_rng(1)
            traces.append([envs.reset(), *(envs.step(rng.integers(2, size=5)).observation for _ in range(60))])
            envs.close()
        assert np.array_equal(*traces)

    @pytest.mark.law
    @pytest.mark.parametrize("algo", ["a2c", "dqn"])
    def test_law_1_alone_stacked_and_resumed(self, tmp_path: Path, algo: str) -> None:
        overrides = (*POOL, *QUIET, "env=cartpole", f"algo={algo}", "frames=2000", "checkpoint.every=500")
        alone = train(tmp_path / "alone", *overrides, "seed=2")[0]
        stacked = train(tmp_path / "stacked", *overrides, "seed=[1,2,3]")[1]
        assert result(stacked) == result(alone)
        assert len(result(alone)["episodes"].splitlines()) > 20
        parts = [RunDir(tmp_path / "parts")]
        made, horizons = specs(*overrides, "seed=2"), 1200 // (8 * specs(*overrides)[0].algo.horizon)

        def kill() -> None:
            raise KeyboardInterrupt

        assert go_on(made, parts, (Stack, "finish_interval", horizons, kill)) == ["interrupted"]
        assert go_on(made, parts) == ["completed"]
        assert result(parts[0]) == result(alone)
