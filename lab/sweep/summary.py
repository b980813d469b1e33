"""What came of a Trial or an Experiment, on the terminal: read from trial.json and experiment.json."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from rich.table import Table

from lab.common.terminal import Terminal
from lab.common.text import format_number
from lab.run.directory import RunDir, SweepDir, TrialDir, find_level
from lab.run.files import read_json
from lab.sweep.tree import value_of
from lab.train.display import print_next

MOST_ROWS = 12  # Trials that the ranking on the terminal shows
FEWEST_SEEDS = 4  # below which intervals of bootstraps are far too narrow
FIGURES = ("return", "best", "eval_return", "strength", "frames_to_solve")


def show(path: Path, unfinished: str | None = None) -> None:
    """Print the results of a Trial or an Experiment: ranking, failures, and what to type next.

    Args:
        path: its directory.
        unfinished: a sentence on why its sweep did not come to its end, if it did not.

    Raises:
        LabError: it is neither, or was not analyzed yet.
    """
    console = Terminal(soft_wrap=True)
    # A result is meant to be copied and searched for: it is never cut to the width of a terminal.
    console.width = max(console.width, 140)
    console.print()
    alone = find_level(path) == "trial"
    results = read_json(TrialDir(path).results if alone else SweepDir(path).results)
    show_level = show_trial if alone else show_experiment
    commands = show_level(console, path, results)
    for text in warnings_in(path, alone):
        console.print(f"\nWarning: {text}", style="yellow", markup=False)
    if unfinished:
        console.print(f"\n{unfinished}", style="magenta")
        commands = {f"python -m lab resume {quoted(path)}": "go on with it", **commands}
    if any(session["state"] == "failed" for session in results["not_completed"]):
        commands[f"python -m lab resume {quoted(path)} retry=true"] = "run what failed again"
    console.print(f"\nEverything is in {path}\n")
    print_next(console, commands)


def warnings_in(path: Path, alone: bool) -> list[str]:
    """Return what the Sessions of a Trial that stands alone, or of an Experiment, warn of, each once."""
    trials = [TrialDir(path)] if alone else SweepDir(path).trials()
    sessions = [trial.session(seed) for trial in trials for seed in trial.seeds()]
    statuses = [session.find_status() or {} for session in sessions]
    return list(dict.fromkeys(text for status in statuses for text in status.get("warnings", [])))


def show_trial(console: Terminal, path: Path, results: dict[str, Any]) -> dict[str, str]:
    """Print the figures of a Trial with their intervals; return what to type next, with what it is for."""
    directory = TrialDir(path)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"{stands_on(results['sessions'])}", no_wrap=True)
    for column in ("mean", "95 % interval", "IQM", "95 % interval", "std"):
        table.add_column(column, justify="right", no_wrap=True)
    for figure in FIGURES:
        found = results["figures"].get(figure)
        if found and found["n"]:
            note = "" if found["n"] == results["sessions"]["completed"] else f" (of {found['n']})"
            mean, iqm = found["mean"], found["iqm"]
            values = (format_number(mean["value"]), interval(mean), format_number(iqm["value"]), interval(iqm))
            table.add_row(f"{figure}{note}", *values, format_number(found["std"]["value"]))
    console.print(table if table.row_count else stands_on(results["sessions"]))
    list_failures(console, directory.path, results["not_completed"])
    commands = {}
    if results["seeds"]:
        best = directory.session(results["seeds"][0])
        commands[f"python -m lab enjoy {quoted(best.path)}"] = "play an agent"
        commands[f"python -m lab compare {quoted(directory.path)} DIR"] = "compare with another Trial"
    return commands


def show_experiment(console: Terminal, path: Path, results: dict[str, Any]) -> dict[str, str]:
    """Print the ranking of an Experiment; return what to type next, with what it is for."""
    directory = SweepDir(path)
    objective, ranking = results["objective"], results["ranking"]
    console.print(stands_on(results["sessions"]), style="italic")
    if ranking:
        console.print(ranking_table(objective, ranking))
    if len(ranking) > MOST_ROWS:
        console.print(f"and {len(ranking) - MOST_ROWS} more in {directory.table}")
    if not ranking:
        console.print(why_none_is_ranked(results))
    improvement = ranking[0]["improvement"] if ranking else None
    if improvement and improvement["low"] is not None and len(ranking) > 1:
        sure = f"{improvement['value']:.2f} {interval(improvement)}"
        better, other = (f"trial-{entry['trial']:03}" for entry in ranking[:2])
        seeds = results["ranking"][0]["seeds"]
        few = f" ({seeds} seeds each: too few to be sure of anything)" if seeds < FEWEST_SEEDS else ""
        console.print(f"\nProbability that a seed of {better} does better than one of {other}: {sure}{few}")
    for line in not_ranked(results["unranked"]):
        console.print(line)
    list_failures(console, directory.path, results["not_completed"])
    commands = {}
    if ranking:
        best = directory.trial(ranking[0]["trial"])
        commands[f"python -m lab enjoy {quoted(first_session(best).path)}"] = "play an agent of the best Trial"
        if len(ranking) > 1:
            second = directory.trial(ranking[1]["trial"])
            commands[f"python -m lab compare {quoted(best.path)} {quoted(second.path)}"] = "the two best, side by side"
    commands[directory.report.resolve().as_uri()] = "the whole Experiment in a browser: curves, table, specs, failures"
    commands[f"tensorboard --logdir {quoted(directory.path)}"] = "every Session, and its hyperparameters"
    return commands


def why_none_is_ranked(results: dict[str, Any]) -> str:
    """Say whether a Trial may still be ranked."""
    waiting = [entry for entry in results["unranked"] if entry["state"] in ("pending", "running", "interrupted")]
    if waiting or len(results["unranked"]) < results["trials"]["planned"]:
        return "No Trial can be ranked yet: all Sessions of one must have completed."
    if any(entry["state"] == "completed" for entry in results["unranked"]):
        named = " and ".join(results["objective"]["metrics"])
        return f"No Trial can be ranked: none in which all Sessions completed has {named} of each."
    return "No Trial can be ranked: in none did all Sessions complete."


def ranking_table(objective: dict[str, Any], ranking: list[dict[str, Any]]) -> Table:
    """Return the best Trials as a table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("rank", justify="right")
    table.add_column("Trial", no_wrap=True)
    for metric in objective["metrics"]:
        table.add_column(f"{objective['aggregate']} {metric}", justify="right", no_wrap=True)
        table.add_column("95 % interval", justify="right", no_wrap=True)
    keys = list(ranking[0]["hyperparameters"])
    for key in keys:
        table.add_column(key, justify="right", no_wrap=True)
    for entry in ranking[:MOST_ROWS]:
        cells = [
            text for found in entry["objective"].values() for text in (format_number(found["value"]), interval(found))
        ]
        values = [value_of(entry["hyperparameters"].get(key)) for key in keys]
        table.add_row(str(entry["rank"]), f"trial-{entry['trial']:03}", *cells, *values)
    return table


def not_ranked(unranked: list[dict[str, Any]]) -> list[str]:
    """Say which Trials are not ranked: by state, and with the reason where all of their Sessions completed."""
    lines = []
    for state in sorted({entry["state"] for entry in unranked}):
        found = [entry for entry in unranked if entry["state"] == state]
        names = ", ".join(f"trial-{entry['trial']:03}" for entry in found[:MOST_ROWS])
        more = f" and {len(found) - MOST_ROWS} more" if len(found) > MOST_ROWS else ""
        if state != "completed":
            lines.append(f"Not ranked, {state}: {names}{more}")
        else:
            lines += [f"Not ranked: trial-{entry['trial']:03}: {entry['reason']}" for entry in found]
    return lines


def stands_on(sessions: dict[str, int]) -> str:
    """Say how many Sessions completed, and how the others stand."""
    rest = [f"{n} {state}" for state, n in sessions.items() if state not in ("planned", "completed") and n]
    return f"{sessions['completed']} of {sessions['planned']} Sessions" + (f" ({', '.join(rest)})" if rest else "")


def list_failures(console: Terminal, path: Path, sessions: list[dict[str, Any]]) -> None:
    """Print the Sessions that failed: the last line of the traceback, and where the log is."""
    failed = [session for session in sessions if session["state"] == "failed"]
    if failed:
        console.print(f"\n{len(failed)} failed:", style="red")
    for session in failed:
        trial = f"trial-{session['trial']:03} " if session.get("trial") is not None else ""
        console.print(f"  {trial}seed {session['seed']}: {session['error']}", style="red")
        log = path / session["log"]
        console.print(f"    {log if log.exists() else path / '.jobs'}")


def interval(found: dict[str, Any]) -> str:
    """Write an interval, or a dash where one seed gives none."""
    return "-" if found["low"] is None else f"[{format_number(found['low'])}, {format_number(found['high'])}]"


def first_session(trial: TrialDir) -> RunDir:
    """Return the Session of the lowest seed."""
    return trial.session(trial.seeds()[0])


def quoted(path: Path) -> str:
    """Write a path as a shell takes it."""
    return shlex.quote(str(path))
