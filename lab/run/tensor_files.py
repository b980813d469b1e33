"""Files of tensors and plain data, written atomically with a checksum."""

from __future__ import annotations

import hashlib
import io
import pickle
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lab.errors import LabError
from lab.run.files import Document, require_shape, write_atomically
from lab.run.schemas import CHECKPOINT


def write(path: Path, state: dict[str, Any]) -> None:
    """Write a file of tensors atomically, with a checksum."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, seal(buffer.getvalue()))


def read(path: Path) -> dict[str, Any]:
    """Read a file of tensors, such as a checkpoint.

    Raises:
        LabError: it is missing, cannot be read or is damaged.
    """
    try:
        return load(path)
    except OSError as error:
        raise LabError(f"{path} cannot be read: {error.strerror}. Has the Session reached a checkpoint?") from error


def load(path: Path) -> dict[str, Any]:
    """Read a file of tensors; other than `read`, raise OSError if that is not possible now."""
    content = unseal(path.read_bytes(), path)
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # whose message says how to run what the file holds
        raise LabError(f"{path} is damaged: it holds something else than tensors and plain data.") from error
    except Exception as error:  # of zip, which raises what it likes
        raise LabError(f"{path} is damaged: {' '.join(str(error).split())[:200]}.") from error
    require_shape(state, CHECKPOINT, path)
    document = Document({}, path)
    document.update(state)  # as it is: parts of it go into the next checkpoint
    return document


def digest_weights(parameters: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of tensors with their names, types and shapes: equal if and only if all bits are."""
    digest = hashlib.sha256()
    for name in sorted(parameters):
        value = parameters[name]
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def seal(content: bytes) -> bytes:
    """Append a checksum from which `unseal` detects damage."""
    return content + zlib.crc32(content).to_bytes(4, "big")


def unseal(content: bytes, path: Path) -> bytes:
    """Return the content that was sealed.

    Raises:
        LabError: the checksum does not fit.
    """
    body, checksum = content[:-4], content[-4:]
    if len(checksum) < 4 or zlib.crc32(body).to_bytes(4, "big") != checksum:
        raise LabError(f"{path} is damaged: its checksum does not fit its content.")
    return body
