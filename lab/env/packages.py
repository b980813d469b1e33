"""Packages that environments come from: what is imported for an id, and how what is missing is installed."""

from __future__ import annotations

import re
import sys
from contextlib import suppress

import gymnasium as gym
from gymnasium.envs import registration
from gymnasium.envs.registration import EnvSpec

from lab.common.imports import import_named
from lab.errors import warn_once

# How ids begin that Gymnasium knows only after a module is imported, and the module.
PACKAGES = {
    r"ALE/|.*NoFrameskip-v\d": "ale_py",
    r"(MiniGrid|BabyAI)-": "minigrid",
    r"Adroit|AntMaze|Fetch|FrankaKitchen|HandManipulate|HandReach|PointMaze": "gymnasium_robotics",
    r"dm_control/": "shimmy",
    r"phys2d/": "gymnasium.envs.phys2d",
}
# Lab's extras, by the modules that they install, or by those of Gymnasium's that they stand for.
EXTRAS = {
    "ale_py": "atari",
    "cv2": "atari",
    "minigrid": "minigrid",
    "gymnasium_robotics": "robotics",
    "shimmy": "dm-control",
    "dm_control": "dm-control",
    "gymnasium[box2d]": "box2d",
    "gymnasium[mujoco]": "mujoco",
}


def import_package(env_id: str) -> None:
    """Import what registers an id: the module before its colon, or that of its package.

    Raises:
        ModuleNotFoundError: it is not installed.
        gymnasium.error.Error: the id is malformed.
    """
    module = env_id.rpartition(":")[0] or next((PACKAGES[ids] for ids in PACKAGES if re.match(ids, env_id)), None)
    if module:
        import_named(module)
    elif find_registered(env_id) is None:
        with suppress(ImportError):  # of its ids without ALE/, as Pong-v4, nothing tells the package
            import_named("ale_py")


def find_registered(env_id: str) -> EnvSpec | None:
    """Return what `gym.make` finds for an id: whatever its module, and the newest version if it names none."""
    namespace, name, version = registration.parse_env_id(env_id.rpartition(":")[2])
    if version is None:
        version = registration.find_highest_version(namespace, name)
    return gym.registry.get(registration.get_env_id(namespace, name, version))


def pip_command(missing: str) -> str:
    """Return the command that installs a module, or what Gymnasium says is missing."""
    if extra := next((extra for name, extra in EXTRAS.items() if name in missing), None):
        return f"in the clone of Lab, pip install -e '.[{extra}]'"
    commands = re.findall(r"pip install [^`\n]+", missing.replace('\\"', '"'))
    return " && ".join(command.rstrip(". ") for command in commands)


def quiet_mujoco(env_id: str) -> None:
    """Let MuJoCo print each warning once in a process, but none on words of a model's file that are deprecated.

    By default it prints one for each environment, and adds it to a file in the working directory.
    """
    registered = find_registered(env_id)
    if registered and isinstance(registered.entry_point, str):
        registration.load_env_creator(registered.entry_point)  # imports what the environment needs
    if mujoco := sys.modules.get("mujoco"):
        mujoco.set_mju_user_warning(_note)


def _note(message: str) -> None:
    if "deprecated" not in message:
        warn_once(f"MuJoCo warns: {message}")
