"""The agent of another run that a Session starts from (`init_from`): its checkpoint, and the digest of its weights."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.run.exported import find_best


def find_parent(text: str) -> dict[str, str]:
    """Return the `file` of a checkpoint and the digest of its `weights`, of which only tensors are read.

    Args:
        text: a run directory, which stands for the best checkpoint of its best Session by evaluation, or the file of a
            checkpoint.

    Raises:
        LabError: there is no such agent.
    """
    file = Path(text).absolute()
    if file.suffix != ".pt":
        try:
            file = find_best(file).checkpoint("best")
        except LabError as error:
            raise LabError(f"init_from={text} cannot be used: {error}") from error
    return {"file": str(file), "weights": digest(file)}


def require_parent(recorded: dict[str, str], moved: str | None = None) -> dict[str, str]:
    """Return the `init_from` of a spec with the full path of its file, or of the file that was moved elsewhere.

    Raises:
        LabError: the file is not there, or holds other weights than it did.
    """
    file = Path(moved or recorded["file"]).absolute()
    if not file.exists():
        raise LabError(f"init_from.file={file} is not there: if that run has moved, say where it is, as init_from=DIR.")
    found = digest(file)
    if found != recorded["weights"]:
        raise LabError(
            f"init_from.file={file} holds other weights than it did: their digest is {found}, and init_from.weights is"
            f" {recorded['weights']}."
        )
    return {**recorded, "file": str(file)}


def digest(file: Path) -> str:
    """Return the digest of the weights in a checkpoint; raise LabError if it cannot be read."""
    try:
        facts = file.stat()
    except OSError as error:
        raise LabError(f"init_from.file={file} cannot be read: {error.strerror}.") from error
    return _digest(file, facts.st_mtime_ns, facts.st_size)


@cache
def _digest(file: Path, *_: int) -> str:
    from lab.run.tensor_files import digest_weights

    return digest_weights(read_parent(file)["parameters"])


def read_parent(file: Path) -> dict[str, Any]:
    """Read a checkpoint; raise LabError if it holds no weights."""
    import torch

    from lab.run.tensor_files import read

    state = read(file)
    if not all(isinstance(value, torch.Tensor) for value in state["parameters"].values()):
        raise LabError(f"{file} is damaged: its parameters are no tensors.")
    return state
