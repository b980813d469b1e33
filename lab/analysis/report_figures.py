"""Plotly figures of report.html, as plain data: learning curves, hyperparameters against objectives, and importance.

The page's script colors chosen Trials. Curves are thinned 32-bit floats, and frames that curves share are stored once,
so that 1,000 Sessions take a few MB.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lab.analysis.across import Across
from lab.analysis.experiment import Experiment
from lab.analysis.plotting import PALETTE, rank_color
from lab.analysis.scale import Scale, needs_log_scale
from lab.analysis.session import Session
from lab.analysis.statistics import interval
from lab.analysis.text import importance_caveat, short_names
from lab.analysis.trial import Trial, common_reference
from lab.run.schemas import add_evaluation

MAX_POINTS = 80  # of a curve
COLUMNS = ("return", "eval_return", "entropy")  # of metrics.csv with curves, besides the losses
GRAY, FAILED = "#7f8b96", "#d55e00"
FEW_POINTS = 5  # points of a curve up to which each is marked
POWERS = {"exponentformat": "power", "minexponent": 5}  # ticks as 10^-4
THOUSANDS = {"exponentformat": "SI", "minexponent": 3}  # those of frames as 100k
PANELS_ACROSS = 4  # curves of a Trial side by side

Json = dict[str, Any]


def figure_data(experiment: Experiment) -> Json:
    """Return all figures of an Experiment as data that JSON can hold."""
    return _Figures(experiment).data()


class _Figures:
    """Figures of an Experiment, and the frames that their curves share."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        sessions = [session for trial in experiment.trials for session in trial.sessions]
        tables = [session.tables for session in sessions if session.tables]
        logged = dict.fromkeys(str(column) for table in tables for column in table.metrics)
        # The entropy loss is the entropy with another weight and sign.
        losses = [column for column in logged if column.endswith("_loss") and column != "entropy_loss"]
        own = add_evaluation(dict.fromkeys(name for table in tables for name in table.env_metrics))
        self.columns = [column for column in (*COLUMNS, *own, *losses) if any(len(t.curve(column)[0]) for t in tables)]
        several = len(experiment.by_environment) > 1
        self.parts = {f" in {name}" if several else "": part for name, part in experiment.by_environment.items()}
        self.names = short_names(experiment.hyperparameters)
        self.frames: dict[str, int] = {}

    def data(self) -> Json:
        metrics = self.experiment.objective.metrics
        places = {trial.number: 0 for trial in self.experiment.trials}
        for part in self.parts.values():
            places |= {trial.number: place for place, trial in enumerate(_ordered(part))}
        return {
            "columns": {
                f"{column}{where}": self._curves(column, part)
                for column in self.columns
                for where, part in self.parts.items()
            },
            "views": [f"{metric}{where}" for where in self.parts for metric in metrics],
            "panels": [self._panels(part, index) for part in self.parts.values() for index in range(len(metrics))],
            "trials": {
                str(trial.number): self._trial_curves(trial, rank_color(places[trial.number]))
                for trial in self.experiment.trials
            },
            "trialLayout": self._trial_layout(),
            "template": _template(),
            "colors": {str(number): rank_color(place) for number, place in places.items()},
            "dashes": {str(number): _dash(place) for number, place in places.items()},
            "frames": [{"dtype": "i4", "bdata": data} for data in self.frames],  # last, as the figures add to it
        }

    def _line(self, frames: np.ndarray, values: np.ndarray, trial: Trial, kind: str, **options: Any) -> Json:
        """Return a trace whose x is an index into `frames`; `meta` tells the script which Trial it belongs to."""
        x = self.frames.setdefault(_encode(frames, "i4")["bdata"], len(self.frames))
        mode = "lines+markers" if kind != "band" and len(frames) <= FEW_POINTS else "lines"
        meta = {"trial": trial.number, "kind": kind}
        return {"type": "scatter", "mode": mode, "meta": meta, "x": x, "y": _encode(values, "f4"), **options}

    def _curves(self, column: str, experiment: Experiment) -> Json:
        """Return the mean of each Trial with its interval, or the Sessions of a Trial none of which completed."""
        traces, drawn = [], [np.empty(0)]
        reference = common_reference([session for trial in experiment.trials for session in trial.sessions])
        for trial in _ordered(experiment):
            name = escape(trial.name)
            frames, values = _thin(*trial.curve(column))
            if len(frames):
                if len(values) > 1:
                    low, high = interval(values, "mean")
                    edge, around = np.concatenate([low, high[::-1]]), np.concatenate([frames, frames[::-1]])
                    style = {"fill": "toself", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
                    traces.append(self._line(around, edge, trial, "band", legendgroup=name, **style))
                traces.append(self._line(frames, values.mean(axis=0), trial, "mean", name=name, legendgroup=name))
                drawn.append(values.ravel())
                continue
            for session in trial.sessions:
                frames, values = _session_curve(session, column)
                if len(frames):
                    label = f"{name}, seed {session.seed}, {session.state}"
                    traces.append(self._line(frames, values, trial, "session", name=label, legendgroup=name))
                    drawn.append(values)
        everything = np.concatenate(drawn)
        log = column.endswith("_loss") and len(everything) and needs_log_scale(everything.min(), everything.max())
        axis = {"title": {"text": escape(column)}, "type": "log" if log else "linear"}
        frame_axis = {"title": {"text": "frames"}, "rangemode": "tozero", **THOUSANDS}
        figure = go.Figure(layout=go.Layout(xaxis=frame_axis, yaxis=axis))
        if "return" in column and len(everything):
            low, high = everything.min(), everything.max()
            for key, label, dash in (("solved", "solved", "dash"), ("random_return", "random actions", "dot")):
                value = reference.get(key)
                if value is None:
                    continue
                text = f"{label} ({value:.4g})"
                if low - (high - low) <= value <= high + (high - low):
                    line, side = {"color": GRAY, "dash": dash, "width": 1}, "left" if key == "solved" else "right"
                    figure.add_hline(value, line=line, annotation_text=text, annotation_position=f"top {side}")
                else:  # a line would squash the curves
                    above = value > high
                    place: Json = {"xref": "paper", "yref": "paper", "x": 0, "y": 1 if above else 0, "showarrow": False}
                    figure.add_annotation(text=f"{text} lies {'above' if above else 'below'}", **place)
        return {"data": traces, "layout": _plain(figure)["layout"]}

    def _trial_curves(self, trial: Trial, color: str) -> list[Json]:
        """Return curves of each Session of a Trial and their mean, for the axes of `_trial_layout`."""
        traces: list[Json] = []
        for index, column in enumerate(self.columns):
            axes = {"xaxis": f"x{index + 1}", "yaxis": f"y{index + 1}", "showlegend": not index}
            for session in trial.sessions:
                frames, values = _session_curve(session, column)
                if not len(frames):
                    continue
                name, line = f"seed {session.seed}", {"color": GRAY, "width": 1}
                if session.state != "completed":
                    shade = FAILED if session.state == "failed" else GRAY
                    name, line = f"{name}, {session.state}", {"color": shade, "width": 1, "dash": "dash"}
                options = {"name": name, "legendgroup": name, "line": line}
                traces.append(self._line(frames, values, trial, "session", **options, **axes))
            frames, values = _thin(*trial.curve(column))
            if len(frames) and len(values) > 1:
                options = {"name": "mean", "legendgroup": "mean", "line": {"color": color, "width": 2}}
                traces.append(self._line(frames, values.mean(axis=0), trial, "mean", **options, **axes))
        return traces

    def _trial_layout(self) -> Json:
        if not self.columns:
            return {}
        rows = -(-len(self.columns) // PANELS_ACROSS)
        columns = min(PANELS_ACROSS, len(self.columns))
        figure = make_subplots(rows, columns, subplot_titles=_texts(self.columns), vertical_spacing=0.24 / rows)
        figure.update_layout(height=60 + 200 * rows, margin={"t": 26})
        figure.update_annotations(font={"size": 12})
        figure.update_xaxes(**THOUSANDS)
        layout: Json = _plain(figure)["layout"]
        return layout

    def _panels(self, experiment: Experiment, index: int) -> list[Json]:
        """Return the panels of an objective: against the other objectives, importance, against hyperparameters."""
        metrics, ranking = experiment.objective.metrics, experiment.ranking
        columns = [(name, [ranked.values[i] for ranked in ranking]) for i, name in enumerate(metrics)]
        panels = [
            self._panel(experiment, index, name, Scale(np.array(column)))
            for i, (name, column) in enumerate(columns)
            if i != index
        ]
        if not ranking:
            return []
        keys = sorted(experiment.hyperparameters, key=lambda key: -experiment.importance.get(key, 0.0))
        if experiment.importance:
            names, values = zip(*reversed(experiment.importance.items()), strict=True)
            bars = go.Figure(
                go.Bar(x=values, y=_texts(self.names[name] for name in names), orientation="h", marker={"color": GRAY})
            )
            caveat = importance_caveat(len(ranking))
            title = f"Importance for {metrics[0]}{f',<br>{caveat}' if caveat else ''}"
            bars.update_layout(title=title, xaxis={"tickformat": ".0%"}, margin={"t": 50 if caveat else 34})
            panels.append(_plain(bars))
        trials = _ordered(experiment)
        scales = {key: Scale.of([trial.value(key) for trial in trials], experiment.space(key)) for key in keys}
        return panels + [self._panel(experiment, index, key, scale) for key, scale in scales.items()]

    def _panel(self, experiment: Experiment, index: int, key: str, scale: Scale) -> Json:
        """Return the objective with this index against a scale of all Trials, or of the ranked ones only."""
        values = np.array([ranked.values[index] for ranked in experiment.ranking])
        ends = np.array([ranked.ends(index) for ranked in experiment.ranking]).reshape(-1, 2)
        n, metric = len(values), experiment.objective.metrics[index]
        goodness = np.append(values * experiment.objective.signs[index], np.full(len(scale.positions) - n, -np.inf))
        x = scale.spread(goodness)
        numbers = [ranked.trial.number for ranked in experiment.ranking]
        figure = go.Figure()
        figure.add_scatter(
            x=x[:n], y=values, customdata=numbers, mode="markers",
            error_y={"array": ends[:, 1] - values, "arrayminus": values - ends[:, 0], "thickness": 1, "width": 0},
            hovertemplate=f"trial-%{{customdata:03d}}: {escape(metric)} %{{y}}<extra></extra>",
        )  # fmt: skip
        unranked = [trial for trial, _ in experiment.unranked]
        if len(x) > n and n:
            bottom = ends.min() - 0.1 * (np.ptp(ends) or 1.0)
            reasons = [f"{trial.name} is not ranked: {escape(reason)}" for trial, reason in experiment.unranked]
            figure.add_scatter(
                x=x[n:], y=np.full(len(unranked), bottom), customdata=[trial.number for trial in unranked],
                mode="markers", marker={"symbol": "x-thin-open"}, hovertext=reasons, hoverinfo="text",
            )  # fmt: skip
        axis: Json = {"title": {"text": escape(self.names.get(key, key))}}
        if scale.labels:
            axis |= {"tickvals": list(scale.named), "ticktext": _texts(scale.named.values())}
        figure.update_layout(xaxis=axis, yaxis={"title": {"text": metric}}, showlegend=False, height=240)
        figure.update_xaxes(type="log" if n and scale.log else "linear")
        return _plain(figure)


def profile_figure(across: Across) -> Json:
    """Return the performance profile of the best settings: the fraction of Sessions that score above a threshold."""
    figure = go.Figure()
    for place, setting in enumerate(across.ranking[: len(PALETTE)]):
        thresholds, value, low, high = across.profile(setting)
        color, name = rank_color(place), escape(setting.name)
        options: Json = {"legendgroup": name, "mode": "lines"}
        if np.isfinite(low).all():
            x, y = np.concatenate([thresholds, thresholds[::-1]]), np.concatenate([low, high[::-1]])
            band: Json = {"fill": "toself", "fillcolor": f"{color}26", "line": {"width": 0}, "hoverinfo": "skip"}
            figure.add_scatter(x=x.tolist(), y=y.tolist(), showlegend=False, **band, **options)
        line = {"color": color, "width": 2}
        figure.add_scatter(x=thresholds.tolist(), y=value.tolist(), name=name, line=line, showlegend=True, **options)
    figure.update_layout(
        xaxis={"title": {"text": "normalized score"}}, height=320,
        yaxis={"title": {"text": "Sessions above"}, "tickformat": ".0%", "range": [0, 1.02]},
    )  # fmt: skip
    return _plain(figure)


def _ordered(experiment: Experiment) -> list[Trial]:
    """Return the Trials, the ranked ones first."""
    return [ranked.trial for ranked in experiment.ranking] + [trial for trial, _ in experiment.unranked]


def _session_curve(session: Session, column: str) -> tuple[np.ndarray, np.ndarray]:
    return _thin(*session.tables.curve(column)) if session.tables else (np.empty(0), np.empty(0))


def _thin(frames: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(frames) > MAX_POINTS:
        places = np.linspace(0, len(frames) - 1, MAX_POINTS).round().astype(int)  # keeps the first and the last
        return frames[places], values[..., places]
    return frames, values


def _encode(values: np.ndarray, dtype: str) -> dict[str, str]:
    """Return an array as Plotly reads it from JSON."""
    return {"dtype": dtype, "bdata": base64.b64encode(values.astype(f"<{dtype}").tobytes()).decode()}


def _texts(values: Iterable[str]) -> list[str]:
    return [escape(value) for value in values]  # Plotly reads some HTML


def _dash(place: int) -> str:
    """Return the dashes of a Trial's curve, which tell those of equal color apart."""
    return ("solid", "dot", "dashdot")[place // len(PALETTE) % 3]


def _plain(figure: go.Figure) -> Json:
    figure.layout.template = None
    return {key: value for key, value in figure.to_dict().items() if key in ("data", "layout")}


def _template() -> Json:
    """Return the style of all figures, legible on a light and on a dark page."""
    axis = {"gridcolor": "rgba(127,139,150,.25)", "zeroline": False, "automargin": True, "ticks": "outside", **POWERS}
    layout = go.Layout(
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font={"color": GRAY, "size": 12}, height=380,
        margin={"l": 50, "r": 10, "t": 34, "b": 40}, hovermode="closest", xaxis=axis, yaxis=axis,
        title={"font": {"size": 13}}, modebar={"bgcolor": "rgba(0,0,0,0)", "color": GRAY},
    )  # fmt: skip
    return {"layout": layout.to_plotly_json()}
