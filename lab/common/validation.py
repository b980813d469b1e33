"""Values of config keys, checked against the type and the bounds that their field is annotated with."""

from __future__ import annotations

import math
from dataclasses import is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt

from lab.common.text import format_value
from lab.errors import LabError, did_you_mean

if TYPE_CHECKING:
    import torch

    Scalar = float | torch.Tensor
else:
    Scalar = float  # a hyperparameter: a float in a Session's config, and a tensor [S, 1] in a stack

Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Ge(0), Le(1)]
Count = Annotated[int, Ge(1)]
Natural = Annotated[int, Ge(0)]

NOUNS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", NoneType: "null"}


def validate(kind: Any, value: Any, key: str) -> Any:
    """Return the value of a key as its annotated type; a whole number serves as a float, and 1e6 as an int.

    Raises:
        LabError: the value has another type or is out of bounds; the message says what the annotation allows.
    """
    from pydantic import ValidationError

    bare = _bare(kind)
    if int in bare and isinstance(value, float) and value.is_integer():
        value = int(value)
    if str in bare and isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)  # a name may look like a number
    if isinstance(value, float) and not math.isfinite(value):
        raise LabError(f"{key}={value} is not allowed: {key} must be a finite number.")
    try:
        return _adapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        choices = [choice for part in bare for choice in get_args(part) if isinstance(choice, str)]
        hint = did_you_mean(value, choices) if isinstance(value, str) else ""
        raise LabError(f"{key}={format_value(value)} is not allowed: {key} must be {describe(kind)}.{hint}") from error


def is_plain(kind: Any) -> bool:
    """Whether `validate` knows all that an annotated type allows: truth values, numbers, words and null."""
    return all(each in NOUNS for each in _bare(kind))


def describe(kind: Any) -> str:
    """Return what an annotated type allows, to follow "must be"."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        noun = describe(arguments[0])
        bounds = {type(bound): getattr(bound, type(bound).__name__.lower()) for bound in arguments[1:]}
        if Ge in bounds and Le in bounds:
            return f"{noun} from {bounds[Ge]} to {bounds[Le]}"
        if Ge in bounds and Lt in bounds:
            return f"{noun}, at least {bounds[Ge]} and below {bounds[Lt]}"
        if Gt in bounds and Le in bounds:
            return f"{noun} above {bounds[Gt]}, up to {bounds[Le]}"
        if Ge in bounds:
            return f"{noun}, {bounds[Ge]} or more"
        return f"{noun} above {bounds[Gt]}" if Gt in bounds else noun
    if origin is Literal:
        return f"one of {', '.join(sorted(arguments))}" if len(arguments) > 1 else str(arguments[0])
    if origin in (Union, UnionType):
        return " or ".join(map(describe, arguments))
    if origin is list:
        return "a list" if arguments[0] is Any else f"a list, in which each is {describe(arguments[0])}"
    if origin is dict:
        return "a group of keys and values, as {key: value}"
    return str(NOUNS.get(kind) or getattr(kind, "NOUN", "a group of keys" if is_dataclass(kind) else kind))


def _bare(kind: Any) -> list[Any]:
    """Return the types in a union, without their bounds."""
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    return (
        [each for part in get_args(kind) for each in _bare(part)] if get_origin(kind) in (Union, UnionType) else [kind]
    )


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
