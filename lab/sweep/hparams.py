"""What TensorBoard's HPARAMS tab shows of an Experiment: what is swept, instead of the whole spec."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

METRICS = ("progress/return", "evaluation/return")  # tags under which every Session writes its results


def write_hparams(folder: Path, keys: Sequence[str], spec: dict[str, Any]) -> None:
    """Write, once, which hyperparameters the tab is to show.

    Args:
        folder: the directory of the Experiment, above those of its Sessions.
        keys: what is swept; a config group stands for its name.
        spec: that of a Session, flat, by dotted keys.
    """
    if any(folder.glob("events.out.tfevents.*")):
        return
    named = [name for key in keys for name in leaves_of(key, spec)]
    experiment = api_pb2.Experiment(
        hparam_infos=[api_pb2.HParamInfo(name=key, type=kind(spec[key])) for key in (*named, "seed") if key in spec],
        metric_infos=[api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in METRICS],
    )
    content = plugin_data_pb2.HParamsPluginData(experiment=experiment, version=metadata.PLUGIN_DATA_VERSION)
    about = SummaryMetadata(
        plugin_data=SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=content.SerializeToString())
    )
    value = Summary.Value(tag=metadata.EXPERIMENT_TAG, metadata=about, tensor=metadata.NULL_TENSOR)
    writer = EventFileWriter(str(folder))
    writer.add_event(Event(summary=Summary(value=[value])))
    writer.close()


def leaves_of(key: str, spec: dict[str, Any]) -> list[str]:
    """Return the keys of a flat spec that a swept key stands for: itself, the name of a config group, or all in it."""
    if key in spec or f"{key}.name" in spec:
        return [key if key in spec else f"{key}.name"]
    return [leaf for leaf in spec if leaf.startswith(f"{key}.")]


def kind(value: Any) -> Any:
    """Return the type of a hyperparameter, in TensorBoard's words."""
    if isinstance(value, bool):
        return api_pb2.DATA_TYPE_BOOL
    return api_pb2.DATA_TYPE_FLOAT64 if isinstance(value, (int, float)) else api_pb2.DATA_TYPE_STRING
