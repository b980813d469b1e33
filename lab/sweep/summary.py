"""Results of a Trial or an Experiment on the terminal, read from trial.json and experiment.json."""

from __future__ import annotations

import shlex
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from rich.table import Table

from lab.common.imports import has_imported_local_code
from lab.common.terminal import UNCUT, Terminal
from lab.common.text import canonical, format_interval, format_number, format_value, plural
from lab.run.directory import SweepDir, TrialDir, best_session, find_level
from lab.run.files import read_json
from lab.run.schemas import MEANINGS
from lab.training.display import describe_stopped, print_checks, print_next_steps, print_tracked

MAX_ROWS = 12  # Trials in the ranking
MAX_IMPORTANCE = 6  # hyperparameters whose importance is shown
MIN_SEEDS = 4  # below which bootstrap intervals are far too narrow
METRICS = ("return", "best", "eval_return", "strength", "frames_to_solve")
EXPLAINED = ("strength", "frames_to_solve")  # of these, below the table


def print_summary(path: Path, unfinished: str | None = None) -> None:
    """Print the results of a Trial or an Experiment: ranking, failures, and the commands to type next.

    Args:
        path: its directory, which has been analyzed.
        unfinished: a sentence on why the sweep is not done.
    """
    console = Terminal(soft_wrap=True, width=UNCUT)
    console.print()
    standalone = find_level(path) == "trial"
    results = read_json(TrialDir(path).results if standalone else SweepDir(path).results)
    commands = (print_trial if standalone else print_experiment)(console, path, results)
    trials = [TrialDir(path)] if standalone else SweepDir(path).trials()
    named = [
        (f"{'' if standalone else f'{trial.path.name} '}seed {seed}", trial.session(seed).find_status() or {})
        for trial in trials
        for seed in trial.seeds()
    ]
    statuses = [status for _, status in named]
    if stopped := describe_stopped(named):
        console.print()
    for line in stopped:
        console.print(line)
    for warning in dict.fromkeys(text for status in statuses for text in status.get("warnings", [])):
        console.print(f"\nWarning: {warning}", style="yellow")
    if unfinished:
        console.print(f"\n{unfinished}", style="magenta")
        commands = {f"python -m lab resume {quote_path(path)}": "continue it", **commands}
    if checked := print_checks(console, [trial.session(seed) for trial in trials for seed in trial.seeds()]):
        commands = {**checked, **commands}
    commands |= print_tracked(console, [trial.session(seed) for trial in trials for seed in trial.seeds()])
    if any(session["state"] == "failed" for session in results["not_completed"]):
        commands[f"python -m lab resume {quote_path(path)} retry=true"] = "run what failed again"
    console.print(f"\nEverything is in {path}\n")
    print_next_steps(console, commands)


def print_trial(console: Terminal, path: Path, results: dict[str, Any]) -> dict[str, str]:
    """Print the metrics of a Trial with their intervals; return the commands to type next, with their purposes."""
    table = _table(count_sessions(results["sessions"]), "mean", "95 % interval", "IQM", "95 % interval", "std")
    explained: list[str] = []
    own = [name for name in results["metrics"] if name not in MEANINGS]
    for metric in (*METRICS, *own):
        estimates = results["metrics"].get(metric)
        if estimates and estimates["n"]:
            note = "" if estimates["n"] == results["sessions"]["completed"] else f" (of {estimates['n']})"
            cells = [cell for key in ("mean", "iqm") for cell in _cells(estimates[key], metric)]
            table.add_row(f"{metric}{note}", *cells, format_number(estimates["std"]["value"], metric))
            explained += [metric] if metric in EXPLAINED else []
    console.print(table if table.row_count else count_sessions(results["sessions"]))
    if table.row_count:
        console.print()
        for name in (*explained, "IQM"):
            console.print(f"{name}: {MEANINGS[name]}", style="dim")
    print_failures(console, path, results["not_completed"])
    compare = {f"python -m lab compare {quote_path(path)} DIR": "compare with another Trial"}
    return {**enjoy_best(TrialDir(path)), **compare} if results["seeds"] else {}


def print_experiment(console: Terminal, path: Path, results: dict[str, Any]) -> dict[str, str]:
    """Print the ranking of an Experiment; return the commands to type next, with their purposes."""
    from lab.analysis.text import note_on_extensions, note_on_seeds, short_names

    directory, ranking = SweepDir(path), results["ranking"]
    console.print(count_sessions(results["sessions"]), style="italic")
    if print_validation(console, directory, results) and (around := directory.validates):
        print_failures(console, path, results["not_completed"])
        play = enjoy_best(directory.trial(ranking[0]["trial"]), " of what is best on fresh seeds") if ranking else {}
        return {**play, around.report.resolve().as_uri(): "open in a browser: the Experiment, and its validation"}
    if not ranking:
        console.print(explain_no_ranking(results))
    commands: dict[str, str] = {}
    several = len(results["environments"]) > 1
    for name, group in groupby(ranking, key=itemgetter("environment")):
        entries, where = list(group), f" in {name}" if several else ""
        keys = list(entries[0]["hyperparameters"])
        if several:
            console.print(f"\n{name}", style="bold")
            keys = [key for key in keys if len({canonical(entry["hyperparameters"][key]) for entry in entries}) > 1]
        for entry in entries:
            entry["name"] = name_trial(entry, results)
        console.print(ranking_table(results["objective"], entries, keys))
        if len(entries) > MAX_ROWS:
            console.print(f"and {len(entries) - MAX_ROWS} more in {directory.table}")
        print_improvement(console, entries, results["defaults"])
        print_importance(console, results["importance"].get(name) or {}, len(entries))
        best = directory.trial(entries[0]["trial"])
        tied = len(tied_for_best(entries))
        point = entries[0]["hyperparameters"]
        shown = short_names(keys)
        if any(shown[key] != key or format_value(point[key]) != format_value(point[key], digits=4) for key in keys):
            settings = " ".join(shlex.quote(f"{key}={format_value(value)}") for key, value in point.items())
            console.print(f"\nSettings of {best.path.name}: {settings}", no_wrap=True)
        commands |= enjoy_best(best, f"{' of the first of the tied Trials' if tied else ' of the best Trial'}{where}")
        if len(entries) > 1:
            pair = f"{quote_path(best.path)} {quote_path(directory.trial(entries[1]['trial']).path)}"
            commands[f"python -m lab compare {pair}"] = (
                f"{'two of the tied' if tied > 2 else 'the two best'}{where}, side by side"
            )
    if several:
        console.print("\nTrials are ranked within each environment, as returns of different ones cannot be compared.")
    if across := results.get("across"):
        print_section(console, "Settings over all environments, by normalized scores", across)
    extended = [entry["trial"] for entry in ranking if entry.get("extended")]
    for note in (note_on_seeds([entry["seeds"] for entry in ranking]), note_on_extensions(extended)):
        if note:
            console.print(note)
    unranked = [{**entry, "name": name_trial(entry, results)} for entry in results["unranked"]]
    if ranking or {entry["state"] for entry in unranked} != {"completed"}:  # else it has been explained
        for line in list_unranked(unranked):
            console.print(line)
    print_failures(console, path, results["not_completed"])
    commands[directory.report.resolve().as_uri()] = "open in a browser: curves, table, specs, failures"
    if ranking and not (
        results.get("validation") or directory.validates or several or len(results["objective"]["metrics"]) > 1
    ):
        commands[f"python -m lab validate {quote_path(path)}"] = "train the best Trials again on fresh seeds"
    commands[f"tensorboard --logdir {quote_path(path)}"] = "every Session, and its hyperparameters"
    return commands


def print_validation(console: Terminal, directory: SweepDir, results: dict[str, Any]) -> bool:
    """Print what the best Trials of an Experiment reach on fresh seeds, if any were trained, and return whether.

    Args:
        console: where to.
        directory: of the Experiment, or the one that these were trained in.
        results: the content of its experiment.json.
    """
    around = directory.validates
    found = (
        read_json(around.results).get("validation") if around and around.results.exists() else results.get("validation")
    )
    if not found:
        return False
    print_section(console, f"Validation of {(around or directory).path}", found)
    if not around:
        console.print()
    return True


def print_section(console: Terminal, title: str, section: dict[str, Any]) -> None:
    """Print a part of experiment.json that has columns, rows and conclusions."""
    first, *columns = section["columns"]
    table = _table(first, *columns)
    for row in section["rows"][:MAX_ROWS]:
        table.add_row(*row)
    console.print(f"\n{title}", style="bold")
    console.print(table)
    for sentence in section["conclusions"]:
        console.print(sentence)


def name_trial(entry: dict[str, Any], results: dict[str, Any]) -> str:
    """Return the name of a Trial, and whether it is the defaults of a search."""
    is_default = results["defaults"] and results["defaults"]["trial"] == entry["trial"]
    return f"trial-{entry['trial']:03}{' (defaults)' if is_default else ''}"


def print_improvement(console: Terminal, ranking: list[dict[str, Any]], defaults: dict[str, Any] | None) -> None:
    """Print the probability that the best Trial of a ranking does better than the next, and than the defaults."""
    best, number = ranking[0], defaults["trial"] if defaults else None
    if tied := tied_for_best(ranking):
        more = f" and {len(tied) - MAX_ROWS} more" if len(tied) > MAX_ROWS else ""
        console.print(f"\nTied for the best: {', '.join(tied[:MAX_ROWS])}{more}")
    others = [(entry, best["improvement"]) for entry in ranking[1:2]]
    others += [(entry, defaults["improvement"]) for entry in ranking[2:] if defaults and entry["trial"] == number]
    for entry, improvement in others:
        if improvement and improvement["low"] is not None:
            first, second = best["seeds"], entry["seeds"]
            seeds = f"{plural(first, 'seed')} each" if first == second else f"{first} and {plural(second, 'seed')}"
            few = f" ({seeds}: too few to be sure of anything)" if min(first, second) < MIN_SEEDS else ""
            chance = f"{improvement['value']:.2f} {format_interval(improvement)}{few}"
            pair = f"a seed of {best['name']} does better than one of {entry['name']}"
            console.print(f"\nProbability that {pair}: {chance}")
            if entry["trial"] == number and (few or improvement["low"] <= 0.5):
                console.print("These seeds do not show that the search found anything better than the defaults.")
    if number in [entry["trial"] for entry in ranking if entry["rank"] == 1]:
        console.print("\nNo Trial is better than the defaults.")


def tied_for_best(ranking: list[dict[str, Any]]) -> list[str]:
    """Return the names of the Trials that share the first rank by a single objective; none if one is the best."""
    first = [entry["name"] for entry in ranking if entry["rank"] == ranking[0]["rank"]]
    return first if len(first) > 1 and len(ranking[0]["objective"]) == 1 else []


def print_importance(console: Terminal, importance: dict[str, float], trials: int) -> None:
    """Print which hyperparameters matter most in a ranking of so many Trials, if that is known."""
    from lab.analysis.text import importance_caveat, short_names

    names, caveat = short_names([*importance]), importance_caveat(trials)
    if importance:
        shares = ", ".join(f"{names[key]} {100 * value:.0f} %" for key, value in [*importance.items()][:MAX_IMPORTANCE])
        console.print(f"Importance (PED-ANOVA{f'; {caveat}' if caveat else ''}): {shares}")


def enjoy_best(trial: TrialDir, of: str = "") -> dict[str, str]:
    """Return the command that plays the best agent of a Trial, with its purpose; none if no Session has an agent."""
    best = best_session(trial.session(seed) for seed in trial.seeds())
    here = " code=here" * has_imported_local_code()
    return {f"python -m lab enjoy {quote_path(best.path)}{here}": f"play the best agent{of}"} if best else {}


def explain_no_ranking(results: dict[str, Any]) -> str:
    """Explain why no Trial is ranked, and whether one may still be."""
    states = {entry["state"] for entry in results["unranked"]}
    if states & {"pending", "running", "interrupted"} or len(results["unranked"]) < results["trials"]["planned"]:
        return "No Trial can be ranked yet: all Sessions of one must have completed."
    if "completed" in states:
        metrics = " and ".join(results["objective"]["metrics"])
        return f"No Trial can be ranked: none in which all Sessions completed has {metrics} of each."
    return "No Trial can be ranked: in none did all Sessions complete."


def ranking_table(objective: dict[str, Any], ranking: list[dict[str, Any]], keys: list[str]) -> Table:
    """Return the best Trials as a table, with some of their hyperparameters."""
    from lab.analysis.text import short_names

    unequal = len({entry["seeds"] for entry in ranking}) > 1
    metrics = [head for name in objective["metrics"] for head in (f"{objective['aggregate']} {name}", "95 % interval")]
    columns = [*(["seeds"] if unequal else ()), *metrics, *short_names(keys).values()]
    table = _table("Trial", *columns, before=["rank"])
    for entry in [*ranking[:MAX_ROWS], *(entry for entry in ranking[MAX_ROWS:] if "defaults" in entry["name"])]:
        cells = [cell for metric, estimate in entry["objective"].items() for cell in _cells(estimate, metric)]
        values = [format_value(entry["hyperparameters"].get(key), digits=4) for key in keys]
        seeds = [str(entry["seeds"])] if unequal else []
        table.add_row(str(entry["rank"]), entry["name"], *seeds, *cells, *values)
    return table


def list_unranked(unranked: list[dict[str, Any]]) -> list[str]:
    """Return lines on the Trials that are not ranked, by state; with the reason where all Sessions completed."""
    lines = []
    for state in sorted({entry["state"] for entry in unranked}):
        entries = [entry for entry in unranked if entry["state"] == state]
        names = ", ".join(entry["name"] for entry in entries[:MAX_ROWS])
        more = f" and {len(entries) - MAX_ROWS} more" if len(entries) > MAX_ROWS else ""
        if state != "completed":
            lines.append(f"Not ranked, {state}: {names}{more}")
        else:
            reasons: dict[str, list[str]] = {}
            for entry in entries:
                reasons.setdefault(entry["reason"], []).append(entry["name"])
            lines += [f"Not ranked: {', '.join(each[:MAX_ROWS])}: {reason}" for reason, each in reasons.items()]
    return lines


def count_sessions(sessions: dict[str, int]) -> str:
    """Return how many Sessions completed, and the states of the others."""
    others = {state: n for state, n in sessions.items() if state not in ("planned", "completed", "pending")}
    others["pending"] = sessions["planned"] - sessions["completed"] - sum(others.values())  # of Trials to come, too
    rest = [f"{n} {state}" for state, n in sorted(others.items()) if n]
    count = f"{sessions['completed']} of {plural(sessions['planned'], 'Session')}"
    return f"{count} ({', '.join(rest)})" if rest else count


def print_failures(console: Terminal, path: Path, sessions: list[dict[str, Any]]) -> None:
    """Print the Sessions that failed: the last line of the traceback, and the path of the log."""
    failed = [session for session in sessions if session["state"] == "failed"]
    if failed:
        console.print(f"\n{len(failed)} failed:", style="red")
    for session in failed:
        trial = f"trial-{session['trial']:03} " if session.get("trial") is not None else ""
        console.print(f"  {trial}seed {session['seed']}: {session['error']}", style="red")
        log = path / session["log"]
        console.print(f"    {log if log.exists() else path / '.jobs'}")


def quote_path(path: Path) -> str:
    """Quote a path for a shell."""
    return shlex.quote(str(path))


def _table(first: str, *columns: str, before: list[str] | None = None) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in before or ():
        table.add_column(name, justify="right")
    table.add_column(first, no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _cells(estimate: dict[str, Any], metric: str) -> tuple[str, str]:
    return format_number(estimate["value"], metric), format_interval(estimate, metric)
