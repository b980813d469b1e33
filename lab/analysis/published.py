"""Published results: Trials of algorithms on environments, compared with the returns that a peer publishes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from lab.analysis.benchmark import Benchmark, Peers
from lab.analysis.card import read_provenance
from lab.analysis.compare import differing_keys
from lab.analysis.experiment import Experiment, read_experiment
from lab.analysis.run_spec import read_overrides
from lab.analysis.runs import SHORT
from lab.analysis.session import Session
from lab.analysis.statistics import Estimate
from lab.analysis.text import display_name, format_hyperparameter, short_names
from lab.analysis.trial import VARIES, Trial, read_trial
from lab.common.text import canonical, format_seeds
from lab.errors import LabError
from lab.run.directory import SweepDir, TrialDir, find_level
from lab.run.files import read_json, require_shape
from lab.run.schemas import SPEC, TRIAL

MARK = "†"  # of a Trial of which only the metrics are there
UNRECORDED = "not recorded"  # how settings were found, before specs said so
OVERLAP = "‡"  # of settings that were chosen by seeds of the Trial
SETTING = re.compile(r"(algo|env|net)\.|frames$|net$")  # keys of what is tuned
MAX_KEYS = 3  # hyperparameters that name a variant
NO_ESTIMATE: Estimate = {"value": None, "low": None, "high": None}


class Result:
    """A published Trial compared with a peer's result.

    `mean` is the mean return with its interval, `peer_metric` the mean of what the peer measures, `difference` that
    minus the peer's. `verdict` is better or worse if the whole interval is above or below the peer's result, otherwise
    even; None without an interval or a peer's result. `shortfall` is how far the mean is below the peer's, as a
    fraction of the peer's gain over random actions.

    Attributes:
        stopped: frames at which Sessions ended because their return had reached `stop_at`; there is no verdict then.
        variant: what distinguishes it from other Trials of the same algorithm and environment; empty if it is alone.
    """

    def __init__(self, trial: Trial, peers: Peers, variant: str = "") -> None:
        self.trial, self.variant = trial, variant
        self.algo, self.env = str(trial.spec["algo.name"]), str(trial.spec["env.name"])
        self.frames = int(trial.spec["frames"])
        # The peer's result is for the environment as conf/env defines it.
        same = trial.spec.get("env.reference.id") == trial.environment
        self.peer = peers.get((self.env, self.algo)) if same else None
        self.metrics = {name: summary for name, summary in trial.summaries.items() if summary["n"]}
        self.mean: Estimate = self.metrics["return"]["mean"] if "return" in self.metrics else NO_ESTIMATE
        summary = self.metrics.get(self.peer.metric if self.peer else "return")
        self.peer_metric: Estimate = summary["mean"] if summary else NO_ESTIMATE
        self.n = int(self.metrics["return"]["n"]) if "return" in self.metrics else 0
        self.difference: float | None = None
        self.verdict: str | None = None
        self.shortfall: float | None = None
        self.stopped = sorted(session.frame for session in trial.completed if session.stopped)
        value, low, high = (self.peer_metric[end] for end in ("value", "low", "high"))
        if self.peer and value is not None:
            self.difference = value - self.peer.value
            if low is not None and high is not None and not self.stopped:
                self.verdict = "better" if low > self.peer.value else "worse" if high < self.peer.value else "even"
            random_return = trial.reference.get("random_return")
            if random_return is not None and self.peer.value > random_return:
                self.shortfall = -self.difference / (self.peer.value - random_return)

    @property
    def has_sessions(self) -> bool:
        """Whether the Sessions are there, not only their metrics."""
        completed = self.trial.completed
        return not completed or any(session.tables is not None for session in completed)

    @property
    def seconds(self) -> float | None:
        """Mean time that a Session trained, in the stack that it was in; None if it is not known."""
        tables = [session.tables for session in self.trial.completed if session.tables is not None]
        times = [float(each.timing["seconds"].sum()) for each in tables if len(each.timing)]
        return sum(times) / len(times) if times else None

    @property
    def tuned_on(self) -> list[int]:
        """Seeds by which its settings were chosen."""
        seeds = self.trial.spec.get("tuning.seeds", [])
        return seeds if isinstance(seeds, list) else []

    @property
    def overlap(self) -> list[int]:
        """Those among the seeds of its Sessions: they are no evidence for the settings."""
        return sorted({*self.tuned_on} & {session.seed for session in self.trial.sessions})

    @property
    def changed(self) -> list[str]:
        """Keys of the settings that were set when it was trained, so that their source does not vouch for them."""
        set_ = {*self.trial.hyperparameters}
        for session in self.trial.completed[:1]:
            command = str(read_provenance(session).get("command", ""))
            set_ |= {SHORT.get(key, key) for key in read_overrides(session.directory, command)}
        return sorted(key for key in set_ if SETTING.match(key))

    @property
    def settings(self) -> str:
        """How its settings were found, marked if its own seeds had a say."""
        source = self.trial.spec.get("tuning.source")
        if not source:
            return UNRECORDED
        seeds = f" on {format_seeds(self.tuned_on)}" if self.tuned_on else ""
        changed = f", but for {', '.join(self.changed)}" if self.changed else ""
        return f"{source}{seeds}{f' {OVERLAP}' if self.overlap else ''}{changed}"

    @property
    def key(self) -> str:
        """The algorithm with its variant, unique on an environment."""
        return f"{self.algo} {self.variant}".rstrip()

    @property
    def name(self) -> str:
        """The algorithm and its variant for readers."""
        return f"{display_name(self.algo)} {self.variant}".rstrip()

    @property
    def label(self) -> str:
        """The name, marked if the Sessions are not there."""
        return self.name if self.has_sessions else f"{self.name} {MARK}"

    @property
    def title(self) -> str:
        """What was trained on what."""
        return f"{self.name} on {self.trial.environment}"


@dataclass
class Publication:
    """Results published together."""

    path: Path  # of the directory that holds the Trials
    results: list[Result]
    experiments: dict[str, Experiment]  # by name
    benchmark: Benchmark | None  # what peers publish, which the results are compared with
    ignored: list[str]  # what else the directory holds, and why it is no result

    @property
    def peers(self) -> Peers:
        """The peers' results, by environment and algorithm."""
        return self.benchmark.peers if self.benchmark else {}

    @property
    def environments(self) -> list[str]:
        """Environments with a Trial, in the order of the peers' results, others after them by name."""
        return _in_order((env for env, _ in self.peers), {result.env for result in self.results})

    @property
    def algorithms(self) -> list[str]:
        """Algorithms with a Trial, in the same order."""
        return _in_order((algo for _, algo in self.peers), {result.algo for result in self.results})

    @property
    def keys(self) -> list[str]:
        """Algorithms with their variants, in the same order."""
        by_algorithm = sorted(self.results, key=lambda result: self.algorithms.index(result.algo))
        return list(dict.fromkeys(result.key for result in by_algorithm))

    def on(self, env: str) -> list[Result]:
        """Return the results on an environment, by algorithm."""
        results = [result for result in self.results if result.env == env]
        return sorted(results, key=lambda result: self.algorithms.index(result.algo))

    def ordered(self) -> list[Result]:
        """Return all results, by environment and then by algorithm."""
        return [result for env in self.environments for result in self.on(env)]


def _in_order(known: Iterable[str], names: set[str]) -> list[str]:
    return [name for name in dict.fromkeys([*known, *sorted(names)]) if name in names]


def read_publication(path: Path, benchmark: Benchmark | None = None) -> Publication:
    """Read the Trials and Experiments in the sub-directories of a directory; others are ignored.

    If the directory is itself a Trial, that is read; if it is an Experiment, it and its Trials are.

    Raises:
        LabError: there is no Trial, an Experiment has the name of an environment, or a file cannot be read.
    """
    if not path.is_dir():
        raise LabError(f"{path} cannot be published: there is no such directory.")
    publication = Publication(path, [], {}, benchmark, [])
    kind = _level(path)
    if kind == "session":
        raise LabError(
            f"{path} is a Session. What can be published is a Trial, an Experiment, or a directory that holds some;"
            f" `python -m lab report {shlex.quote(str(path))}` makes the picture of a Session."
        )
    trials: list[Trial] = []
    if kind == "trial":
        trials = [read_trial(TrialDir(path))]
    elif kind == "experiment":
        publication.experiments[path.resolve().name] = experiment = read_experiment(SweepDir(path))
        trials = experiment.trials
    else:
        trials = _read_folders(publication, sorted(entry for entry in path.iterdir() if entry.is_dir()))
    _add_results(publication, trials)
    if not publication.results:
        ignored = f" ({'; '.join(publication.ignored)})" if publication.ignored else ""
        if publication.experiments:
            name = next(iter(publication.experiments))
            raise LabError(
                f"{path} holds no Trial, only Experiments: `python -m lab publish {shlex.quote(str(path / name))}`"
                f" publishes the Trials of one{ignored}."
            )
        raise LabError(
            f"{path} holds no Trial: `python -m lab export DIR out={shlex.quote(str(path / 'ppo_cartpole'))}` puts one"
            f" into a sub-directory{ignored}."
        )
    for env in {*publication.environments} & {*publication.experiments}:
        raise LabError(
            f"{path / env} is an Experiment with the name, so also the picture, of an environment: rename it."
        )
    return publication


def _level(path: Path) -> str | None:
    try:
        return find_level(path)
    except LabError:
        return None


def _read_folders(publication: Publication, folders: Iterable[Path]) -> list[Trial]:
    """Return the Trials that are sub-directories, and add the Experiments to the publication."""
    trials = []
    for folder in folders:
        kind, trial = _level(folder), TrialDir(folder)
        if kind == "experiment":
            publication.experiments[folder.name] = read_experiment(SweepDir(folder))
        elif kind == "session":
            publication.ignored.append(f"{folder.name} is a Session, not a Trial")
        elif trial.seeds() and kind == "trial":
            trials.append(read_trial(trial))
        elif trial.results.exists() and trial.card.exists():
            trials.append(read_without_sessions(trial))
        elif kind == "trial":
            publication.ignored.append(f"no Session of {folder.name} has started")
    return trials


def read_without_sessions(directory: TrialDir) -> Trial:
    """Read a Trial of which only trial.json and card.md are there: its metrics, and the spec in its card.

    Raises:
        LabError: one of them cannot be read.
    """
    results = read_json(directory.results, TRIAL)
    spec = yaml.safe_load(
        next(iter(re.findall(r"```yaml\n(.*?)```", directory.card.read_text("utf-8"), re.DOTALL)), "")
    )
    require_shape(spec, SPEC, directory.card)
    states = dict.fromkeys(results["seeds"], "completed")
    states |= {session["seed"]: session["state"] for session in results["not_completed"]}
    sessions = [
        Session(directory.session(seed), seed, state, spec["frames"], spec["frames"], None, None, {})
        for seed, state in sorted(states.items())
    ]
    trial = Trial(directory, directory.number, {}, sessions)
    trial.common, trial.summaries, trial.reference = spec, results["metrics"], spec["env"]["reference"]
    return trial


def _add_results(publication: Publication, trials: Iterable[Trial]) -> None:
    """Add the results of Trials that have started, and name those of the same algorithm and environment apart.

    Raises:
        LabError: the spec of a Trial is unreadable or differs between its Sessions, or two Trials have different
            environments under the same name.
    """
    groups: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        folder = trial.directory.path
        if trial.state == "pending" and not trial.spec:
            publication.ignored.append(f"no Session of {folder.name} has started")
            continue
        if not trial.spec:
            raise LabError(f"{folder} cannot be published: the spec of none of its Sessions can be read.")
        for key in ("algo.name", "env.name", "env.id", "frames"):
            if trial.spec[key] == VARIES:
                raise LabError(f"{folder} cannot be published: {key} is not the same in all of its Sessions.")
        env = str(trial.spec["env.name"])
        for other in (other for (name, _), group in groups.items() if name == env for other in group):
            if other.environment != trial.environment:
                raise LabError(
                    f"{other.directory.path} and {folder} have different environments under the name {env}:"
                    f" {other.environment} and {trial.environment}."
                )
        groups.setdefault((env, str(trial.spec["algo.name"])), []).append(trial)
    for group in groups.values():
        for trial, variant in zip(group, name_variants(group), strict=True):
            publication.results.append(Result(trial, publication.peers, variant))


def name_variants(trials: Sequence[Trial]) -> list[str]:
    """Return what distinguishes Trials of one algorithm and environment: the values that differ, or the directories."""
    if len(trials) == 1:
        return [""]
    keys: dict[tuple[str, ...], str] = {}
    for key in differing_keys(trials):  # algo.lr and algo.optimizer.lr are one
        keys.setdefault(tuple(canonical(trial.spec.get(key)) for trial in trials), key)
    short = short_names(list(keys.values()))
    names = [
        ", ".join(f"{short[key]}={format_hyperparameter(trial.spec.get(key))}" for key in keys.values())
        for trial in trials
    ]
    known = len(keys) <= MAX_KEYS and len({*names}) == len(names)
    return names if known else [trial.directory.path.resolve().name for trial in trials]
