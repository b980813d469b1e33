"""results.md and report.html: published results as a table for a repository, and as one page for a browser."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Mapping
from typing import Any

from lab.analysis.card import describe_trial
from lab.analysis.published import Publication, list_notes, list_shortfalls
from lab.analysis.session import WINDOW
from lab.analysis.text import render
from lab.common.text import format_interval, format_number, plural

SYMBOLS = {"better": "▲", "even": "=", "worse": "▼"}


def picture_name(name: str) -> str:
    """Return the file name of the picture of an environment, or of an Experiment."""
    return re.sub(r"[^\w.-]", "-", name) + ".png"


def write_markdown(publication: Publication) -> str:
    """Return the text of results.md; the same files give the same text, wherever they are."""
    return render("results.md.j2", **_context(publication), picture_name=picture_name)


def write_page(publication: Publication, pictures: Mapping[str, bytes]) -> str:
    """Return the text of report.html, which holds no script and loads nothing.

    Args:
        publication: what is published.
        pictures: a PNG for each environment and each Experiment.
    """
    cards = {}
    for result in publication.ordered():
        directory = shlex.quote(f"{publication.path.resolve().name}/{result.trial.directory.path.name}")
        cards[result.env, result.algo] = describe_trial(result.trial, directory)
    encoded = {name: base64.b64encode(picture).decode() for name, picture in pictures.items()}
    return render("published.html.j2", **_context(publication), cards=cards, pictures=encoded)


def _context(publication: Publication) -> dict[str, Any]:
    columns, rows = grid(publication)
    lists = {"Shortfalls": list_shortfalls(publication), "Notes": list_notes(publication)}
    about, explanation = _about(publication), _explanation(publication)
    return {
        "publication": publication, "columns": columns, "rows": rows, "lists": lists, "about": about,
        "explanation": explanation,
    }  # fmt: skip


def _about(publication: Publication) -> str:
    sessions = [session for result in publication.results.values() for session in result.trial.sessions]
    completed = sum(session.state == "completed" for session in sessions)
    text = (
        f"{plural(len(publication.results), 'Trial')} of {plural(len(publication.algorithms), 'algorithm')} on"
        f" {plural(len(publication.environments), 'environment')}; {completed} of {plural(len(sessions), 'Session')}"
        " completed."
    )
    if publication.benchmark:
        verdicts = [result.verdict for result in publication.results.values() if result.verdict]
        counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in SYMBOLS)
        text += f" Compared with {publication.benchmark.name} on {plural(len(verdicts), 'result')}: {counts}."
    return text


def _explanation(publication: Publication) -> str:
    text = f"Mean return of the last {WINDOW} episodes over seeds, with its 95 % bootstrap interval."
    if publication.benchmark:
        name, source = publication.benchmark.name, publication.benchmark.source
        text += (
            f" Below it, the return of {name}{f' ({source})' if source else ''} and how ours compares:"
            f" {', '.join(f'{symbol} {verdict}' for verdict, symbol in SYMBOLS.items())}. Even means a difference of at"
            " most 1 % of the highest possible return, if theirs is as near to it; otherwise the mean alone decides."
        )
    return text


def grid(publication: Publication) -> tuple[list[str], list[tuple[str, str, str, list[list[str]]]]]:
    """Return the columns of the table, and for each environment its name, id, frames and the lines of each cell."""
    rows = []
    for env in publication.environments:
        results = publication.on(env)
        frames = sorted({result.frames for result in results})
        cells = [_cell(publication, env, algo, len(frames) > 1) for algo in publication.algorithms]
        rows.append((env, results[0].trial.environment, " / ".join(f"{each:,}" for each in frames), cells))
    return ["environment", "frames", *publication.algorithms], rows


def _cell(publication: Publication, env: str, algo: str, frames_differ: bool) -> list[str]:
    """Return the lines of a cell: mean and interval, the peer's return, and what is missing or differs."""
    result, peer = publication.results.get((env, algo)), publication.peers.get((env, algo))
    if result is None:
        return ["-", format_number(peer.value)] if peer else []
    lines = [format_number(result.mean["value"])]
    if result.mean["low"] is not None:
        lines.append(format_interval(result.mean))
    if result.peer:
        verdict = f" {SYMBOLS[result.verdict]} {result.verdict}" if result.verdict else ""
        lines.append(f"{format_number(result.peer.value)}{verdict}")
    if result.trial.state != "completed":
        lines.append(result.trial.progress)
    if frames_differ:
        lines.append(plural(result.frames, "frame"))
    if result.peer and result.peer.frames != result.frames:
        lines.append(f"theirs: {result.peer.frames:,}")
    return lines
