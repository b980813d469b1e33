"""results.md and report.html: published results as a table for a repository, and as one page for a browser."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from lab.analysis.card import describe_trial
from lab.analysis.published import Publication
from lab.analysis.published_across import COLUMNS, EXPLANATION, Group, list_excluded
from lab.analysis.published_tables import SYMBOLS, list_notes, list_shortfalls, table
from lab.analysis.session import WINDOW
from lab.analysis.text import render
from lab.common.text import plural

AGGREGATES = "aggregates"  # the picture of results over several environments


def picture_name(name: str) -> str:
    """Return the path of the picture of an environment, or of an Experiment, from the page."""
    name = re.sub(r"[^\w.-]", "-", name)
    return f"pictures/{name}.png"


def write_markdown(publication: Publication, groups: Sequence[Group]) -> str:
    """Return the text of results.md; the same files give the same text, wherever they are."""
    return render("results.md.j2", **_context(publication, groups), picture_name=picture_name)


def write_page(publication: Publication, groups: Sequence[Group], pictures: Mapping[str, bytes]) -> str:
    """Return the text of report.html, which holds no script and loads nothing.

    Args:
        publication: what is published.
        groups: the algorithms in it that are compared over several environments.
        pictures: a PNG for each environment and each Experiment.
    """
    cards = {}
    for result in publication.ordered():
        directory = result.trial.directory.path.resolve()
        parent = publication.path.resolve()
        name = f"{parent.name}/{directory.name}" if directory != parent else parent.name
        cards[result] = describe_trial(result.trial, shlex.quote(name))
    encoded = {name: base64.b64encode(picture).decode() for name, picture in pictures.items()}
    return render("published.html.j2", **_context(publication, groups), cards=cards, pictures=encoded)


def _context(publication: Publication, groups: Sequence[Group]) -> dict[str, Any]:
    columns, rows = table(publication)
    environments = [(env, publication.on(env)[0].trial.environment) for env in publication.environments]
    lists = {"Shortfalls": list_shortfalls(publication), "Notes": list_notes(publication)}
    if groups:
        lists["Notes"] += list_excluded(publication)
    about, explanation = _about(publication), _explanation(publication)
    aggregates = [row for group in groups for row in group.rows]
    return {
        "publication": publication, "columns": columns, "rows": list(zip(publication.ordered(), rows, strict=True)),
        "environments": environments, "lists": lists, "about": about, "explanation": explanation,
        "aggregates": aggregates, "aggregate_columns": COLUMNS, "aggregate_explanation": EXPLANATION,
    }  # fmt: skip


def _about(publication: Publication) -> str:
    sessions = [session for result in publication.results for session in result.trial.sessions]
    completed = sum(session.state == "completed" for session in sessions)
    text = (
        f"{plural(len(publication.results), 'Trial')} of {plural(len(publication.algorithms), 'algorithm')} on"
        f" {plural(len(publication.environments), 'environment')}; {completed} of {plural(len(sessions), 'Session')}"
        " completed."
    )
    if publication.benchmark:
        verdicts = [result.verdict for result in publication.results if result.verdict]
        counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in SYMBOLS)
        names = " and ".join(publication.benchmark.sources)
        text += f" Compared with {names} on {plural(len(verdicts), 'result')}: {counts}."
    return text


def _explanation(publication: Publication) -> str:
    text = (
        f"Return: mean return of the last {WINDOW} episodes over n seeds, with its 95 % bootstrap interval; IQM: their"
        " interquartile mean. Time: of a Session, in the stack that it was trained in, and frames/s accordingly."
        " Settings: where hyperparameters come from, and the seeds that they were chosen by."
    )
    if publication.benchmark:
        named = publication.benchmark.sources.items()
        sources = "; ".join(f"{name}: {source or 'its result'}" for name, source in named)
        text += (
            f" {sources}. Better means that the whole interval is above that, worse that it is below, even that it"
            " contains it. Intervals over few seeds are too narrow."
        )
    return text
