"""Typed dataclasses made of plain data, field by field, so that errors can name the key, the value and the type."""

from __future__ import annotations

import sys
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_args, get_type_hints

from lab.common.imports import import_named
from lab.common.renamed import renamed
from lab.common.text import format_value
from lab.common.validation import Positive, describe, validate
from lab.errors import LabError, did_you_mean
from lab.net.module import Module
from lab.net.net import Net, net_choice

T = TypeVar("T")


def build(cls: type[T], values: Any, prefix: str) -> T:
    """Return a dataclass made of plain data; `prefix` begins the names of its keys in errors.

    Raises:
        LabError: an unknown or missing key, or a value of the wrong type.
    """
    group, base, target = prefix.rstrip(".") or "the spec", cls, ""
    if not isinstance(values, dict):
        raise LabError(f"{group}={format_value(values)} is not allowed: {group} must be {describe(cls)}.")
    if "_target_" in values:
        target, values = values["_target_"], {key: value for key, value in values.items() if key != "_target_"}
        cls = _locate(base, target, prefix)
        if not issubclass(cls, base):  # a module of the user's own, for a network
            shared = validate(bool, values.pop("shared", False), f"{prefix}shared")
            return Module(str(target), values, shared=shared)  # type: ignore[return-value]
    types = get_type_hints(cls, include_extras=True)
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
    names = list(known)
    if "lr" not in known and "lr" in (values.get("optimizer") or {}):  # algo.lr is short for algo.optimizer.lr
        names.append("lr")
        if values.get("lr") == values["optimizer"]["lr"]:
            validate(Positive, values["lr"], f"{prefix}lr")  # a mistake names the key that was typed
        values = {key: value for key, value in values.items() if key != "lr"}
    for key in values:
        if key not in known:
            new_name = renamed(f"{prefix}{key}", lambda new: new.removeprefix(prefix).partition(".")[0] in known)
            raise LabError(
                new_name
                or f"{prefix}{key} cannot be set: {group} has no key {str(key)!r}.{did_you_mean(str(key), names)}"
                f" Its keys are: {', '.join(names)}."
                f"{f' {net_choice(str(target))} chooses this network and its keys.' if base is Net and target else ''}"
            )
    built = {}
    for key, field in known.items():
        if key not in values:
            if field.default is NO_DEFAULT and field.default_factory is NO_DEFAULT:
                raise LabError(f"{prefix}{key} is missing: it must be set in the config or on the command line.")
            continue
        parts = (types[key], *get_args(types[key]))  # of an optional group
        kind = next((part for part in parts if isinstance(part, type) and is_dataclass(part)), None)
        if kind is None or (values[key] is None and kind is not types[key]):
            built[key] = validate(types[key], values[key], f"{prefix}{key}")
        else:
            built[key] = build(kind, values[key], f"{prefix}{key}.")
    return cls(**built)


def _locate(base: type[Any], target: Any, prefix: str) -> type[Any]:
    module, _, name = str(target).rpartition(".")
    try:
        cls = getattr(import_named(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise LabError(f"{prefix}_target_={target} cannot be imported: {error}.") from error
    if base is Net and _is_module(cls):
        return cls
    if not (isinstance(cls, type) and issubclass(cls, base) and is_dataclass(cls)):
        raise LabError(
            f"{prefix}_target_={target} is not allowed: it must be a dataclass that extends {base.__name__}"
            f"{', or a torch.nn.Module' if base is Net and target else ''}."
        )
    return cls


def _is_module(cls: Any) -> bool:
    torch = sys.modules.get("torch")  # a module cannot have been imported without it
    return torch is not None and isinstance(cls, type) and issubclass(cls, torch.nn.Module)
