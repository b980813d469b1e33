"""Wrappers of environments, from the list `env.wrappers`.

A wrapper is named by its class in gymnasium.wrappers, by its name in Stable-Baselines3 where Lab has the same, or by a
path. Arguments are plain data, which become what the constructor's annotations ask for: a path becomes the function or
space that it names, and a list a tuple or an array.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, get_type_hints

import gymnasium as gym
import numpy as np

from lab.common.imports import describe_error, import_class, import_named
from lab.common.text import format_value
from lab.common.validation import is_plain, validate
from lab.env.layer import Layer
from lab.env.packages import pip_command
from lab.errors import LabError, did_you_mean, require, to_sentence

# Lab's own wrappers, and those of Stable-Baselines3 and RL Zoo that it has by their names: the paths of their classes.
OWN = {
    "AtariWrapper": "lab.env.atari.AtariWrapper",
    "ClipRewardEnv": "lab.env.baselines.ClipRewardEnv",
    "ScaleReward": "lab.env.baselines.ScaleReward",
    "TimeFeatureWrapper": "lab.env.baselines.TimeFeatureWrapper",
    "VecFrameStack": "lab.env.baselines.VecFrameStack",
}
RENAMED = {"MaxAndSkipEnv": "MaxAndSkipObservation", "GrayScaleObservation": "GrayscaleObservation"}
PEERS = ("stable_baselines3", "sb3_contrib", "rl_zoo3")  # whose wrappers are known by the last part of their path
KNOWN = (*PEERS, "gymnasium.", "lab.")  # how paths begin of wrappers that are nobody's own

ATARI = "use AtariWrapper"
OBSERVATIONS = "set env.normalize_observations=true, whose statistics are saved with the agent"
FILMS = "film a trained agent by `python -m lab enjoy DIR video=FOLDER`"
RECORDED = "returns and lengths are in episodes.csv anyway"
CHECKED = "leave it out: what environments return is always validated"
MODE = "set env.vectorization_mode"
REFUSED = {
    "AddRenderObservation": "use an environment that observes pictures: those of `render` are not drawn in training",
    "Autoreset": "leave it out: environments are reset at the step after an episode's last",
    "DummyVecEnv": f"{MODE}=sync",
    "EpisodicLifeEnv": f"{ATARI} with terminal_on_life_loss: true",
    "FireResetEnv": f"{ATARI}, which presses FIRE where a game needs it",
    "FrameStack": "use FrameStackObservation with stack_size",
    "HumanRendering": "watch a trained agent by `python -m lab enjoy DIR render=human`",
    "Monitor": RECORDED,
    "NoopResetEnv": f"{ATARI} with noop_max",
    "NormalizeObservation": OBSERVATIONS,
    "NormalizeReward": "set env.normalize_rewards=true, whose statistics are saved with the agent",
    "PassiveEnvChecker": CHECKED,
    "RecordEpisodeStatistics": RECORDED,
    "RecordVideo": FILMS,
    "RenderCollection": FILMS,
    "StickyActionEnv": "use StickyAction with repeat_action_probability",
    "SubprocVecEnv": f"{MODE}=async",
    "VecCheckNan": CHECKED,
    "VecExtractDictObs": "use FilterObservation with filter_keys",
    "VecMonitor": RECORDED,
    "VecNormalize": f"{OBSERVATIONS}, and env.normalize_rewards=true",
    "VecTransposeImage": "leave it out: networks take images with their channels first or last",
    "VecVideoRecorder": FILMS,
    "WarpFrame": f"{ATARI} with screen_size, or GrayscaleObservation and ResizeObservation",
}


def wrapper_name(item: Any) -> str:
    """Return the name in an item of `env.wrappers`."""
    return str(item if isinstance(item, str) else item["name"])


def layer_names(items: Sequence[Any], name: str) -> list[str]:
    """Return what errors call each wrapper of an environment `name`, as "env.wrappers[0]=ClipAction (env.id=...)"."""
    return [f"env.wrappers[{i}]={wrapper_name(item)} ({name})" for i, item in enumerate(items)]


def has_own(items: Sequence[Any]) -> bool:
    """Whether wrappers are neither Gymnasium's nor Lab's."""
    return any("." in wrapper_name(item) and not wrapper_name(item).startswith(KNOWN) for item in items)


def apply_wrappers(env: gym.Env[Any, Any], items: Sequence[Any], env_name: str) -> gym.Env[Any, Any]:
    """Apply wrappers in order, the first one innermost, each in a Layer; `env_name` is as "env.id=CartPole-v1".

    Raises:
        LabError: a wrapper does not exist, needs a package that is not installed, does not take its arguments, or does
            not fit the spaces.
    """
    names = [*layer_names(items, env_name), ""]
    for i, item in enumerate(items):
        key, name = f"env.wrappers[{i}]", wrapper_name(item)
        arguments = {} if isinstance(item, str) else {word: item[word] for word in item if word != "name"}
        try:
            wrapper = _find_class(key, name)(env, **_convert(key, name, arguments))
            if "_observation_space" not in vars(wrapper):
                raise LabError(f"{key}={name} does not call super().__init__(env) in its __init__.")
            env = Layer(wrapper, names[i], names[i + 1])
        except LabError as error:
            if str(error).startswith(key):
                raise
            raise LabError(f"{key}={name} cannot be applied to {env_name}: {to_sentence(error)}") from error
        except (gym.error.DependencyNotInstalled, ModuleNotFoundError) as error:
            command = pip_command(str(error)) or to_sentence(error)
            raise LabError(f"{key}={name} needs a package that is not installed: {command}") from error
        except Exception as error:
            given = f" with {format_value(arguments)}" if arguments else ""
            spaces = " ".join(f"observations {env.observation_space} and actions {env.action_space}".split())
            fault = f"{key}={name} cannot be applied to {env_name} ({spaces}){given}"
            raise LabError(f"{fault}: {describe_error(error)}") from error
    return env


def _find_class(key: str, path: str) -> type[gym.Wrapper[Any, Any, Any, Any]]:
    """Return a wrapper's class, or raise LabError."""
    quoted = "With arguments it is written, in quotes, as 'env.wrappers=[{name: TimeLimit, max_episode_steps: 200}]'"
    require(":" not in path, key, path, f"a name or a path with dots, as {path.replace(':', '.')}. {quoted}")
    package, _, name = path.rpartition(".")
    if package.startswith((*PEERS, "gymnasium.wrappers")) or not package:
        name = RENAMED.get(name, name)
        if name in REFUSED:
            raise LabError(f"{key}={path} cannot be used here: {REFUSED[name]}.")
        if name in OWN:
            return import_class(key, OWN[name], gym.Wrapper)
        if name not in gym.wrappers.__all__ or name == "vector":
            known = [*OWN, *RENAMED, *REFUSED, *gym.wrappers.__all__]
            raise LabError(
                f"{key}={path} does not exist: neither gymnasium.wrappers nor Lab has it.{did_you_mean(name, known)}"
                " A wrapper of your own is named by its path, as my_package.MyWrapper."
            )
        return getattr(gym.wrappers, name)
    return import_class(key, path, gym.Wrapper)


def _convert(key: str, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments as a wrapper's constructor takes them; raise LabError if it does not.

    An argument that may be None is None if it is left out.
    """
    arguments, cls = dict(arguments), _find_class(key, name)
    parameters, kinds = _parameters(cls), _plain_kinds(cls)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    named = [word for word, each in parameters.items() if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    takes = f"It takes {', '.join(named)}." if named else "It takes none."
    for word, value in arguments.items():
        if word not in named and not takes_any:
            raise LabError(f"{key}.{word} is not an argument of {name}.{did_you_mean(word, named)} {takes}")
        parameter = parameters.get(word)
        if word in kinds and parameter and value != parameter.default:
            valid = validate(kinds[word], value, f"{key}.{word}")
            arguments[word] = valid if isinstance(valid, int) else value
        else:
            arguments[word] = _convert_value(f"{key}.{word}", value, str(getattr(parameter, "annotation", "")))
    for word in named:
        if parameters[word].default is inspect.Parameter.empty and word not in arguments:
            if "None" not in str(parameters[word].annotation):
                raise LabError(f"{key}={name} needs the argument {word}, as {{name: {name}, {word}: ...}}. {takes}")
            arguments[word] = None
    return arguments


def _parameters(cls: Any) -> dict[str, inspect.Parameter]:
    """Return a constructor's parameters after the environment."""
    return dict([*inspect.signature(cls).parameters.items()][1:])


def _plain_kinds(cls: Any) -> dict[str, Any]:
    """Return the annotated types of a constructor's parameters that are truth values, numbers or words."""
    with suppress(Exception):  # annotations may be wrong in any way
        hints = get_type_hints(cls.__init__, include_extras=True)
        return {word: kind for word, kind in hints.items() if is_plain(kind)}
    return {}


def _convert_value(key: str, value: Any, annotation: str) -> Any:
    if isinstance(value, str) and ("Callable" in annotation or "Space" in annotation) and "." in value:
        module, _, name = value.rpartition(".")
        try:
            return getattr(import_named(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise LabError(f"{key}={value} cannot be imported: {to_sentence(error)}") from error
    if isinstance(value, list) and "tuple" in annotation:
        return tuple(value)
    return np.array(value, np.float32) if isinstance(value, list) and "ndarray" in annotation else value
