"""Tables of published results, and sentences on what they do not show."""

from __future__ import annotations

from typing import Any

import pandas as pd

from lab.analysis.published import MARK, NO_ESTIMATE, OVERLAP, UNRECORDED, Publication, Result
from lab.analysis.statistics import Estimate
from lab.analysis.text import display_name
from lab.analysis.trial import describe_unfinished
from lab.common.text import format_duration, format_interval, format_number
from lab.run.schemas import METRICS

MEANS = ("best", "eval_return", "strength", "frames_to_solve")  # metrics with only their mean in results.json
SYMBOLS = {"better": "▲", "even": "=", "worse": "▼"}  # by verdict


def results_json(publication: Publication) -> dict[str, Any]:
    """Return the content of results.json: metrics by environment and algorithm; deterministic."""
    results: dict[str, Any] = {}
    for result in publication.ordered():
        results.setdefault(result.env, {})[result.key] = _row(result)
    return results


def results_csv(publication: Publication) -> str:
    """Return the content of results.csv: a row for each Trial, with all of its metrics."""
    rows = []
    for result in publication.ordered():
        names = {"env": result.env, "algo": result.algo, "variant": result.variant}
        row = {**names, "env_id": result.trial.environment, **_row(result)}
        for name in METRICS:
            if name != "frames":  # in a row, the planned frames
                row |= _flat_estimate(name, result.metrics.get(name), "mean")
        spec = result.trial.spec
        rows.append(
            {
                **row, "seconds": result.seconds, "settings": spec.get("tuning.source"),
                "tuned_on": " ".join(map(str, result.tuned_on)), "directory": result.trial.directory.path.name,
            }
        )  # fmt: skip
    return pd.DataFrame(rows, dtype=object).to_csv(index=False)


def _row(result: Result) -> dict[str, Any]:
    """Return the plain values of a result in results.json."""
    peer, solved = result.peer, result.metrics.get("frames_to_solve")
    return {
        "frames": result.frames,
        "sessions": len(result.trial.completed),
        "planned": len(result.trial.sessions),
        **_flat_estimate("return", result.metrics.get("return"), "mean"),
        **_flat_estimate("iqm", result.metrics.get("return"), "iqm"),
        **{name: _flat_estimate(name, result.metrics.get(name), "mean")[name] for name in MEANS},
        "solved": solved["n"] if solved else 0,
        "peer": peer.value if peer else None,
        "peer_frames": peer.frames if peer else None,
        "peer_name": peer.name if peer else None,
        "peer_metric": peer.metric if peer else None,
        "difference": result.difference,
        "verdict": result.verdict,
    }


def _flat_estimate(name: str, summary: dict[str, Any] | None, statistic: str) -> Estimate:
    estimate = summary[statistic] if summary else NO_ESTIMATE
    return {name: estimate["value"], f"{name}_low": estimate["low"], f"{name}_high": estimate["high"]}


def table(publication: Publication) -> tuple[list[str], list[list[str]]]:
    """Return the columns and rows of the table of all results, as texts."""
    columns = ["environment", "frames", "algorithm", "n", "return", "95 % interval", "IQM", "frames to solve"]
    columns += ["time", "frames/s", "settings"]
    peers = {result.peer.name for result in publication.results if result.peer}
    if publication.benchmark:
        columns += [*peers] if len(peers) == 1 else [publication.benchmark.name]
        columns += ["difference", "verdict"]
    rows = []
    for result in publication.ordered():
        trial, solved, seconds = result.trial, result.metrics.get("frames_to_solve"), result.seconds
        n = str(result.n) if result.n == len(trial.sessions) else f"{result.n} of {len(trial.sessions)}"
        row = [trial.environment, f"{result.frames:,}", result.label, n]
        row += [format_number(result.mean["value"]), format_interval(result.mean)]
        row.append(format_number(result.metrics["return"]["iqm"]["value"]) if result.n else "-")
        some = f" ({solved['n']} of {result.n})" if solved and solved["n"] < result.n else ""
        row.append(format_number(solved["mean"]["value"], "frames_to_solve") + some if solved else "-")
        row += [format_duration(seconds), f"{result.frames / seconds:,.0f}"] if seconds else ["-", "-"]
        row.append(result.settings)
        if publication.benchmark:
            verdict = result.verdict
            row += [_describe_peer(result, len(peers) > 1), format_number(result.difference)]
            row.append(f"{SYMBOLS[verdict]} {verdict}" if verdict else "-")
        rows.append(row)
    return columns, rows


def _describe_peer(result: Result, named: bool) -> str:
    """Return a peer's result, with what it is where that is not clear from the column."""
    peer = result.peer
    if peer is None:
        return "-"
    about = [peer.name] if named else []
    if peer.metric == "eval_return":
        here = f"{format_number(result.peer_metric['value'])} {format_interval(result.peer_metric)}"
        about.append(f"by evaluation; here {here}")
    return f"{format_number(peer.value)} ({', '.join(about)})" if about else format_number(peer.value)


def list_shortfalls(publication: Publication) -> list[str]:
    """Return a sentence on each result that is worse than the peer's, and by how much."""
    sentences = []
    for result in publication.ordered():
        if result.verdict != "worse" or not result.peer or result.difference is None:
            continue
        by = " by evaluation" if result.peer.metric == "eval_return" else ""
        text = f"{result.title} is {format_number(-result.difference)}{by} below {result.peer.name}'s"
        text += f" {format_number(result.peer.value)}"
        if result.shortfall is not None:
            text += f", {100 * result.shortfall:.1f} % of its gain over random actions"
        sentences.append(f"{text}; the 95 % interval is {format_interval(result.peer_metric)}.")
    return sentences


def list_notes(publication: Publication) -> list[str]:
    """Return sentences on excluded Sessions, different frames, results without a counterpart and ignored folders."""
    notes, benchmark, results = [], publication.benchmark, publication.ordered()
    if not all(result.has_sessions for result in results):
        notes.append(
            f"{MARK} Trained by older code, at the commit that its model card (card.md) names. Only metrics are kept,"
            " not the Sessions, so there is no curve and no agent."
        )
    if overlapping := [result.title for result in results if result.overlap]:
        notes.append(
            f"{OVERLAP} Settings that were chosen by seeds among those of the table, which flatters them:"
            f" {', '.join(overlapping)}."
        )
    if unknown := [result.title for result in results if result.settings == UNRECORDED]:
        notes.append(
            "How these settings were found, and whether by seeds of the table, was not recorded when they were trained:"
            f" {', '.join(unknown)}."
        )
    for result in results:
        unfinished = "; ".join(describe_unfinished(result.trial.sessions))
        if unfinished:
            notes.append(f"In {result.title}, {unfinished}: Sessions that did not complete are excluded.")
        if result.stopped:
            first, last = (f"{frames:,}" for frames in (result.stopped[0], result.stopped[-1]))
            frames = first if first == last else f"{first} to {last}"
            notes.append(
                f"{result.title} was stopped on success after {frames} frames, so its return says little, and there is"
                " no verdict: `compare metric=frames` compares how long it took."
            )
        elif benchmark and result.peer and result.peer.frames != result.frames:
            notes.append(
                f"{result.title} was trained for {result.frames:,} frames and {result.peer.name}'s for"
                f" {result.peer.frames:,}: that alone can make a difference."
            )
    if benchmark:
        missing: dict[str, dict[str, list[str]]] = {}
        for (env, algo), peer in benchmark.peers.items():
            if not any((result.env, result.algo) == (env, algo) for result in results):
                missing.setdefault(peer.name, {}).setdefault(env, []).append(display_name(algo))
        for name, environments in missing.items():
            named = "; ".join(f"on {env}, {', '.join(algos)}" for env, algos in environments.items())
            notes.append(f"{name} has results without a Trial here: {named}.")
        without = [result.title for result in results if result.peer is None]
        if without:
            names, have = " and ".join(benchmark.sources), "have" if len(benchmark.sources) > 1 else "has"
            notes.append(f"{names} {have} no result of {', '.join(without)}.")
    return notes + [f"Ignored: {reason}." for reason in publication.ignored]
