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
    """Compose the config of the command line and train it.

    Raises:
        LabError: the config cannot be composed, unless HYDRA_FULL_ERROR asks for tracebacks.
    """
    import hydra

    from lab.launch import job
    from lab.sweep import register

    register()
    full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let Hydra raise all errors instead of printing tracebacks of some
    try:
        hydra.main(config_path=config_path(), config_name="config")(job.run)()
    except LabError:
        raise
    except Exception as error:
        sentence = explain(error, composed=job.started)
        if full_error or not sentence:
            raise
        raise LabError(sentence) from error


def explain(error: Exception, composed: bool) -> str:
    """Return a sentence for an error in composing or in writing; an empty string for an error in a job."""
    from hydra.errors import CompactHydraException, MissingConfigException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, MissingConfigException):
        return explain_missing_option(error)
    if isinstance(error, (CompactHydraException, OmegaConfBaseException)):
        return explain_refusal(str(error), str(error.__cause__ or ""))
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'} cannot be written: {error.strerror}."
    return "" if composed else f"the config cannot be composed: {' '.join(str(error).split())}"


def explain_refusal(message: str, cause: str) -> str:
    """Return a sentence that says why Hydra could not compose the config."""
    missing = re.search(r"Missing mandatory value: (\S+)", message)
    if missing:
        return f"{missing[1]} is missing: it must be set, as in {missing[1]}=VALUE."
    if "Ambiguous value" in message:
        return f"{message.splitlines()[0]} A stack of seeds is written seed=[0,1]; a sweep needs -m."
    unknown = re.search(r"Could not override '([^']+)'", message)
    return explain_unknown_key(unknown[1]) if unknown else " ".join([message.splitlines()[0], *cause.splitlines()[:1]])


def explain_unknown_key(key: str) -> str:
    """Return a sentence that names the group in which a key is unknown, its keys, and the nearest one."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from lab.common.text import quote
    from lab.run.provenance import config_dirs

    overrides = [word for word in sys.argv[1:] if re.match(r"[\w/]+=\w+$", word) and key not in word]
    folders = ",".join(quote(f"file://{folder.absolute()}") for folder in config_dirs(sys.argv))
    with initialize_config_dir(config_path()):
        config = compose("config", [*overrides, f"hydra.searchpath=[{folders}]"])
    absent = object()
    new_name = renamed(key, lambda name: OmegaConf.select(config, name, default=absent) is not absent)
    if new_name:
        return new_name
    group, _, leaf = key.rpartition(".")
    while group and not OmegaConf.is_dict(OmegaConf.select(config, group)):
        group, _, leaf = group.rpartition(".")  # up to the first part of the key that is unknown
    node = OmegaConf.select(config, group) if group else config
    keys = [str(name) for name in node if name != "_target_"] if OmegaConf.is_dict(node) else []
    groups = [str(name) for name in config if OmegaConf.is_dict(config._get_node(name))]
    owners = [f"{name}.{leaf}" for name in groups if leaf in config[name]]
    hint = did_you_mean(leaf, keys)
    if group == "env.kwargs":
        hint = f" To add it, write +{key}=VALUE."
    elif not group and owners:
        hint = f" Did you mean {owners[0]!r}?"
    listing = f" Its keys are: {', '.join(keys)}." if keys else ""
    return f"{key} cannot be set: {group or 'the spec'} has no key {leaf!r}.{hint}{listing}"


def explain_missing_option(error: MissingConfigException) -> str:
    """Return a sentence that names the options of a config group."""
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    options = list(error.options or [])
    if not group or not options:
        return str(error)
    hint = f" Any Gymnasium environment: env=gymnasium env.id={option}" if group == "env" else ""
    return f"{group}={option} does not exist.{did_you_mean(option, options)} Options are: {', '.join(options)}.{hint}"
