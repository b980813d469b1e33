"""TensorBoard's HPARAMS tab of an Experiment, limited to the swept hyperparameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from lab.sweep.plan import ALIASES
from lab.training.tags import HPARAM_METRICS, tag


def write_hparams(folder: Path, keys: Sequence[str], spec: dict[str, Any]) -> None:
    """Write once which hyperparameters the tab shows.

    Args:
        folder: directory of the Experiment.
        keys: the swept keys; a config group stands for its name.
        spec: of a Session, flat, by dotted keys.
    """
    if any(folder.glob("events.out.tfevents.*")):
        return
    names = [name for key in keys for name in _leaves(key, spec)]
    experiment = api_pb2.Experiment(
        hparam_infos=[api_pb2.HParamInfo(name=key, type=_type(spec[key])) for key in (*names, "seed") if key in spec],
        metric_infos=[api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag(name))) for name in HPARAM_METRICS],
    )
    content = plugin_data_pb2.HParamsPluginData(experiment=experiment, version=metadata.PLUGIN_DATA_VERSION)
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=content.SerializeToString())
    value = Summary.Value(
        tag=metadata.EXPERIMENT_TAG, metadata=SummaryMetadata(plugin_data=plugin), tensor=metadata.NULL_TENSOR
    )
    writer = EventFileWriter(str(folder))
    writer.add_event(Event(summary=Summary(value=[value])))
    writer.close()


def _leaves(key: str, spec: dict[str, Any]) -> list[str]:
    """Return the keys of a flat spec for a swept key: itself, the name of a config group, or all keys below it."""
    exact = [name for name in (key, ALIASES.get(key), f"{key}.name") if name in spec][:1]
    return exact or [leaf for leaf in spec if leaf.startswith(f"{key}.")]


def _type(value: Any) -> Any:
    if isinstance(value, bool):
        return api_pb2.DATA_TYPE_BOOL
    return api_pb2.DATA_TYPE_FLOAT64 if isinstance(value, (int, float)) else api_pb2.DATA_TYPE_STRING
