"""Films of episodes, written picture by picture, so that an episode may be of any length."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lab.common.conf import install_command
from lab.errors import LabError

PALETTES = "split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1"  # one for each picture
GIF_PARAMS = ["-filter_complex", PALETTES, "-loop", "0"]
FORMATS: dict[str, dict[str, Any]] = {
    ".mp4": {"macro_block_size": 2},
    ".gif": {"codec": "gif", "pix_fmt_out": "pal8", "macro_block_size": 1, "output_params": GIF_PARAMS},
}  # options of ffmpeg, by suffix


@contextmanager
def film(path: Path, frames_per_second: float) -> Iterator[Callable[[Any], None]]:
    """Yield a function that adds a picture [H, W, 3] of bytes to a film, which appears at its path once it is whole.

    Raises:
        LabError: a package is not installed, or a picture is none, or not of the size of the first.
    """
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise LabError(f"Films need packages that are not installed: {install_command('video')}") from error
    aside = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}{path.suffix}")
    shape: tuple[int, ...] = ()
    writer: Any = None

    def add(picture: Any) -> None:
        nonlocal shape, writer
        array = np.asarray(picture)
        if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
            what = "None" if picture is None else f"an array of {array.dtype} of shape {array.shape}"
            raise LabError(f"The environment cannot be filmed: render returned {what}, not a picture in bytes.")
        if writer is None:
            shape, size = array.shape, (array.shape[1], array.shape[0])
            writer = imageio_ffmpeg.write_frames(str(aside), size, fps=frames_per_second, **FORMATS[path.suffix])
            writer.send(None)
        if array.shape != shape:
            raise LabError(f"The environment cannot be filmed: a picture is of {array.shape}, the first of {shape}.")
        writer.send(np.ascontiguousarray(array))

    try:
        yield add
        if writer is not None:
            writer.close()
            with aside.open("rb+") as file:
                os.fsync(file.fileno())
            aside.replace(path)
    finally:
        if writer is not None:
            writer.close()
        aside.unlink(missing_ok=True)
