"""results.md and report.html: published results as a table for a repository, and as one page for a browser.

The page is drawn here and holds no script; its look is in published.html beside this file. Pictures are inside it, so
that it asks nothing of a server or a network.
"""

from __future__ import annotations

import base64
import html
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lab.analysis import card
from lab.analysis.card import environment
from lab.analysis.published import Publication, Result, notes, said_of, shortfalls
from lab.analysis.session import WINDOW
from lab.analysis.trial import of_seeds
from lab.analysis.wording import estimated, interval, markdown, markdown_table, number, of_sessions

MARKS = {"better": "▲", "even": "=", "worse": "▼"}
NONE = "-"


def picture_name(shown: str) -> str:
    """Return the name of the picture of an environment, or of an Experiment."""
    return re.sub(r"[^\w.-]", "-", shown) + ".png"


def write_markdown(publication: Publication) -> str:
    """Return results.md; the same files give the same text, wherever they are."""
    head, rows = grid(publication)
    cells = [
        [markdown(row[0]), markdown(row[1]), *("<br>".join(map(markdown, cell)) for cell in row[2])] for row in rows
    ]
    lines = ["# Results", "", markdown(lead(publication)), ""]
    lines += [*markdown_table([*map(markdown, head)], cells), ""]
    if publication.against:
        lines += [markdown(explanation(publication)), ""]
    for name, sentences in (("Shortfalls", shortfalls(publication)), ("Notes", notes(publication))):
        lines += [f"## {name}", "", *(f"- {markdown(sentence)}" for sentence in sentences), ""] if sentences else []
    for env in publication.environments:
        what = markdown(environment(publication.of(env)[0].trial.spec))
        lines += [f"## {what}", "", f"![Learning curves on {what}]({picture_name(env)})", ""]
    for name, experiment in publication.experiments.items():
        lines += [f"## {markdown(name)}", "", markdown(said_of(experiment)), ""]
        lines += [f"![The Experiment {markdown(name)}]({picture_name(name)})", ""]
    return "\n".join(lines)


def write_page(publication: Publication, pictures: Mapping[str, bytes]) -> str:
    """Return report.html, as text; the same files give the same text, wherever they are.

    Args:
        publication: what is published.
        pictures: a PNG for each environment and each Experiment.
    """
    body = [f"<header><h1>Results</h1>{_paragraph(lead(publication), 'lead')}</header>"]
    body.append(f"<section>{_grid(publication)}</section>")
    for name, sentences in (("Shortfalls", shortfalls(publication)), ("Notes", notes(publication))):
        if sentences:
            items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
            body.append(f"<section><h2>{name}</h2><ul>{items}</ul></section>")
    for env in publication.environments:
        results = publication.of(env)
        what = html.escape(environment(results[0].trial.spec))
        body.append(f'<section id="{html.escape(env)}"><h2>{what}</h2>')
        body.append(_picture(f"Learning curves and final returns on {what}", pictures[env]))
        body += [*(_trial(publication, result) for result in results), "</section>"]
    for name, experiment in publication.experiments.items():
        body.append(f"<section><h2>{html.escape(name)}</h2>{_paragraph(said_of(experiment), 'note')}")
        body += [_picture(f"The Experiment {html.escape(name)}", pictures[name]), "</section>"]
    template = Path(__file__).with_name("published.html").read_text(encoding="utf-8")
    return template.replace("{{body}}", "\n".join(body))


def lead(publication: Publication) -> str:
    """Say what is published, and how it does against the peer."""
    trials, envs = len(publication.results), len(publication.environments)
    sessions = [session for result in publication.results.values() for session in result.trial.sessions]
    done = sum(session.state == "completed" for session in sessions)
    said = (
        f"{_count(trials, 'Trial')} of {_count(len(publication.algorithms), 'algorithm')} on"
        f" {_count(envs, 'environment')}; {done} of {_count(len(sessions), 'Session')} completed."
    )
    if publication.against:
        counts = publication.counts()
        held = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        said += f" Of {sum(counts.values())} results that {publication.against.name} has too: {held}."
    return said


def explanation(publication: Publication) -> str:
    """Say what is in a cell of the table."""
    said = f"Mean return of the last {WINDOW} episodes over seeds, with its 95 % bootstrap interval."
    if publication.against:
        name, source = publication.against.name, publication.against.source
        said += (
            f" Below it, the figure of {name}{f' ({source})' if source else ''}, and how ours is against it:"
            f" {', '.join(f'{mark} {verdict}' for verdict, mark in MARKS.items())}. Even is what differs by no more"
            " than 1 % of the highest return that there can be, where theirs is as near to it; all else is by the mean"
            " alone."
        )
    return said


def grid(publication: Publication) -> tuple[list[str], list[tuple[str, str, list[list[str]]]]]:
    """Return the table: its head; and for each environment its id, frames, and the lines of each algorithm's cell."""
    rows = []
    for env in publication.environments:
        results = publication.of(env)
        frames = sorted({result.frames for result in results})
        cells = [cell_of(publication, env, algo, len(frames) > 1) for algo in publication.algorithms]
        rows.append((environment(results[0].trial.spec), " / ".join(f"{each:,}" for each in frames), cells))
    return ["environment", "frames", *publication.algorithms], rows


def cell_of(publication: Publication, env: str, algo: str, frames_differ: bool) -> list[str]:
    """Return the lines of a cell: mean and interval, the peer's figure, and what is missing or differs."""
    result, peer = publication.results.get((env, algo)), publication.peers.get((env, algo))
    if result is None:
        return [NONE, number(peer.value)] if peer else []
    lines = [number(result.mean["value"])]
    if result.mean["low"] is not None:
        lines.append(interval(result.mean))
    if result.peer:
        verdict = f" {MARKS[result.verdict]} {result.verdict}" if result.verdict else ""
        lines.append(f"{number(result.peer.value)}{verdict}")
    if result.incomplete:
        lines.append(of_sessions(result.trial))
    if frames_differ:
        lines.append(f"{result.frames:,} frames")
    if result.peer and result.peer.frames != result.frames:
        lines.append(f"theirs: {result.peer.frames:,}")
    return lines


def _count(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _grid(publication: Publication) -> str:
    head, rows = grid(publication)
    made = []
    for env, (name, frames, cells) in zip(publication.environments, rows, strict=True):
        link = f'<a href="#{html.escape(env)}">{html.escape(name)}</a>'
        shown = [f'<th scope="row">{link}</th><td class="number">{frames}</td>']
        for algo, lines in zip(publication.algorithms, cells, strict=True):
            result = publication.results.get((env, algo))
            kind = (result and result.verdict) or ""
            inner = (f'<div class="{kind if kind in line.split() else ""}">{html.escape(line)}</div>' for line in lines)
            shown.append(f'<td class="number">{"".join(inner)}</td>')
        made.append(f"<tr>{''.join(shown)}</tr>")
    return (
        f'<div class="scroller"><table class="grid">{_head(head)}<tbody>{"".join(made)}</tbody></table></div>'
        + _paragraph(explanation(publication), "note")
    )


def _picture(what: str, content: bytes) -> str:
    return f'<img alt="{what}" src="data:image/png;base64,{base64.b64encode(content).decode()}">'


def _trial(publication: Publication, result: Result) -> str:
    """Draw what is known of a Trial, folded up under its figures."""
    trial = result.trial
    where = shlex.quote(f"{publication.path.resolve().name}/{trial.directory.path.name}")
    said = f"{estimated(result.mean)}, {of_sessions(trial)}, {result.frames:,} frames"
    parts = [
        f"<summary><b>{html.escape(result.algo)}</b> {html.escape(said)}</summary>",
        _table("Figures over seeds", card.FIGURE_HEAD, card.figure_rows(trial)),
        _table("Sessions", card.SEED_HEAD, card.seed_rows(trial)),
        "<h3>Origin</h3>",
    ]
    found = card.origins(trial)
    for seeds, facts in found:
        parts.append(_paragraph(of_seeds(seeds), "note") if len(found) > 1 else "")
        pairs = (f"<dt>{html.escape(name)}</dt><dd>{html.escape(fact)}</dd>" for name, fact in facts.items())
        parts.append(f"<dl>{''.join(pairs)}</dl>")
    if not found:
        parts.append(_paragraph("Nothing is known of it: provenance.json is missing.", "note"))
    typed = html.escape("\n".join(card.commands(trial, where)))
    spec = html.escape(card.dumped(trial.common))
    parts += [
        f"<h3>Use</h3><pre>{typed}</pre>",
        f"<details><summary>The spec of each Session, but for its seed</summary><pre>{spec}</pre></details>",
        f"<h3>Limits</h3><ul>{''.join(f'<li>{html.escape(limit)}</li>' for limit in card.limits(trial))}</ul>",
    ]
    name = html.escape(f"{result.env}-{result.algo}")
    return f'<details class="trial" id="{name}">{"".join(parts)}</details>'


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    drawn = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    body = f"<tbody>{drawn}</tbody>"
    return f'<h3>{caption}</h3><div class="scroller"><table>{_head(head)}{body}</table></div>' if drawn else ""


def _head(names: Sequence[str]) -> str:
    cells = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in names)
    return f"<thead><tr>{cells}</tr></thead>"


def _paragraph(text: str, kind: str) -> str:
    return f'<p class="{kind}">{html.escape(text)}</p>'
