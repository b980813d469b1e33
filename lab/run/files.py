"""Files of run directories: written so that readers never see half of one, and read so that damage is a sentence."""

from __future__ import annotations

import json
import math
import os
import re
import uuid
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.errors import LabError

CHECKSUM = "checksum"  # last key of a sealed JSON file, and in the comment that ends a sealed YAML file
ASIDE = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{12}\.tmp")  # a file that is being written, with its final name
NOUNS = {
    bool: "true or false", int: "a whole number", float: "a number", str: "a text", dict: "a group of keys",
    list: "a list", type(None): "null",
}  # fmt: skip

# What a file may hold: a type, or several as in `int | None`; a tuple of allowed values; [shape] for a list; or a dict
# of shapes by key, in which "*" stands for every key that is not named. Missing keys fit any shape.
Shape = Any


class OrNull(dict[str, Shape]):
    """The shape of a group of keys that may be null."""


class Document(dict[str, Any]):
    """What a file holds, by key; asking for a missing key is a LabError that names the file."""

    def __init__(self, values: Mapping[str, Any], path: Path, prefix: str = "") -> None:
        super().__init__({key: _wrap(value, path, f"{prefix}{key}.") for key, value in values.items()})
        self.path, self.prefix = path, prefix

    def __missing__(self, key: str) -> Any:
        raise LabError(f"{self.path} is damaged: it lacks {self.prefix}{key}.")

    def empty(self) -> Document:
        """Return an empty document of the same file."""
        return Document({}, self.path, self.prefix)

    def __reduce__(self) -> tuple[Any, ...]:
        return Document, (dict(self), self.path, self.prefix)


def _wrap(value: Any, path: Path, prefix: str) -> Any:
    if isinstance(value, dict):
        return Document(value, path, prefix)
    return [_wrap(item, path, prefix) for item in value] if isinstance(value, list) else value


def plain(value: Any) -> Any:
    """Return the same values without the file that they were read from."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def make_ignored_folder(path: Path) -> None:
    """Make a folder for output that git ignores; one that is there already stays as it is."""
    if not path.is_dir():
        path.mkdir(parents=True)
        (path / ".gitignore").write_text("*\n")


def write_atomically(path: Path, content: bytes, private: bool = False) -> None:
    """Write a file aside, flush it to disk and rename it, so that a reader sees the old content or the new one.

    `private` forbids others to read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with aside.open("xb") as file:
            if private:
                os.fchmod(file.fileno(), 0o600)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def no_follow(path: str, flags: int) -> int:
    """Open a file, but not through a symbolic link; an opener for `open`."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def rename_existing(path: Path, content: bytes) -> Path | None:
    """Append a number to the name of a file with other content; return the new name, or None if nothing is there."""
    if not os.path.lexists(path) or (path.is_file() and path.read_bytes() == content):
        return None
    number = 1
    while os.path.lexists(renamed := path.with_name(f"{path.stem}-{number}{path.suffix}")):
        number += 1
    path.rename(renamed)
    return renamed


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8; undecodable bytes of file names are escaped."""
    write_atomically(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically; numbers that are not finite become null."""
    write_text(path, _dump(_finite(content)))


def write_sealed_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically, with a checksum from which `read_json` detects changes."""
    write_text(path, sealed_json(content))


def sealed_json(content: Mapping[str, Any]) -> str:
    """Return what `write_sealed_json` writes."""
    values = json.loads(json.dumps(_finite(content), allow_nan=False))  # without indent, which is not written in C
    return _dump({**values, CHECKSUM: _json_checksum(values)})


def write_sealed_yaml(path: Path, text: str) -> None:
    """Write YAML atomically, ended by a comment from which `read_yaml` detects changes."""
    write_text(path, f"{text.rstrip()}\n# {CHECKSUM}: {_checksum(text.rstrip())}\n")


def read_json(path: Path, shape: Shape = dict) -> Document:
    """Read a JSON file of a shape.

    Raises:
        LabError: it is missing, cannot be read, was changed since it was sealed, or has another shape.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LabError(f"{path} does not exist: is {path.parent} a run directory?") from error
    except (OSError, ValueError, RecursionError) as error:
        raise LabError(f"{path} cannot be read: {error}.") from error
    require_shape(content, dict, path)
    checksum = content.pop(CHECKSUM, None)
    if checksum not in (None, _json_checksum(content)):
        raise LabError(f"{path} is damaged: its checksum does not fit.")
    require_shape(content, shape, path)
    return Document(content, path)


def read_yaml(path: Path, shape: Shape = dict) -> Document:
    """Read a YAML file of a shape.

    Raises:
        FileNotFoundError: there is no such file.
        LabError: it cannot be read, was changed since it was sealed, or has another shape.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise LabError(f"{path} cannot be read: {' '.join(str(error).split())}.") from error
    return parse_yaml(text, path, shape)


def parse_yaml(text: str, path: Path, shape: Shape = dict) -> Document:
    """Return what the text of a YAML file holds.

    Raises:
        LabError: it cannot be read, was changed since it was sealed, or has another shape.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where it is installed
    try:
        content = yaml.load(text, loader)  # noqa: S506 - a safe loader
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise LabError(f"{path} cannot be read: {' '.join(str(error).split())}.") from error
    seal = re.search(rf"\n# {CHECKSUM}: (.*)\s*\Z", text)
    if seal and seal[1] != _checksum(text[: seal.start()]):
        raise LabError(f"{path} is damaged: its checksum does not fit.")
    require_shape(content, dict, path)
    require_shape(content, shape, path)
    return Document(content, path)


def require_shape(value: Any, shape: Shape, path: Path, key: str = "") -> None:
    """Raise LabError, with the file and the key, unless a value that a file holds has a shape."""
    kinds = getattr(shape, "__args__", (shape,))
    if isinstance(shape, OrNull) and value is None:
        return
    if isinstance(shape, dict):
        require_shape(value, dict, path, key)
        for name, item in value.items():
            if name in shape or "*" in shape:
                require_shape(item, shape.get(name, shape.get("*")), path, f"{key}.{name}".lstrip("."))
    elif isinstance(shape, list):
        require_shape(value, list, path, key)
        for item in value:
            require_shape(item, shape[0], path, key)
    elif isinstance(shape, tuple):
        if value not in shape:
            _refuse(value, f"one of {', '.join(shape)}", path, key)
    elif not any(_is_a(value, kind) for kind in kinds):
        _refuse(value, " or ".join(NOUNS[kind] for kind in kinds), path, key)


def _is_a(value: Any, kind: type[Any]) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _refuse(value: Any, allowed: str, path: Path, key: str) -> None:
    text = json.dumps(value, default=str)
    short = text if len(text) <= 40 else f"{text[:40]}..."
    raise LabError(f"{path} is damaged: {key or 'what it holds'} must be {allowed}, and is {short}.")


def _dump(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _json_checksum(content: Mapping[str, Any]) -> str:
    return _checksum(json.dumps(content, sort_keys=True, ensure_ascii=True))


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode(errors='surrogatepass')):08x}"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
