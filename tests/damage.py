"""Ways in which a file of a run directory can be damaged, for tests that try all of them."""

from __future__ import annotations

import io
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from lab.run.files import CHECKSUM
from lab.run.tensor_files import seal

MUTATIONS = ("missing", "empty", "cut", "random", "flipped", "lacking", "wrong", "link")
TOLD = re.compile(
    r"damaged|missing|cannot be read|lacks|does not exist|is a link|not the run directory|is not a spec|no spec\.yaml"
    r"|cannot be used as a spec|has no checkpoint/"
)


def damage(path: Path, mutation: str) -> None:
    """Damage a file in one of MUTATIONS: `lacking` and `wrong` leave it valid, with keys missing or of other types."""
    content = path.read_bytes()
    if mutation == "missing":
        path.unlink()
    elif mutation == "link":
        elsewhere = path.parent / f"elsewhere-{path.name}"
        path.rename(elsewhere)
        path.symlink_to(elsewhere.name)
    else:
        path.write_bytes(CONTENTS[mutation](path, content))


def flip(content: bytes, bit: int) -> bytes:
    """Return bytes with one bit changed."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _lacking(path: Path, content: bytes) -> bytes:
    return _valid(path, content, lambda values: {}, lambda cells: cells[1:], {"frame": 1})


def _wrong(path: Path, content: bytes) -> bytes:
    broken = {"frame": "x", "parameters": 5, "record": [1]}
    return _valid(path, content, _of_other_types, lambda cells: ["x"] * len(cells), broken)


def _valid(
    path: Path,
    content: bytes,
    keys: Callable[[Any], Any],
    cells: Callable[[list[str]], list[str]],
    checkpoint: dict[str, Any],
) -> bytes:
    """Return what is still JSON, YAML, CSV or a checkpoint; of another kind of file every other line."""
    if path.suffix == ".json":
        return json.dumps(keys({key: value for key, value in json.loads(content).items() if key != CHECKSUM})).encode()
    if path.suffix == ".yaml":
        return yaml.safe_dump(keys(yaml.safe_load(content))).encode()
    if path.suffix == ".csv":
        head, *rows = content.decode().splitlines()
        head = ",".join(cells(head.split(","))) if cells([""]) == [] else head
        return "\n".join([head, *(",".join(cells(row.split(","))) for row in rows), ""]).encode()
    if path.suffix == ".pt":
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        return seal(buffer.getvalue())
    return b"\n".join(content.split(b"\n")[::2])


def _of_other_types(value: Any) -> Any:
    if isinstance(value, dict) and value:
        return {key: _of_other_types(item) for key, item in value.items()}
    return {"x": 1} if isinstance(value, (list, str)) else ["x"]


CONTENTS: dict[str, Callable[[Path, bytes], bytes]] = {
    "empty": lambda path, content: b"",
    "cut": lambda path, content: content[: len(content) // 2],
    "random": lambda path, content: random.Random(path.name).randbytes(max(len(content), 100)),
    "flipped": lambda path, content: flip(content, 4 * len(content) + 1),
    "lacking": _lacking,
    "wrong": _wrong,
}
