"""Interpolations in a composed config, resolved with the seed of each Session."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lab.common.text import canonical, flatten
from lab.errors import LabError

# The values of ${hydra:...} that do not depend on how a Session is launched.
SAME_EVERYWHERE = ("runtime.choices", "runtime.cwd", "runtime.version")
# May have another value for another seed: seed itself, a resolver, or a key whose name is interpolated.
MAY_DEPEND_ON_SEED = re.compile(r"\$\{(?!file_name:)(?=[^}]*(seed|:|\$\{))")

# ${file_name:...} is a text, such as the id of an environment, without the characters that a directory must not have.
OmegaConf.register_resolver("file_name", lambda text: re.sub(r"[/:\\]+", "-", str(text)), replace=True)


def resolve(config: DictConfig, keys: Iterable[str]) -> dict[str, Any]:
    """Return some top-level keys of a config as plain data.

    Raises:
        LabError: a value is missing, or an interpolation leads nowhere.
    """
    plain = {}
    for key in keys:
        try:
            value = config[key]
            container = OmegaConf.is_config(value)
            plain[key] = OmegaConf.to_container(value, resolve=True, throw_on_missing=True) if container else value
        except OmegaConfBaseException as error:
            if missing := re.search(r"Missing mandatory value: ([\w.]+)", str(error)):
                full_key = str(error.full_key or "")
                name = full_key if full_key.endswith(f".{missing[1]}") else missing[1]
                raise LabError(f"{name} is missing: it must be set, as in {name}=VALUE.") from error
            raise LabError(f"{error.full_key or key}: {str(error).splitlines()[0]}.") from error
        except RecursionError as error:
            raise LabError(f"{key} cannot be resolved: its interpolations form a circle.") from error
    return plain


def resolve_by_seed(
    config: DictConfig, keys: Sequence[str], seeds: Iterable[Any]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each seed with some top-level keys of the composed config as plain data, in which ${seed} is that seed.

    If nothing depends on the seed, the same dictionary is yielded each time.

    Raises:
        LabError: a value cannot be resolved, or depends on how a Session is launched.
    """
    config = copy.deepcopy(config)
    OmegaConf.set_readonly(config, False)
    leaves = flatten(OmegaConf.to_container(config, resolve=False))  # type: ignore[arg-type]
    texts = {key: str(value) for key, value in leaves.items() if "${" in str(value)}
    for key, text in texts.items():
        if key.split(".")[0] in keys:
            _require_same_everywhere(key, text)
    depends = any(map(MAY_DEPEND_ON_SEED.search, texts.values()))
    values: dict[str, Any] | None = None
    for seed in seeds:
        if values is None or depends:
            OmegaConf.update(config, "seed", seed)
            values = resolve(config, keys)
        yield seed, values


def resolve_but_seed(config: DictConfig, key: str) -> Any:
    """Return a top-level key of a config as plain data, in which values that depend on the seed stay unresolved.

    Raises:
        LabError: a value cannot be resolved.
    """
    written = OmegaConf.to_container(config, resolve=False)[key]  # type: ignore[call-overload, index]
    one, other = (values[key] for _, values in resolve_by_seed(config, [key], [0, 1]))

    def pick(one: Any, other: Any, written: Any) -> Any:
        if isinstance(one, dict) and isinstance(written, dict):
            return {key: pick(one[key], other[key], written[key]) for key in one}
        return one if canonical(one) == canonical(other) else written

    return pick(one, other, written)


def literal(value: Any) -> Any:
    """Escape plain data so that OmegaConf resolves no interpolation in it."""
    if isinstance(value, dict):
        return {key: literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [literal(item) for item in value]
    if isinstance(value, str):  # each backslash before it is doubled
        return re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + "\\${", value)
    return value


def _require_same_everywhere(key: str, text: str) -> None:
    """Raise LabError for a value that would differ between a Session trained alone and in a sweep."""
    for path in re.findall(r"\$\{hydra:\s*([^}]*)\}", text):
        if not path.startswith(SAME_EVERYWHERE):
            raise LabError(
                f"{key}={text} is not allowed: ${{hydra:{path}}} depends on how a Session is launched, and its results"
                f" may not. Allowed are {', '.join(f'${{hydra:{name}}}' for name in SAME_EVERYWHERE)}."
            )
