"""card.md: what was trained in a Trial, how good it is, where it came from, how to use it, and its limits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import yaml

from lab.analysis.session import WINDOW, Session
from lab.analysis.statistics import MIN_SEEDS
from lab.analysis.text import capitalize, render
from lab.analysis.trial import VARIES, Trial, describe_unfinished
from lab.common.text import format_interval, format_number, plural
from lab.errors import LabError
from lab.run.directory import rank_agent
from lab.run.files import plain, read_json
from lab.run.schemas import MEANINGS, PROVENANCE, meaning

if TYPE_CHECKING:
    from lab.analysis.validation import Validation

PACKAGES = ("torch", "numpy", "gymnasium")  # whose versions are shown
METRICS = ("return", "best", "eval_return", "eval_best", "strength", "frames_to_solve")
METRIC_COLUMNS = ("metric", "n", "mean", "95 % interval", "IQM", "95 % interval", "meaning")
SESSION_METRICS = ("return", "best", "eval_return", "eval_best", "frames_to_solve")


def write_card(trial: Trial, validation: Validation | None = None) -> str:
    """Return the text of card.md; the same files give the same text, wherever they are.

    Args:
        trial: the Trial.
        validation: of the Experiment that the Trial is the best of on fresh seeds, if it is one.

    Raises:
        LabError: a file of the Trial cannot be read.
    """
    place = f"DIR/{trial.name}" if validation else "DIR"
    return render("card.md.j2", **describe_trial(trial, place), validation=validation)


def describe_trial(trial: Trial, directory: str) -> dict[str, Any]:
    """Return the values of a Trial that card.md and the page of published results show.

    Args:
        trial: the Trial.
        directory: its path in commands, quoted for a shell.
    """
    return {
        "trial": trial,
        "window": WINDOW,
        "mean": trial.summaries.get("return", {}).get("mean"),
        "n": len(trial.values("return")),
        "metrics": (METRIC_COLUMNS, _metric_rows(trial)),
        "sessions": (("seed", "state", *SESSION_METRICS), _session_rows(trial)),
        "spec": yaml.safe_dump(plain(trial.common), sort_keys=False, allow_unicode=True),
        "origins": origins(trial.sessions),
        "commands": "\n".join(_commands(trial, directory)),
        "limits": limits(trial),
    }


def _metric_rows(trial: Trial) -> list[list[str]]:
    rows = []
    for name in dict.fromkeys([*METRICS, *(name for name in trial.summaries if name not in MEANINGS)]):
        summary = trial.summaries.get(name)
        if summary and summary["n"]:
            estimates = (summary["mean"], summary["iqm"])
            cells = [
                text for each in estimates for text in (format_number(each["value"], name), format_interval(each, name))
            ]
            rows.append([name, str(summary["n"]), *cells, meaning(name)])
    return rows


def _session_rows(trial: Trial) -> list[list[str]]:
    rows = []
    for session in trial.sessions:
        done = session.state == "completed"
        ended = (done and not session.stopped) or not session.frames
        state = session.state if ended else f"{session.state} at frame {session.frame:,}"
        metrics = [format_number(session.metric(name), name) if done else "-" for name in SESSION_METRICS]
        rows.append([str(session.seed), state, *metrics])
    return rows


def origins(sessions: Sequence[Session], private: bool = False) -> list[tuple[list[int], dict[str, str]]]:
    """Return the different origins of Sessions, as their seeds and named facts from provenance.json.

    Args:
        sessions: some Sessions.
        private: whether to include what belongs to the machine of whoever trained: branch, command and host.
    """
    groups: dict[str, tuple[list[int], dict[str, str]]] = {}
    for session in sessions:
        facts = _facts(session, private)
        if facts:
            groups.setdefault(json.dumps(facts), ([], facts))[0].append(session.seed)
    return list(groups.values())


def read_provenance(session: Session) -> dict[str, Any]:
    """Return the content of provenance.json; empty if it is missing."""
    path = session.directory.provenance
    try:
        return read_json(path, PROVENANCE) if path.exists() else {}
    except LabError:
        return {"damaged": True}


def _facts(session: Session, private: bool) -> dict[str, str]:
    known = read_provenance(session)
    if not known or "damaged" in known:
        return {"code": "unknown: provenance.json cannot be read"} if known else {}
    git, cpu, versions = known.get("git") or {}, known.get("cpu") or {}, known.get("packages", {})
    changes, omitted = git.get("uncommitted"), git.get("left_out")
    patch = f"in uncommitted.patch, without {', '.join(omitted)}" if omitted and private else "in uncommitted.patch"
    machine = (cpu.get("model"), known.get("gpu"))
    facts = {
        "code": f"git {git['sha']}" if git.get("sha") else "unknown: it had no git SHA",
        "uncommitted changes": {None: "unknown", False: "none", True: patch}[changes],
        "own code": "; ".join(map(_own_code, known.get("repositories") or ())),
        "Python": known.get("python", "unknown"),
        "packages": ", ".join(f"{name} {versions[name]}" for name in PACKAGES if name in versions),
        "machine": ", ".join(str(part) for part in machine if part),
        "computed on": f"{known.get('device')}, {plural(known.get('threads') or 0, 'thread')}",
    }
    if private:
        facts |= {key: git.get(key) for key in ("branch", "note")}
        facts |= {key: known.get(key) for key in ("command", "host", "platform")}
    return {name: str(fact) for name, fact in facts.items() if fact}


def _own_code(repository: dict[str, Any]) -> str:
    name, sha = repository.get("name"), repository.get("sha")
    modules = ", ".join(map(str, repository.get("modules") or ()))
    where = f"git {sha}" if sha else str(repository.get("note") or "no git SHA")
    changes = f", uncommitted changes in uncommitted.{name}.patch" if repository.get("uncommitted") else ""
    return f"{modules or name} ({where}{changes})"


def _commands(trial: Trial, directory: str) -> list[str]:
    seed = best_seed(trial.completed)
    playable = seed is not None and trial.directory.session(seed).checkpoint("best").exists()
    play = [] if not playable else [f"python -m lab enjoy {directory}/seed-{seed} video=films"]
    return [*play, f"python -m lab report {directory}", f"python -m lab rerun {directory}"]


def best_seed(sessions: Sequence[Session]) -> int | None:
    """Return the seed of the Session that is best by evaluation, and among equals by return; None without Sessions."""
    return max(sessions, key=lambda session: rank_agent(session.metrics)).seed if sessions else None


def limits(trial: Trial) -> list[str]:
    """Return sentences on what the Trial does not show."""
    sentences = []
    if trial.spec:
        sentences.append(f"Trained and measured on {trial.environment} only.")
        mode = trial.spec.get("mode")
        if mode != "train":
            sentences.append(f"Trained with mode={mode}, which is meant to check the code, not to learn well.")
        extended_from = trial.common.get("extended_from")
        if extended_from and extended_from != VARIES:
            plans = " and ".join(f"{frames:,}" for frames in extended_from)
            sentences.append(f"Planned for {plans} frames, and extended: from there on, schedules are over all frames.")
    n, early = len(trial.completed), sum(bool(session.stopped) for session in trial.completed)
    if early:
        sentences.append(
            f"{plural(early, 'Session')} stopped when the return had reached stop_at={trial.spec.get('stop_at')}: the"
            " last return is high because training ended there, and metrics over training are over fewer frames."
        )
    if n == 1:
        sentences.append("One seed says nothing about another, so there is no interval.")
    elif n:
        width = "far too narrow for so few" if n < MIN_SEEDS else "too narrow for so few"
        sentences.append(f"Intervals are bootstraps over {plural(n, 'seed')}, {width}: another seed may differ more.")
    sentences += [f"{capitalize(text)}: excluded from all metrics." for text in describe_unfinished(trial.sessions)]
    sentences.append(
        "The return is that of the policy while training, which samples its actions; the agent that is played was the"
        " best by evaluation, and takes its most likely actions."
    )
    return sentences
