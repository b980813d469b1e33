"""The spec of a Session and what the command line set of it, read fast: a list of runs reads thousands."""

from __future__ import annotations

import re
import shlex
from functools import cache
from typing import Any

from lab.common.text import flatten
from lab.errors import LabError
from lab.run.directory import RunDir
from lab.run.files import parse_yaml
from lab.run.guard import SPEC_KEYS
from lab.run.schemas import SPEC

SEED = re.compile(r"^seed: (\d+)\n", re.MULTILINE)
SETTING = re.compile(r"\+{0,2}([a-z_][\w.@/]*)=(.*)", re.DOTALL)
# Overrides that do not change what is learned, or that have columns of their own, are no settings.
NO_SETTING = re.compile(
    r"algo|env|env\.(id|name|reference\..*)|seed|name|search|plan|retry|stack|parallel|detach|rungs|only_trial|mix_code"
    r"|max_failure_rate|hung_after|(hydra|objective|search|log|provenance|checkpoint|tuning)[./].*"
)


def read_spec(session: RunDir) -> tuple[dict[str, Any], int]:
    """Return the spec of a Session by dotted key, without its seed, and the seed.

    Raises:
        LabError: it is missing or damaged.
    """
    try:
        text = session.spec.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise LabError(f"{session.spec} cannot be read: {error}.") from error
    seed = SEED.search(text)
    if seed is None:
        raise LabError(f"{session.spec} is damaged: it lacks seed.")
    # Sessions of a Trial differ in the seed and the checksum, and reading YAML is what takes most of the time.
    rest = text[: seed.start()] + text[seed.end() :]
    shared = re.sub(r"\n# checksum: .*\s*\Z", "", rest)
    if shared not in _specs:
        spec = parse_yaml(text, session.spec, SPEC)
        if not spec.keys() >= SPEC_KEYS:
            raise LabError(f"{session.spec} is damaged: it lacks {', '.join(sorted(SPEC_KEYS - spec.keys()))}.")
        _specs[shared] = {key: value for key, value in flatten(dict(spec)).items() if key != "seed"}
    return _specs[shared], int(seed[1])


_specs: dict[str, dict[str, Any]] = {}  # by their text without seed and checksum


def read_overrides(session: RunDir, command: str) -> dict[str, str]:
    """Return what was set on the command line, by Hydra's record or, where that is missing, by the command itself."""
    try:
        overrides = _parse_list((session.hydra / "overrides.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        try:
            overrides = shlex.split(command)
        except ValueError:
            overrides = []
    found: dict[str, str] = {}
    for override in overrides:
        match = SETTING.fullmatch(override)
        if match and not NO_SETTING.fullmatch(match[1]):
            found[match[1]] = match[2]
    return found


@cache
def _parse_list(text: str) -> list[str]:
    import yaml

    try:
        content = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - a safe loader
    except yaml.YAMLError:
        return []
    return [str(item) for item in content] if isinstance(content, list) else []
