"""card.md: what was trained in a Trial, how well it does, where it came from, how it is used, and what it is not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import yaml

from lab.analysis.plotting import reference_of, written
from lab.analysis.session import WINDOW, Session
from lab.analysis.trial import Trial, of_seeds, standing, summaries
from lab.analysis.wording import fenced, interval, markdown, markdown_table, number, of_sessions
from lab.errors import LabError
from lab.run.files import plain, read_json
from lab.run.schemas import PROVENANCE

MEANINGS = {
    "return": f"mean return of the last {WINDOW} episodes of training",
    "best": f"highest mean return of {WINDOW} episodes",
    "eval_return": "mean return of the last evaluation, by the deterministic policy",
    "eval_best": "highest mean return of an evaluation",
    "strength": "mean over training of the return less that of random actions",
    "frames_to_solve": "first frame at which the return counts as solved, of the Sessions that got there",
}  # of the figures of session.json that a card shows
PACKAGES = ("torch", "numpy", "gymnasium")  # those whose versions are shown
FEWEST_SEEDS = 4  # below which intervals of bootstraps are far too narrow


def write_card(trial: Trial) -> str:
    """Return card.md, as text; the same files give the same text, wherever they are.

    Raises:
        LabError: a file of the Trial cannot be read.
    """
    lines = [f"# {markdown(title(trial))}", "", lead(trial), ""]
    if trial.completed:
        lines += ["## Figures", "", *_figures(trial), "", *_seeds(trial), ""]
    if trial.common:
        lines += ["## Training", "", "The spec of each Session, but for its seed:", ""]
        lines += [
            "<details><summary>spec.yaml</summary>",
            "",
            *fenced([dumped(trial.common).rstrip()], "yaml"),
            "",
            "</details>",
        ]
        lines += ["", "## Origin", "", *_origin(trial), ""]
    lines += ["## Use", "", "With `DIR` for the directory of this card:", ""]
    lines += [
        *fenced(commands(trial, "DIR")),
        "",
        "## Limits",
        "",
        *(f"- {markdown(limit)}" for limit in limits(trial)),
    ]
    return "\n".join(lines) + "\n"


def title(trial: Trial) -> str:
    """Say what was trained on what."""
    spec = trial.spec
    return f"{spec['algo.name']} on {environment(spec)}" if spec else trial.directory.path.resolve().name


def environment(spec: dict[str, Any]) -> str:
    """Return the id of the environment of a flat spec, and the arguments that it was made with."""
    given = "env.kwargs."
    settings = [f"{key.removeprefix(given)}={written(value)}" for key, value in spec.items() if key.startswith(given)]
    return " ".join([str(spec["env.id"]), *settings])


def lead(trial: Trial) -> str:
    """Say in a few sentences what the Trial is and came to."""
    count = trial.spec.get("frames")
    trained = f"Trained for {count:,} frames" if isinstance(count, int) else "Trained for different numbers of frames"
    frames = f"{trained}; {of_sessions(trial)} completed." if trial.spec else ""
    found = trial.values("return")
    if not len(found):
        return f"{frames} There is no result yet.".strip()
    mean = summaries(trial)["return"]["mean"]
    ends = f" (95 % interval {number(mean['low'])} to {number(mean['high'])})" if mean["low"] is not None else ""
    seeds = f"over {len(found)} seeds" if len(found) > 1 else "of 1 seed"
    return f"{frames} Mean return of the last {WINDOW} episodes {seeds}: **{number(mean['value'])}**{ends}."


def figure_rows(trial: Trial) -> list[list[str]]:
    """Return for each figure of MEANINGS that the Trial has: name, n, mean, interval, IQM, interval, and meaning."""
    found, rows = summaries(trial), []
    for name, meaning in MEANINGS.items():
        if name in found and found[name]["n"]:
            estimates = [found[name][statistic] for statistic in ("mean", "iqm")]
            cells = [text for each in estimates for text in (number(each["value"], name), interval(each, name))]
            rows.append([name, str(found[name]["n"]), *cells, meaning])
    return rows


FIGURE_HEAD = ["figure", "n", "mean", "95 % interval", "IQM", "95 % interval", "what it is"]
SEED_HEAD = ["seed", "state", "return", "best", "eval_return", "eval_best", "frames_to_solve"]


def seed_rows(trial: Trial) -> list[list[str]]:
    """Return for each Session the cells of SEED_HEAD; one that did not complete has no figures."""
    rows = []
    for session in trial.sessions:
        done = session.state == "completed"
        state = session.state if done or not session.frames else f"{session.state} at frame {session.frame:,}"
        figures = [number(session.figure(name), name) if done else "-" for name in SEED_HEAD[2:]]
        rows.append([str(session.seed), state, *figures])
    return rows


def dumped(spec: dict[str, Any]) -> str:
    """Write a spec as YAML, in the order that it has."""
    return yaml.safe_dump(plain(spec), sort_keys=False, allow_unicode=True)


def origins(trial: Trial) -> list[tuple[list[int], dict[str, str]]]:
    """Return where the Sessions came from: seeds, and facts by name, for each origin that differs from the others."""
    found: dict[str, tuple[list[int], dict[str, str]]] = {}
    for session in trial.sessions:
        facts = _facts(session)
        if facts:
            found.setdefault(json.dumps(facts), ([], facts))[0].append(session.seed)
    return list(found.values())


def _facts(session: Session) -> dict[str, str]:
    if not session.directory.provenance.exists():
        return {}
    try:
        known = read_json(session.directory.provenance, PROVENANCE)
    except LabError:
        return {"code": "unknown: provenance.json cannot be read"}
    git, cpu = known.get("git") or {}, known.get("cpu") or {}
    packages = {name: version for name, version in known.get("packages", {}).items() if name in PACKAGES}
    threads, changes, left_out = known.get("threads"), git.get("uncommitted"), git.get("left_out")
    lacks = ", but for files that were left out" if left_out else ""
    machine = [str(cpu["model"])] if cpu.get("model") else []
    facts = {
        "code": f"git {git['sha']}" if git.get("sha") else "unknown: it had no git SHA",
        "uncommitted changes": "unknown" if changes is None else f"in uncommitted.patch{lacks}" if changes else "none",
        "own code": "; ".join(map(_own_code, known.get("repositories") or ())),
        "Python": str(known.get("python", "unknown")),
        "packages": ", ".join(f"{name} {packages[name]}" for name in PACKAGES if name in packages),
        "machine": ", ".join([*machine, *([str(known["gpu"])] if known.get("gpu") else [])]),
        "computed on": f"{known.get('device')}, {threads} thread{'' if threads == 1 else 's'}",
    }
    return {name: fact for name, fact in facts.items() if fact}


def _own_code(repository: dict[str, Any]) -> str:
    """Say where modules of the user's own came from."""
    name, sha = repository.get("name"), repository.get("sha")
    modules = ", ".join(map(str, repository.get("modules") or ()))
    where = f"git {sha}" if sha else str(repository.get("note") or "no git SHA")
    changes = f", uncommitted changes in uncommitted.{name}.patch" if repository.get("uncommitted") else ""
    return f"{modules or name} ({where}{changes})"


def commands(trial: Trial, where: str) -> list[str]:
    """Return what to type to play the best agent, make the figures again, and train again and compare.

    Args:
        trial: the Trial.
        where: its directory, as a shell takes it.
    """
    seed = best_seed(trial.completed)
    play = [] if seed is None else [f"python -m lab enjoy {where}/seed-{seed} video=films"]
    return [*play, f"python -m lab report {where}", f"python -m lab rerun {where}"]


def best_seed(sessions: Sequence[Session]) -> int | None:
    """Return the seed of the Session that was best by evaluation, and of equals by return; the first of those."""

    def rank(session: Session) -> tuple[float, float]:
        values = [session.figure(name) for name in ("eval_best", "return")]
        return tuple(float("-inf") if value is None else value for value in values)  # type: ignore[return-value]

    return max(sessions, key=rank).seed if sessions else None


def limits(trial: Trial) -> list[str]:
    """Return sentences on what the Trial does not show."""
    said = []
    if trial.spec:
        said.append(f"Trained and measured on {environment(trial.spec)} alone: nothing is known of any other.")
        if trial.spec.get("mode") != "train":
            said.append(
                f"A run with mode={trial.spec.get('mode')}, which is meant to check the code, not to learn well."
            )
    count = len(trial.completed)
    if count == 1:
        said.append("One seed says nothing about another, so there is no interval.")
    elif count:
        narrow = ", for which they are far too narrow" if count < FEWEST_SEEDS else ", and too narrow for so few"
        said.append(f"Intervals are bootstraps over {count} seeds{narrow}: another seed may well do better or worse.")
    said += [f"{text[0].upper()}{text[1:]}: it is in no figure." for text in standing(trial.sessions)]
    said.append(
        "The return is that of the policy as it was trained, drawing its actions; the agent that is played is the one"
        " that was best by evaluation, with the likeliest action."
    )
    return said


def _figures(trial: Trial) -> list[str]:
    reference = reference_of(trial.sessions)
    known = [
        f"{words} {number(reference[key])}"
        for key, words in (
            ("random_return", "random actions have a mean return of"),
            ("solved", "solved is a return of"),
        )
        if reference.get(key) is not None
    ]
    after = ["", f"On {markdown(str(reference['id']))}, {' and '.join(known)}."] if known else []
    return [*markdown_table(FIGURE_HEAD, figure_rows(trial)), *after]


def _seeds(trial: Trial) -> list[str]:
    return markdown_table(SEED_HEAD, [[*map(markdown, row)] for row in seed_rows(trial)])


def _origin(trial: Trial) -> list[str]:
    found = origins(trial)
    if not found:
        return ["Nothing is known of where it came from: provenance.json is missing."]
    lines = []
    for seeds, facts in found:
        lines += [f"{of_seeds(seeds)[0].upper()}{of_seeds(seeds)[1:]}:", ""] if len(found) > 1 else []
        lines += [*(f"- {name}: {markdown(fact)}" for name, fact in facts.items()), ""]
    return lines[:-1]
