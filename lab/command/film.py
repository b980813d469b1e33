"""Films of episodes, written picture by picture, so that an episode may be as long as it likes."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from lab.errors import LabError

PALETTES = "split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1"  # one for each picture
KINDS: dict[str, dict[str, Any]] = {
    ".mp4": {"macro_block_size": 2},
    ".gif": {
        "codec": "gif",
        "pix_fmt_out": "pal8",
        "macro_block_size": 1,
        "output_params": ["-filter_complex", PALETTES, "-loop", "0"],
    },
}  # options of ffmpeg, by the suffix of a film


class Film:
    """A film that is written aside, and is there under its name once it is whole: at the end of its context."""

    def __init__(self, path: Path, frames_per_second: float) -> None:
        """Begin a film.

        Args:
            path: where it is to be; its suffix is among KINDS.
            frames_per_second: pictures a second.

        Raises:
            LabError: the package for it is not installed.
        """
        try:
            import imageio_ffmpeg  # noqa: F401
        except ImportError as error:
            raise LabError("Films need packages that are not installed: pip install 'lab-rl[video]'") from error
        self.path, self.frames_per_second = path, frames_per_second
        self._aside = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}{path.suffix}")
        self._shape: tuple[int, ...] = ()
        self._writer: Any = None

    def add(self, picture: Any) -> None:
        """Add a picture [H, W, 3] of bytes.

        Raises:
            LabError: it is none, or of another size than the first.
        """
        array = np.asarray(picture)
        if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
            what = "None" if picture is None else f"an array of {array.dtype} of shape {array.shape}"
            raise LabError(f"The environment cannot be filmed: render returned {what}, not a picture in bytes.")
        if self._writer is None:
            self._shape, self._writer = array.shape, self._start(array.shape)
        if array.shape != self._shape:
            raise LabError(
                f"The environment cannot be filmed: a picture is of {array.shape}, the first of {self._shape}."
            )
        self._writer.send(np.ascontiguousarray(array))

    def _start(self, shape: tuple[int, ...]) -> Any:
        import imageio_ffmpeg

        size, options = (shape[1], shape[0]), KINDS[self.path.suffix]
        writer = imageio_ffmpeg.write_frames(str(self._aside), size, fps=self.frames_per_second, **options)
        writer.send(None)
        return writer

    def __enter__(self) -> Film:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
                if error is None:
                    with self._aside.open("rb+") as file:
                        os.fsync(file.fileno())
                    self._aside.replace(self.path)
        finally:
            self._aside.unlink(missing_ok=True)
