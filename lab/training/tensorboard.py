"""TensorBoard events of one Session: scalars, histograms and hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from lab.common.text import flatten, format_value
from lab.run.directory import RunDir
from lab.training.tags import HISTOGRAMS, HPARAM_METRICS, tag

if TYPE_CHECKING:
    from torch import Tensor

    from lab.spec import Spec
    from lab.training.agent import Agent


class TensorBoard:
    """Writes the events of a Session into its run directory."""

    def __init__(self, spec: Spec, directory: RunDir, first_frame: int | None) -> None:
        """Open the file; events of earlier processes from `first_frame` on are hidden."""
        self._spec = spec
        self._writer: Any = SummaryWriter(str(directory.path), purge_step=first_frame)

    def add_row(self, row: Mapping[str, Any], frames_per_second: float) -> None:
        """Write a row of metrics."""
        frame = row["frame"]
        for name, value in {**row, "frames_per_second": frames_per_second}.items():
            if value is not None and name != "frame":
                self._writer.add_scalar(tag(name, self._spec.env.metrics), value, frame)
        if self._spec.mode == "dev":
            self.flush()

    def add_histograms(self, agent: Agent, index: int, actions: Tensor | None, frame: int) -> None:
        """Write histograms of one Session's weights and, if given, of its actions [T, E, ...] and gradients."""
        for name, value in agent.algorithm.weights(index).items():
            kind = "bias" if name.endswith("bias") else "weight"
            self._writer.add_histogram(f"{HISTOGRAMS}/{kind}/{name}", value, frame)
        if actions is None:
            return
        for name, value in agent.algorithm.gradients(index).items():
            self._writer.add_histogram(f"{HISTOGRAMS}/gradient/{name}", value, frame)
        columns = actions.reshape(-1, 1 if actions.ndim == 2 else actions.shape[-1]).cpu().numpy()
        for column in range(columns.shape[1]):
            self._writer.add_histogram(f"{HISTOGRAMS}/action/{column}", columns[:, column], frame)

    def flush(self) -> None:
        """Write buffered events to the disk."""
        self._writer.flush()

    def close(self) -> None:
        """Write the hyperparameters and close the file."""
        values = {
            key: value if isinstance(value, (bool, int, float, str)) else format_value(value)
            for key, value in flatten(self._spec.to_dict()).items()
        }
        # Written here because SummaryWriter.add_hparams makes a directory of its own. The first summary describes the
        # columns of the table; the Experiment writes it.
        for summary in hparams(values, dict.fromkeys(map(tag, HPARAM_METRICS)))[1:]:
            self._writer.file_writer.add_summary(summary)
        self._writer.close()
