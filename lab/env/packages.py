"""Packages that environments come from: what is imported for an id, and how what is missing is installed."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import gymnasium as gym
from gymnasium.envs import registration
from gymnasium.envs.registration import EnvSpec

from lab.common.conf import install_command
from lab.common.imports import import_named, suggest_module
from lab.errors import did_you_mean, warn_once

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


def suggest_id(env_id: str) -> str:
    """Return " Did you mean 'x'?" for the registered id that is nearest to one that does not exist."""
    module, colon, own = env_id.rpartition(":")
    same = [other for other in gym.registry if other.endswith(f"/{own.rpartition('/')[2]}")]
    near = did_you_mean(own, same or gym.registry)
    return near.replace("'", f"'{module}{colon}", 1)


def explain_missing(env_id: str, error: ModuleNotFoundError) -> str:
    """Return what an id needs that is not there, and how it is installed, to follow "needs"."""
    typed = env_id.rpartition(":")[0].partition(".")[0]
    module = str(error.name or typed).partition(".")[0]
    command = pip_command(module)
    package = module.replace("_", "-")
    if module == typed and not command:
        return f"the module {module!r}, which is not installed and not in {Path.cwd()}.{suggest_module(error)}"
    return f"the module {module!r}, which is not installed: {command or f'pip install {package}'}"


def advise_version(env_id: str) -> str:
    """Return which version to install for an environment that cannot be made with a newer one, if that is known."""
    if not re.match(r"Adroit|AntMaze|Fetch|FrankaKitchen|Hand", env_id):
        return ""
    with suppress(PackageNotFoundError):
        installed = version("mujoco")
        if tuple(map(int, installed.split(".")[:2])) > (3, 9):
            return f" MuJoCo {installed} is installed, and Gymnasium-Robotics works with: pip install mujoco==3.9.0"
    return ""


def pip_command(missing: str) -> str:
    """Return the command that installs a module, or what Gymnasium says is missing."""
    if extra := next((extra for name, extra in EXTRAS.items() if name in missing), None):
        return install_command(extra)
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
