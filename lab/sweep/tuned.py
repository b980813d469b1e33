"""Settings of a validated Trial as a tuned file: conf/tuned/<algo>_<env>.yaml, which Hydra then composes by itself."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lab.analysis.card import read_provenance
from lab.analysis.session import read_spec
from lab.analysis.trial import Trial
from lab.analysis.validation import Validation, name_seeds
from lab.common.conf import config_path
from lab.common.text import canonical, flatten, format_estimate, format_seeds, plural
from lab.errors import LabError, visible
from lab.run.files import plain, read_yaml, write_text
from lab.spec import differences
from lab.sweep.compose import compose

GROUPS = ("frames", "algo", "env", "net")  # keys of a spec that a tuned file sets
OTHER_ENVIRONMENT = ("env.id", "env.kwargs", "env.max_episode_steps", "env.backend")  # keys by which it is another one
SHORT = {"algo.optimizer.lr": "algo.lr"}  # keys of specs that have a short form
COLUMN, WIDTH = 39, 120  # of comments, and of lines


def tuned_file(trial: Trial, overwrite: bool) -> Path:
    """Return the path of the tuned file of a Trial.

    Raises:
        LabError: it exists, cannot be written, or would be of more than one environment.
    """
    chosen, folders = _choices(trial)
    algo, env = chosen["algo"], chosen["env"]
    if env == "gymnasium":
        raise LabError(
            "save=true is not possible with env=gymnasium, whose tuned settings would be those of every environment:"
            f" make conf/env/NAME.yaml with id: {trial.spec.get('env.id')}, and search with env=NAME."
        )
    own = [
        folder for folder in folders if any((folder / key / f"{chosen[key]}.yaml").exists() for key in ("algo", "env"))
    ]
    folder = own[0] if own else Path(config_path())
    path = folder / "tuned" / f"{algo}_{env}.yaml"
    package = Path(__file__).resolve().parents[1]
    if not own and folder.is_relative_to(package):
        raise LabError(f"save=true is not possible: {folder} belongs to an installed package. Do it in a checkout.")
    if not os.access(folder / "tuned" if (folder / "tuned").exists() else folder, os.W_OK):
        raise LabError(f"save=true is not possible: {folder / 'tuned'} cannot be written.")
    if path.exists() and not overwrite:
        raise LabError(f"save=true is not possible: {path} exists. To replace it, add overwrite=true.")
    return path


def _choices(trial: Trial) -> tuple[dict[str, str], list[Path]]:
    """Return the option of each config group in a Trial, and the folders of the user's own groups."""
    path = trial.completed[0].directory.hydra / "hydra.yaml"
    try:
        runtime = read_yaml(path)["hydra"]["runtime"]
        sources = [source for source in runtime["config_sources"] if source["provider"] == "command-line"]
        return dict(plain(runtime["choices"])), [Path(source["path"]) for source in sources]
    except LabError:
        raise
    except Exception as error:
        raise LabError(f"{path} cannot be read: {error}. It says which algo=... and env=... were trained.") from error


def save_tuned(validation: Validation, overwrite: bool = False) -> list[Path]:
    """Write the settings that are best on fresh seeds as a tuned file, and return the files.

    A setting of the network goes to a file of its own, which is left out with another network.

    Raises:
        LabError: the file exists, or settings of the Trial cannot be written in it; nothing is left behind.
    """
    assert validation.winner is not None
    trial = validation.winner.fresh
    path, (chosen, folders) = tuned_file(trial, overwrite), _choices(trial)
    spec = plain(read_spec(trial.completed[0].directory))
    options = [part for folder in folders for part in ("--config-dir", str(folder))]
    pair = [f"algo={chosen['algo']}", f"env={chosen['env']}"]
    bare, default = compose([*pair, "~tuned"], options)
    nets = [] if chosen["net"] == default["net"] else [f"net={chosen['net']}"]
    if nets:
        bare, _ = compose([*pair, "~tuned", *nets], options)
    changed = _changes(bare.to_dict(), spec)
    if other := [key for key in changed if key.startswith(OTHER_ENVIRONMENT)]:
        raise LabError(
            f"save=true is not possible: {other[0]} is not that of env={chosen['env']}, to which the file would apply."
        )
    changed |= _tuning(validation)
    files = _texts(path, changed, chosen["net"], bool(nets), _comments([Path(config_path()), *folders], chosen))
    head = "".join(f"# {line}\n" for line in _origin(validation, pair))
    files[path] = f"# @package _global_\n{head}{files[path]}"
    before = {file: file.read_text() if file.exists() else None for file in files}
    for file, text in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
    try:
        applied = compose(pair, options)[0].to_dict()
        if wrong := differences(_settings(spec), _settings(applied)):
            raise LabError(
                f"save=true is not possible: a tuned file cannot say all of the settings: {'; '.join(wrong)}."
            )
    except LabError:
        for file, earlier in before.items():
            file.unlink() if earlier is None else write_text(file, earlier)
        raise
    return list(files)


def _settings(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {key: spec[key] for key in GROUPS}


def _changes(base: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a spec that differ from another one, by dotted key."""
    before, after = flatten(_settings(base)), flatten(_settings(spec))
    changed = [key for key in after if canonical(after[key]) != canonical(before.get(key))]
    return {SHORT.get(key, key): after[key] for key in changed}


def _tuning(validation: Validation) -> dict[str, Any]:
    """Return what tables of results say of the settings: the search, and all seeds that had a say in the choice."""
    assert validation.winner is not None
    searched = [session.seed for session in validation.winner.ranked.trial.sessions]
    source = f"search of {plural(len(validation.experiment.trials), 'point')}"
    return {"tuning.source": source, "tuning.seeds": sorted({*searched, *validation.seeds})}


def _texts(
    path: Path, changed: Mapping[str, Any], net: str, overrides_net: bool, comments: Mapping[str, str]
) -> dict[Path, str]:
    """Return the text of each file: settings of the network lie in one that applies to this network alone."""
    own = {key.partition(".")[2]: value for key, value in changed.items() if key.startswith("net.")}
    parts, files = ["_self_"], {}
    if own:
        parts.append(f'optional net: "{path.stem}_${{net}}"')
        files[path.parent / "net" / f"{path.stem}_{net}.yaml"] = "".join(
            _lines(own, {key.removeprefix("net."): text for key, text in comments.items()})
        )
    if overrides_net:
        parts.append(f"override /net: {net}")
    defaults = f"defaults: [{', '.join(parts)}]  # the network that this was tuned with\n" if len(parts) > 1 else ""
    rest = {key: value for key, value in changed.items() if not key.startswith("net.")}
    return {**files, path: defaults + "".join(_lines(rest, comments))}


def _lines(values: Mapping[str, Any], comments: Mapping[str, str]) -> Iterator[str]:
    """Yield lines of YAML for values by dotted key, each with a comment on what the key means."""
    opened: list[str] = []
    for key, value in sorted(values.items(), key=lambda pair: (pair[0].split(".")[:-1], pair[0])):
        *groups, name = key.split(".")
        shared = next((i for i, (one, two) in enumerate(zip(opened, groups, strict=False)) if one != two), len(opened))
        shared = min(shared, len(groups))
        for depth in range(shared, len(groups)):
            yield f"{'  ' * depth}{groups[depth]}:\n"
        opened = groups
        text = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
        line = f"{'  ' * len(groups)}{name}: {text}"
        first, *more = textwrap.wrap(comments.get(key, "as in the Experiment"), WIDTH - COLUMN - 2) or [""]
        yield f"{line.ljust(COLUMN - 1)} # {first}\n"
        yield from (f"{' ' * COLUMN}# {rest}\n" for rest in more)


def _comments(folders: Sequence[Path], chosen: Mapping[str, str]) -> dict[str, str]:
    """Return what the files of config groups say of their keys, by dotted key of the spec."""
    comments: dict[str, str] = {}
    for folder in folders:
        comments |= _read_comments(folder / "config.yaml", "")
        for group in ("env", "algo", "net"):
            names = [chosen[group]]
            for name in names:
                text = (
                    (folder / group / f"{name}.yaml").read_text() if (folder / group / f"{name}.yaml").exists() else ""
                )
                names += [one for one in re.findall(r"^defaults: \[(\w+), _self_", text, re.M) if one not in names]
            for name in reversed(names):
                comments |= _read_comments(folder / group / f"{name}.yaml", f"{group}.")
    return comments


def _read_comments(path: Path, prefix: str) -> dict[str, str]:
    """Return the comment behind each key of a YAML file, with the lines of comments that follow it."""
    comments: dict[str, str] = {}
    groups: list[tuple[int, str]] = []
    key = ""
    for line in path.read_text().splitlines() if path.exists() else ():
        entry = re.match(r"( *)([\w.]+):(.*?)(?: # (.*))?$", line)
        if entry is None:
            more = re.match(r" +# (.*)", line)
            key = key if more else ""
            if more and key in comments:
                comments[key] += f" {more[1]}"
            continue
        indent = len(entry[1])
        groups = [group for group in groups if group[0] < indent]
        key = prefix + ".".join([*(name for _, name in groups), entry[2]])
        groups.append((indent, entry[2]))
        if entry[4]:
            comments[key] = entry[4].strip()
    return comments


def _origin(validation: Validation, pair: Sequence[str]) -> list[str]:
    """Return lines on where the settings come from, how good they are, and how to get them again."""
    experiment, winner, metric = validation.experiment, validation.winner, validation.experiment.objective.metrics[0]
    assert winner is not None and winner.estimate is not None
    aggregate = f"{experiment.objective.aggregate} {metric}"
    found, now = (format_estimate(each, metric) for each in (winner.ranked.estimates[0], winner.estimate))
    git = read_provenance(winner.fresh.completed[0]).get("git") or {}
    seeds = [session.seed for session in winner.ranked.trial.sessions]
    lines = [
        f"{winner.ranked.trial.name} of {plural(len(experiment.trials), 'Trial')} of {experiment.name}, over"
        f" {', '.join(experiment.hyperparameters)}",
        f"{aggregate} in the Experiment: {found} ({format_seeds(seeds)})",
        f"{aggregate} on {name_seeds(validation.seeds)}: {now}",
    ]
    if validation.defaults:
        lines.append(
            f"that of the settings before on these: {format_estimate(validation.defaults.estimates[0], metric)}"
        )
    if git.get("sha"):
        lines.append(f"trained at git {git['sha'][:12]}{' with uncommitted changes' if git.get('uncommitted') else ''}")
    _, lab, typed = str(experiment.sweep.get("command")).partition(" -m lab ")
    words = " ".join(word for word in typed.split() if not word.startswith("hydra.sweep.dir="))
    lines += [f"found by: python{lab}{words}"] if lab else []
    lines.append(f"to get them again: python -m lab -m {' '.join(pair)} seed={','.join(map(str, validation.seeds))}")
    return [line for text in lines for line in textwrap.wrap(visible(text), WIDTH - 2, break_on_hyphens=False)]
