"""Tables of every config key: its default and meaning from conf/, what is allowed from the dataclasses' annotations."""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import dataclass, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

CONF = Path(__file__).resolve().parent.parent / "conf"
LINE = re.compile(r"^( *)([\w.]+):(?: +(.*?))?(?:(?<= )# (.*))?$")
OUTSIDE = ("defaults", "hydra", "_target_")


@dataclass
class Key:
    """A key of a config file, with its full name below the file's group."""

    name: str
    default: str
    meaning: str


def read_keys(path: Path) -> dict[str, Key]:
    """Return the keys of a config file, after those of the file that it inherits, with the text of their comments."""
    text = path.read_text(encoding="utf-8")
    parent = re.search(r"^defaults: \[(\w+)", text, re.MULTILINE)
    inherited = parent is not None and path.with_name(f"{parent[1]}.yaml").exists()
    keys = read_keys(path.with_name(f"{parent[1]}.yaml")) if parent and inherited else {}
    open_groups: list[tuple[int, str]] = []
    last: Key | None = None
    for line in text.splitlines():
        if re.match(r" {12,}# ", line):  # the comment goes on
            if last:
                last.meaning += " " + line.split("# ", 1)[1].strip()
            continue
        match = LINE.match(line)
        if not match or line.startswith("#"):
            last = None
            continue
        indent, name, default, meaning = match.groups()
        open_groups = [group for group in open_groups if group[0] < len(indent)]
        full = ".".join([*(group for _, group in open_groups), name])
        if full.split(".")[0] in OUTSIDE:
            last = None
        elif default is None:
            last = None
            open_groups.append((len(indent), name))
            continue
        else:
            meaning = meaning or (keys[full].meaning if full in keys else "")
            last = keys[full] = Key(full, default.strip(), meaning.strip())
        open_groups.append((len(indent), name))
    return keys


def target(path: Path) -> Any:
    """Return the class that a config file names, or the file that it inherits; None if there is none."""
    text = path.read_text(encoding="utf-8")
    if named := re.search(r"^_target_: ([\w.]+)\.(\w+)", text, re.MULTILINE):
        return getattr(import_module(named[1]), named[2]) if named[1].startswith("lab.") else None
    parent = re.search(r"^defaults: \[(\w+)", text, re.MULTILINE)
    return target(path.with_name(f"{parent[1]}.yaml")) if parent else None


def allowed(schemas: list[Any], name: str) -> str:
    """Return what the annotation of a key allows; nothing if it has none."""
    from lab.common.validation import describe

    first, _, rest = name.partition(".")
    for schema in schemas:
        kind = get_type_hints(schema, include_extras=True).get(first) if is_dataclass(schema) else None
        if kind is not None and not rest:
            return describe(kind)
        if kind is not None:
            return allowed([part for part in (kind, *get_args(kind)) if is_dataclass(part)], rest)
    return ""


def table(keys: dict[str, Key], schemas: list[Any], prefix: str) -> str:
    """Return a Markdown table of keys."""
    rows = ["| key | default | allowed | meaning |", "|---|---|---|---|"]
    for key in keys.values():
        cells = (f"`{prefix}{key.name}`", f"`{key.default}`", allowed(schemas, key.name), key.meaning)
        rows.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(rows)


def files(group: str) -> list[Path]:
    """Return the files of a config group."""
    return sorted((CONF / group).glob("*.yaml"))


def top_level() -> str:
    """Return the tables of conf/config.yaml."""
    from lab.spec import Spec
    from lab.sweep_spec import SweepSpec

    keys = read_keys(CONF / "config.yaml")
    of_sweeps = set(get_type_hints(SweepSpec))
    parts = {
        "A Session": {name: key for name, key in keys.items() if name.split(".")[0] not in of_sweeps},
        "A sweep": {name: key for name, key in keys.items() if name.split(".")[0] in of_sweeps},
    }
    return "\n\n".join(f"## {title}\n\n{table(part, [Spec, SweepSpec], '')}" for title, part in parts.items())


def group(name: str, prefix: str) -> str:
    """Return a section for each option of a config group, without the inherited keys that are the same."""
    sections = []
    for path in files(name):
        keys = read_keys(path)
        if parent := re.search(r"^defaults: \[(\w+), _self_", path.read_text(encoding="utf-8"), re.MULTILINE):
            inherited = read_keys(path.with_name(f"{parent[1]}.yaml"))
            keys = {key: value for key, value in keys.items() if value != inherited.get(key)}
            note = f"All keys of [`{name}={parent[1]}`](#{slug(name, parent[1])}), of which these differ:\n\n"
        else:
            note = ""
        schema = target(path)
        rows = table(keys, [schema] if schema else [], prefix) if keys else "No keys."
        sections.append(f"## {name}={path.stem}\n\n{note}{rows}")
    return "\n\n".join(sections)


def slug(name: str, option: str) -> str:
    """Return the anchor of an option's heading."""
    return re.sub(r"[^\w-]", "", f"{name}={option}".lower())


def environment() -> str:
    """Return the keys of every environment, and a table of the presets."""
    from lab.env.spec import EnvSpec

    rows = ["| `env=` | id | random return | solved at | environments |", "|---|---|---|---|---|"]
    for path in files("env"):
        keys = read_keys(path)
        values = [keys[key].default for key in ("id", "reference.random_return", "reference.solved", "num_envs")]
        shown = ["required" if value == "???" else "" if value == "null" else value for value in values]
        rows.append(f"| `{path.stem}` | {' | '.join(shown)} |")
    every = table(read_keys(CONF / "env" / "gymnasium.yaml"), [EnvSpec], "env.")
    return f"## Every environment\n\n{every}\n\n## Presets\n\n" + "\n".join(rows)


def search_spaces() -> str:
    """Return the search spaces."""
    parts = []
    for path in files("search"):
        keys = read_keys(path)
        keys = {name: key for name, key in keys.items() if path.stem == "command_line" or name.startswith("params.")}
        rows = ["| key | values | meaning |", "|---|---|---|"]
        rows += [f"| `{k.name.removeprefix('params.')}` | `{k.default}` | {k.meaning} |" for k in keys.values()]
        parts.append(f"## search={path.stem}\n\n" + "\n".join(rows))
    return "\n\n".join(parts)


def commands() -> str:
    """Return the usage text of each command."""
    from lab.__main__ import COMMANDS

    texts = []
    for name in COMMANDS:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            import_module(f"lab.command.{name}").main(["--help"])
        texts.append(f"### {name}\n\n```text\n{printed.getvalue().strip()}\n```")
    return "\n\n".join(texts)


def stable_baselines3() -> str:
    """Return rows of a table: names of Stable-Baselines3 with the keys that take their place."""
    from lab.common.renamed import STABLE_BASELINES3

    rows = [f"| `{old}` | {', '.join(f'`{key}`' for key in keys)} |" for old, keys in STABLE_BASELINES3.items()]
    return "\n".join(rows)
