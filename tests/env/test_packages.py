"""Environments of packages that may not be installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT, lab, run_each

IN_THE_CLONE = "which is not installed: in the clone of Lab, pip install -e"


@pytest.mark.parametrize(
    ("package", "env_id", "sentence"),
    [
        ("mujoco", "Hopper-v5", "a package that is not installed: in the clone of Lab, pip install -e '.[mujoco]'"),
        ("ale_py", "ALE/Pong-v5", f"the module 'ale_py', {IN_THE_CLONE} '.[atari]'"),
        ("minigrid", "MiniGrid-Empty-5x5-v0", f"the module 'minigrid', {IN_THE_CLONE} '.[minigrid]'"),
        ("gymnasium_robotics", "PointMaze_UMaze-v3", f"the module 'gymnasium_robotics', {IN_THE_CLONE} '.[robotics]'"),
        ("shimmy", "dm_control/cartpole-balance-v0", f"the module 'shimmy', {IN_THE_CLONE} '.[dm-control]'"),
        ("mine", "mine:Own-v0", f"the module 'mine', which is not installed and not in {ROOT}."),
    ],
)
def test_a_missing_package_is_named_with_its_pip_command(
    tmp_path: Path, package: str, env_id: str, sentence: str
) -> None:
    (tmp_path / f"{package}.py").write_text(
        f"raise ModuleNotFoundError(\"No module named '{package}'\", name='{package}')\n"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = lab(
        "env=gymnasium", f"env.id={env_id}", f"hydra.run.dir={tmp_path}/run", env={"PYTHONPATH": path}, fresh=True
    )
    assert done.returncode == 2
    assert done.stderr == f"Error: env.id={env_id} needs {sentence}\n"
    assert not (tmp_path / "run").exists()


def test_what_is_not_there_is_told_with_what_is(tmp_path: Path) -> None:
    (tmp_path / "my_robot.py").write_text("import gymnasium as gym\ngym.register('Robot-v0', 'my_robot:Robot')\n")
    fetch = (
        "class Fetch(gym.Env):\n    def __init__(self):\n        assert False\ngym.register('FetchReach-v4', Fetch)\n"
    )
    (tmp_path / "gymnasium_robotics.py").write_text(f"import gymnasium as gym\n{fetch}")
    sentences = {
        "ALE/Pongg-v5": "Environment 'Pongg' doesn't exist in namespace ALE. Did you mean 'ALE/Pong-v5'?",
        "Pong-v5": "Did you mean 'ALE/Pong-v5'?",
        "CartPole-v7": "Did you mean 'CartPole-v1'?",
        "my_robott:Robot-v0": f"is not installed and not in {tmp_path}. Did you mean 'my_robot'?",
        "my_robot:Robt-v0": "Did you mean 'my_robot:Robot-v0'?",
        "FetchReach-v4": "is installed, and Gymnasium-Robotics works with: pip install mujoco==3.9.0",
    }
    done = run_each(tmp_path, *(["env=gymnasium", f"env.id={env_id}"] for env_id in sentences))
    for (status, _, error), sentence in zip(done, sentences.values(), strict=True):
        assert status == 2 and error.endswith(f"{sentence}\n"), error


def test_ids_of_atari_games_are_found_in_any_form() -> None:
    """Each in a process of its own, where nothing has imported ale_py yet."""
    code = """if True:
        import sys
        from lab.env.packages import find_registered, import_package
        import_package(sys.argv[1])
        print(find_registered(sys.argv[1]).id)
    """
    for env_id, found in {"Pong-v0": "Pong-v0", "Pong": "Pong-v4", "ale_py:ALE/Pong": "ALE/Pong-v5"}.items():
        command = [sys.executable, "-W", "ignore", "-c", code, env_id]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
        assert done.stdout.splitlines()[-1:] == [found], done.stderr


def test_mujoco_warns_once_and_writes_no_file(tmp_path: Path) -> None:
    """HalfCheetah's model has words that are deprecated; NaN in its state is worth a note."""
    code = """if True:
        from lab.env.make import make_single
        from tests.helpers import specs
        spec = specs("env=halfcheetah")[0].env
        envs = [make_single(spec) for _ in range(3)]
        for env in envs:
            env.reset(seed=0)
            env.unwrapped.data.qvel[:] = 1e30
            env.unwrapped.step(env.action_space.sample())
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    assert done.stderr.startswith("Note: MuJoCo warns: Nan, Inf or huge value in")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
