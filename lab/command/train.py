"""`python -m lab key=value ...`: let Hydra compose the config, and train what it says."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lab.common.renamed import renamed
from lab.errors import LabError, did_you_mean

if TYPE_CHECKING:
    from hydra.errors import MissingConfigException


def config_path() -> str:
    """Return the directory of the config groups: beside the package in a checkout, inside it once installed."""
    package = Path(__file__).resolve().parents[1]
    inside, beside = package / "conf", package.parent / "conf"
    return str(inside if inside.is_dir() else beside)


def main() -> None:
    """Let Hydra compose the config and run it."""
    import hydra
    from hydra.errors import CompactHydraException, MissingConfigException
    from omegaconf.errors import OmegaConfBaseException

    from lab.launch import job
    from lab.sweep import register

    register()
    # Hydra prints tracebacks for errors it does not know; asked for full errors it hands all of them on to here.
    wanted = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"
    entry = hydra.main(config_path=config_path(), config_name="config")(job.run)
    try:
        entry()
    except LabError:
        raise
    except (KeyboardInterrupt, SystemExit):
        raise
    except MissingConfigException as error:
        if wanted:
            raise
        raise LabError(missing_option(error)) from error
    except (CompactHydraException, OmegaConfBaseException) as error:
        if wanted:
            raise
        raise LabError(refused(str(error), str(error.__cause__ or ""))) from error
    except OSError as error:
        if wanted:
            raise
        raise LabError(f"{error.filename or 'a file'} cannot be written: {error.strerror}.") from error
    except Exception as error:
        # Composition is all that happens outside a job, so what went wrong there is in the words or in a config file.
        if wanted or job.started:
            raise
        raise LabError(f"the config cannot be composed: {' '.join(str(error).split())}") from error


def refused(message: str, cause: str) -> str:
    """Say in a sentence why Hydra could not compose the config."""
    missing = re.search(r"Missing mandatory value: (\S+)", message)
    if missing:
        return f"{missing[1]} is missing: it must be set, as in {missing[1]}=VALUE."
    unknown = re.search(r"Could not override '([^']+)'", message)
    if "Ambiguous value" in message:
        return f"{message.splitlines()[0]} A stack of seeds is written seed=[0,1]; a sweep needs -m."
    if not unknown:
        return f"{message.splitlines()[0]} {cause.splitlines()[0] if cause else ''}".strip()

    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    key = unknown[1]
    words = [word for word in sys.argv[1:] if re.match(r"[\w/]+=\w+$", word) and key not in word]
    with initialize_config_dir(config_path()):
        config = compose("config", [*words, f"hydra.searchpath=[{own_folder(sys.argv[1:])}]"])
    absent = object()
    new_name = renamed(key, lambda name: OmegaConf.select(config, name, default=absent) is not absent)
    if new_name:
        return new_name
    group, _, leaf = key.rpartition(".")
    while group and not OmegaConf.is_dict(OmegaConf.select(config, group)):
        group, _, leaf = group.rpartition(".")  # the first part of the key that is not there
    node = OmegaConf.select(config, group) if group else config
    keys = [word for word in node if word != "_target_"] if OmegaConf.is_dict(node) else []
    where = group or "the spec"
    options = f" Its keys are: {', '.join(map(str, keys))}." if keys else ""
    advice = f" To add it, write +{key}=VALUE." if where == "env.kwargs" else did_you_mean(leaf, map(str, keys))
    groups = [str(part) for part in config if OmegaConf.is_dict(config._get_node(part))]
    owners = [f"{part}.{leaf}" for part in groups if leaf in config[part]]
    if not group and owners:
        advice = f" Did you mean {owners[0]!r}?"
    return f"{key} cannot be set: {where} has no key {leaf!r}.{advice}{options}"


def own_folder(words: list[str]) -> str:
    """Return the place of the user's own config groups, which --config-dir names; empty if there are none."""
    from lab.common.text import quote

    for word, following in zip(words, [*words[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        if option in ("--config-dir", "-cd"):
            return quote(f"file://{Path(value if equals else following).absolute()}")
    return ""


def missing_option(error: MissingConfigException) -> str:
    """Say which option a config group does not have, and which it has."""
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    options = list(error.options or [])
    if not group or not options:
        return str(error)
    hint = f" Any Gymnasium environment: env=gymnasium env.id={option}" if group == "env" else ""
    return f"{group}={option} does not exist.{did_you_mean(option, options)} Options are: {', '.join(options)}.{hint}"
