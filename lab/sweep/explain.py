"""Sentences for what Hydra refuses: which key or option, what is allowed, and the nearest match."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.common.conf import config_path
from lab.common.renamed import renamed
from lab.errors import LabError, did_you_mean

if TYPE_CHECKING:
    from hydra.errors import MissingConfigException

GRAMMAR = "https://hydra.cc/docs/advanced/override_grammar/basic"
# What other sweepers and launchers of Hydra call the keys of this program.
ELSEWHERE = {
    "hydra.sweeper.n_trials": "search.n_trials",
    "hydra.sweeper.n_jobs": "parallel (Trials at the same time) or hydra.launcher.slots (jobs at the same time)",
    "hydra.sweeper.max_batch_size": "parallel",
    "hydra.sweeper.direction": "objective.direction",
    "hydra.sweeper.max_failure_rate": "max_failure_rate",
    "hydra.sweeper.study_name": "name",
    "hydra.sweeper.storage": "hydra.sweep.dir: the directory of a search holds its study, study.db",
    "hydra.sweeper.params": "search.params, or KEY=VALUES itself beside search=command_line",
    "hydra.sweeper.search_space": "search.params, or KEY=VALUES itself beside search=command_line",
    "hydra.sweeper.custom_search_space": "search.custom",
    "hydra.launcher.n_jobs": "hydra.launcher.slots",
    "hydra.launcher.max_workers": "hydra.launcher.slots",
    "hydra.launcher.num_gpus": "hydra.launcher.gpus_per_node",
    "hydra.launcher.num_cpus": "hydra.launcher.cpus_per_task",
    "hydra.launcher.time": "hydra.launcher.timeout_min",
    "hydra.launcher.mem": "hydra.launcher.mem_gb",
    "hydra.launcher.job_name": "hydra.launcher.name",
}
OTHER_LAUNCHER = " It is a key that"


def explain(error: Exception, overrides: Sequence[str], choices: Sequence[str] = ()) -> str:
    """Return a sentence for an error of Hydra's or OmegaConf's in composing; an empty string for any other error.

    Args:
        error: what was raised.
        overrides: of the config that was composed.
        choices: those of the overrides that belong to a sweep, to be named.
    """
    from hydra.errors import CompactHydraException, MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, MissingConfigException):
        return explain_missing_option(error)
    if isinstance(error, OverrideParseException):
        return explain_syntax(error.override, str(error))
    unexpected = re.search(r"(Launcher|Sweeper)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    of_group = isinstance(error, ValueError) and str(error).startswith("Config group override")
    if unexpected:
        sentence = explain_unknown_key(f"hydra.{unexpected[1].lower()}.{unexpected[2]}", overrides)
    elif of_group or isinstance(error, (CompactHydraException, OmegaConfBaseException)):
        sentence = explain_refusal(str(error), str(error.__cause__ or ""), overrides)
    elif isinstance(error, LabError):
        sentence = str(error)
    else:
        return ""
    return f"With {' '.join(choices)}: {sentence}" if choices else sentence


def explain_syntax(override: str, message: str) -> str:
    """Return a sentence for an override that is not in Hydra's grammar."""
    if any(override.count(left) > override.count(right) for left, right in ("[]", "{}")):
        key = override.partition("=")[0]
        return (
            f"{override} cannot be parsed: its brackets do not close. The shell splits at spaces and takes braces"
            f" apart, so quote the whole, as '{key}=...'."
        )
    problem = [line for line in message.splitlines()[1:] if override not in line and not line.startswith("See ")]
    reason = re.sub(r"\w+ while evaluating '.*?': | expecting \{.*\}", "", " ".join(" ".join(problem).split()))
    reason = f": {reason.rstrip('.')}" if reason.strip(" ^") else ""
    return f"{override} cannot be parsed{reason}. Quote what has special characters. The grammar: {GRAMMAR}"


def explain_refusal(message: str, cause: str, overrides: Sequence[str]) -> str:
    """Return a sentence that says why Hydra could not compose the config."""
    first = message.partition("\n")[0]
    if folder := re.search(r"(?:Additional|Primary) config directory '(.+)' not found", message):
        return f"There is no directory {folder[1]}: --config-dir must name one with config groups, as conf/ has them."
    missing = re.search(r"Missing mandatory value: (\S+)", message)
    if missing:
        return f"{missing[1]} is missing: it must be set, as in {missing[1]}=VALUE."
    if swept := re.search(r"(?:Ambiguous value for argument|Sweep parameters) '(.+)'", first):
        key, _, value = swept[1].partition("=")
        stack = " A stack of seeds is written seed=[0,1]." if key == "seed" else f" A list is written {key}=[{value}]."
        hint = "" if "(" in value or Path(config_path(), key).is_dir() else stack
        return f"{swept[1]} has several values: this is a single job, and a sweep needs -m.{hint}"
    if unknown := re.search(r"Could not override '([^']+)'", message):
        return explain_unknown_key(unknown[1], overrides)
    if absent := re.search(r"Could not delete from config. '([^']+)' does not exist", message):
        return f"~{absent[1]} is not possible. {explain_unknown_key(absent[1], overrides)}"
    if "Config group override must be a string or a list" in message:
        groups = [line for line in overrides if Path(config_path(), line.partition("=")[0]).is_dir()]
        wrong = next((line for line in groups if re.search(r"=(null|[\d.+-]+|true|false)$", line)), "=")
        group = wrong.partition("=")[0] or "a key"
        return f"{wrong} is not allowed: {group} takes the name of an option, and ~{group} leaves it out."
    if lost := re.search(r"interpolation '\$\{(\w+)\}_\$\{(\w+)\}'", message):
        return (
            f"A Session needs one {lost[1]} and one {lost[2]}: neither can be deleted, or be a list. As in"
            f" {lost[1]}=OPTION {lost[2]}=OPTION."
        )
    if first.startswith("Multiple values for"):
        group = first.removeprefix("Multiple values for ").partition(".")[0]
        return f"+{group}=... is not possible: {group} is chosen already. Leave the + out, as in {group}=OPTION."
    merged = re.match(r"Error merging override \+*(([^=]+)=(.*))", first)
    if merged and "incompatible container types" in cause:
        override, key, value = merged.groups()
        kind = f"a list, as '{key}=[...]'" if value.startswith("{") else f"a group of keys, as '{key}={{key: value}}'"
        wrapped = f" Write '{key}=[{value}]'." if key == "env.wrappers" else ""
        return f"{override} is not allowed: {key} must be {kind}.{wrapped}"
    if merged and "list index out of range" in cause:
        items, _, index = re.sub(r"(\.\d+)\..*", r"\1", merged[2]).rpartition(".")
        return (
            f"{merged[1]} is not possible: {items} has no item {index} to change. Write the whole list, as"
            f" '{items}=[...]'."
        )
    return " ".join([first, *cause.splitlines()[:1]])


def explain_unknown_key(key: str, overrides: Sequence[str]) -> str:
    """Return a sentence that names the group in which a key is unknown, its keys, and the nearest one."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    from lab.common.text import quote
    from lab.run.provenance import config_dirs

    if "@" in key:
        group, _, package = key.partition("@")
        return (
            f"{key} cannot be set: the config has no group {group} at {package!r}. Its own is chosen by {group}=OPTION."
        )
    for name, ours in ELSEWHERE.items():
        if key == name or key.startswith(f"{name}."):
            return f"{key} cannot be set: here it is {ours}."
    chosen = [line for line in overrides if re.match(r"[\w/]+=\w+$", line) and key not in line]
    folders = ",".join(quote(f"file://{folder.absolute()}") for folder in config_dirs(sys.argv))
    running = GlobalHydra.instance().is_initialized()
    with nullcontext() if running else initialize_config_dir(config_path()):
        config = compose("config", [*chosen, f"hydra.searchpath=[{folders}]"], return_hydra_config=True)
    hydra = config.hydra
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    root = OmegaConf.create({"hydra": hydra}) if key.startswith("hydra.") else config
    if key.startswith("search.") and "search" not in config:
        searches = _options("search")
        fitting = hydra.runtime.choices.get("algo")
        example = fitting if fitting in searches else "command_line"
        return f"{key} cannot be set: no search is chosen. Add search={example}; options are {', '.join(searches)}."
    absent = object()
    new_name = renamed(key, lambda name: OmegaConf.select(config, name, default=absent) is not absent)
    if new_name:
        return new_name
    group, _, leaf = key.replace("/", ".").rpartition(".")
    while group and not OmegaConf.is_dict(OmegaConf.select(root, group)):
        group, _, leaf = group.rpartition(".")  # up to the first part of the key that is unknown
    node = OmegaConf.select(root, group) if group else config
    keys = [str(name) for name in node if name != "_target_"] if OmegaConf.is_dict(node) else []
    hint = _hint(key, group, leaf, keys, config)
    listing = f" Its keys are: {', '.join(keys)}." if keys and OTHER_LAUNCHER not in hint else ""
    return f"{key} cannot be set: {group or 'the spec'} has no key {leaf!r}.{hint}{listing}"


def _options(group: str) -> list[str]:
    """Return the names of the options of a config group of this program."""
    return sorted(file.stem for file in Path(config_path(), group).glob("*.yaml"))


def _hint(key: str, group: str, leaf: str, keys: list[str], config: Any) -> str:
    """Return what was probably meant, or an empty string."""
    from omegaconf import OmegaConf

    if re.fullmatch(r"env\.kwargs|env\.wrappers\.\d+", group):
        return f" To add it, write +{key}=VALUE."
    groups = [str(name) for name in config if OmegaConf.is_dict(config._get_node(name))]
    owners = [f"{name}.{leaf}" for name in groups if leaf in config[name]] if not group else []
    if owners:
        return f" Did you mean {owners[0]!r}?"
    if group == "hydra.launcher":
        for file in sorted(Path(config_path(), "hydra", "launcher").glob("*.yaml")):
            for name in (leaf, leaf.removeprefix("slurm_")):
                if name not in keys and re.search(rf"^{name}:", file.read_text(encoding="utf-8"), re.MULTILINE):
                    return f"{OTHER_LAUNCHER} hydra/launcher={file.stem} has: hydra.launcher.{name}."
    if group == "" and "/" in key:
        return f" Did you mean {key.replace('/', '.')!r}?"
    return did_you_mean(leaf, keys)


def explain_missing_option(error: MissingConfigException) -> str:
    """Return a sentence that names the options of a config group."""
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    options = list(error.options or [])
    if not group or not options:
        return str(error)
    hint = f" Any Gymnasium environment: env=gymnasium env.id={option}." if group == "env" else ""
    own = f" For a file of your own, {group}/{option}.yaml in a folder, add --config-dir=FOLDER."
    return (
        f"{group}={option} does not exist.{did_you_mean(option, options)} Options are: {', '.join(options)}.{hint}{own}"
    )
