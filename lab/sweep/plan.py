"""What a sweep is to run: numbered points, Trials at them, and how Sessions are packed into jobs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lab.analysis.objective import Objective
from lab.common.text import canonical
from lab.errors import LabError
from lab.launch.gpus import visible_gpus
from lab.run.directory import SweepDir, TrialDir
from lab.run.files import plain
from lab.spec import Spec
from lab.sweep.overrides import SweepOverrides, searched_point
from lab.sweep_spec import SweepSpec
from lab.trial import Point, Trial

if TYPE_CHECKING:
    from lab.env.vector import Spaces
    from lab.sweep.composer import Composer

ALIASES = {"algo.lr": "algo.optimizer.lr"}  # keys of specs by their short forms
MISSING = object()
# Sessions in a job that `stack=auto` makes on a CPU. Thousands of frames per second on CartPole with 4, 8, 16, 32, 64:
# PPO 40, 46, 48, 49, 47 (compiled 46, 49, 49, 48, 48), DQN 13, 20, 23, 31, 32. More only risk more at once.
MAX_STACK = 32
MEMORY_FRACTION = 0.8  # of the free memory that replay memories may take
MAX_NAMED = 3  # groups of equal points that are named


@dataclass
class SweepPlan:
    """The Trials of a sweep, and how they are run."""

    directory: SweepDir
    composer: Composer
    settings: SweepSpec
    overrides: SweepOverrides
    objective: Objective
    points: list[Point] | None  # of a grid, by number; None for a search
    total: int  # Trials in all
    prune: bool
    parallel: int = 1  # Trials that may run at the same time
    stack: int = 1  # Sessions in a job, at most
    mixes_trials: bool = False  # whether a job may have Sessions of several Trials
    num_started: int = 0  # Trials that had been started when the plan was made
    note: str = ""  # on points that are equal
    environments: int = 1  # different ones among the points, as `check_plan` counts them
    spaces: dict[str, Spaces] = field(default_factory=dict)  # of the environments that were made to check the plan
    defaults: dict[str, Any] | None = None  # of a search: what Optuna suggests for the spec without the search

    @property
    def seeds(self) -> list[int]:
        """The seeds of each Trial."""
        return self.overrides.seeds

    @property
    def standalone(self) -> bool:
        """Whether the sweep is a single Trial, whose directory is that of the sweep."""
        return not self.overrides.swept and self.settings.search is None

    def point(self, number: int, suggested: dict[str, Any]) -> Point:
        """Return the point of a number: of the grid, or of the values that the search suggests."""
        return self.points[number] if self.points is not None else self.searched_point(suggested)

    def searched_point(self, suggested: dict[str, Any]) -> Point:
        """Return the point of the values that Optuna suggests."""
        point = searched_point(suggested, self.overrides.space)
        return resolve_point(self.composer, self.overrides.fixed, point, self.seeds)

    @property
    def default_point(self) -> Point | None:
        """The point of a search, or of `points`, whose spec equals the config without what is swept; or None."""
        if self.overrides.listed:
            return next((point for point in self.points or () if not point.overrides), None)
        return None if self.defaults is None else self.searched_point(self.defaults)

    def trial(self, number: int, point: Point) -> Trial:
        """Return the Trial at a point."""
        directory = TrialDir(self.directory.path) if self.standalone else self.directory.trial(number)
        subdir = "" if self.standalone else directory.path.name
        return Trial(directory, self.overrides.fixed, point, self.seeds, subdir)

    @property
    def on_gpu(self) -> bool:
        """Whether Sessions are trained on a GPU, as far as the config and this machine tell."""
        device = str(self.composer.config.get("device"))
        return device.startswith("cuda") or (device == "auto" and bool(visible_gpus()))

    def group(self, trial: Trial) -> Hashable:
        """Return what Trials have in common whose Sessions may share a job: all but numbers of their algorithms."""
        if not self.mixes_trials:
            return trial.number
        from lab.training.lockstep import check_spaces, shared_settings

        try:
            specs = distinct_specs(self.composer, trial.overrides, trial.seeds)
            check_spaces(specs, self.spaces)  # which decides what is `auto`
        except LabError:  # its Sessions will fail with this error
            return trial.number
        settings = canonical([(shared_settings(spec), asdict(spec.env)) for spec in specs])
        return self.composer.outline(trial.point.overrides), settings

    def started(self) -> list[Trial]:
        """Return the Trials that have been started, by number; those with further seeds keep them."""
        directories = [TrialDir(self.directory.path)] if self.standalone else self.directory.trials()
        if self.settings.only_trial is not None:
            directories = [self.directory.trial(self.settings.only_trial)]
        trials = []
        for content in (directory.read_point() for directory in directories if directory.point.exists()):
            trial = self.trial(content["number"], Point(content["overrides"], plain(content["hyperparameters"])))
            trial.seeds = list(dict.fromkeys([*self.seeds, *content["seeds"]]))
            trials.append(trial)
        if self.standalone and not trials and directories[0].seeds():  # a single job trained it as a stack
            trials = [self.trial(0, Point([], {}))]
        return [replace(trial, retry=self.settings.retry) for trial in trials]

    def count_remaining(self) -> int:
        """Return the number of Sessions to be run."""
        started = self.started()
        return sum(len(trial.remaining()) for trial in started) + (self.total - len(started)) * len(self.seeds)


def make_plan(composer: Composer, settings: SweepSpec, overrides: SweepOverrides) -> SweepPlan:
    """Plan a sweep, or how to continue the one in the same directory.

    Raises:
        LabError: settings exclude each other, or a Trial is missing in the directory.
    """
    only = settings.only_trial
    if only is not None:
        overrides = with_seeds_of(composer.directory.trial(only), overrides)
    objective = Objective(
        tuple(settings.objective.metric), tuple(settings.objective.direction), settings.objective.aggregate
    )
    if objective.aggregate == "lower" and len(overrides.seeds) < 2:
        raise LabError(
            "objective.aggregate=lower is not allowed: one seed has no interval, so there must be two or more,"
            " as in seed=0,1,2,3."
        )
    if composer.prunes and len(objective.metrics) > 1:
        raise LabError(f"A pruner needs one objective; objective.metric names {len(objective.metrics)}.")
    search = settings.search
    points: list[Point] | None = None
    if only is not None:
        pass  # its point is in its directory
    elif search is None:
        points = overrides.grid()
    elif composer.searches_grid:
        if search.custom:
            raise LabError(
                "hydra/sweeper/sampler=grid cannot be used with search.custom: what it suggests has no grid."
            )
        points = overrides.grid()[: search.n_trials]
    plan = SweepPlan(composer.directory, composer, settings, overrides, objective, points, 0, composer.prunes)
    started = plan.started()
    if only is not None:
        plan.prune = False  # it would lose the Sessions that the Trial has
        refuse_pruned(started[0])
    missing = set(range(len(started))) - {trial.number for trial in started} if only is None else set()
    if missing:
        raise LabError(
            f"{plan.directory.trial(min(missing)).path} is missing, though later Trials are there: a sweep is continued"
            " only with all Trials that it started. Put it back, or use another directory."
        )
    plan.num_started = len(started)
    if points is not None:
        plan.points, plan.note = number_points(
            composer, overrides.fixed, points, started, overrides.seeds, overrides.swept if overrides.listed else ()
        )
    searched = search.n_trials if search and points is None and only is None else 0
    plan.total = max(searched, len(plan.points or started))
    set_stack(plan)
    return plan


def with_seeds_of(directory: TrialDir, overrides: SweepOverrides) -> SweepOverrides:
    """Return overrides with the further seeds of a Trial added; raise LabError if it was not started."""
    if not directory.point.exists():
        raise LabError(f"{directory.path} is no Trial that was started: it has no {directory.point.name}.")
    return replace(overrides, seeds=sorted({*overrides.seeds, *directory.read_point()["seeds"]}))


def refuse_pruned(trial: Trial) -> None:
    """Raise LabError if a Trial was pruned, so that no Session of it is trained any more."""
    if "pruned" in trial.states().values():
        raise LabError(
            f"{trial.directory.path} was pruned: no Session of it is trained any more. Train its point anew."
        )


def set_stack(plan: SweepPlan) -> None:
    """Decide how many Trials run at the same time, and how many Sessions a job has.

    A job has Sessions of several Trials where no point waits for the result of another, and nothing is pruned: a Trial
    is pruned by what its own Sessions reach side by side.
    """
    settings, seeds, slots = plan.settings, len(plan.seeds), plan.composer.launcher.slots
    known = plan.points is not None or settings.only_trial is not None
    plan.mixes_trials = not (plan.prune or plan.standalone) and (known or not plan.composer.learns)
    remaining = plan.count_remaining()
    if settings.parallel:
        remaining = min(remaining, settings.parallel * seeds)
    if settings.stack != "auto":
        stack = int(settings.stack)
    elif plan.prune:  # which saves most if all seeds of a Trial run side by side
        stack = seeds
    elif plan.mixes_trials:
        stack = pack(
            remaining, slots, remaining if plan.on_gpu else MAX_STACK
        )  # a job on a GPU splits what is too large
        stack = stack if known or stack <= seeds else -(-stack // seeds) * seeds  # whole Trials, to launch the next
    else:
        stack = min(pack(remaining, slots), seeds)
    plan.stack = stack if plan.mixes_trials else min(stack, seeds)
    plan.parallel = 1 if slots == 1 else settings.parallel or slots
    if plan.mixes_trials:
        plan.parallel = settings.parallel or (plan.total if known else max(plan.parallel, slots * plan.stack // seeds))
    if settings.detach:  # no controller will launch more
        plan.parallel = plan.total


def limit_stack(plan: SweepPlan, replay: int) -> None:
    """Let `stack=auto` stack no more Sessions than have space for replay memories of `replay` bytes each.

    On a GPU each job measures that by itself.
    """
    if plan.settings.stack == "auto" and replay and not plan.on_gpu:
        most = int(MEMORY_FRACTION * plan.composer.launcher.free_memory() / replay)
        plan.stack = max(1, min(plan.stack, most))


def estimate_replay(spec: Spec, spaces: Spaces) -> int:
    """Return about how many bytes the replay memory of a Session takes."""
    memory = getattr(spec.algo, "memory", None)
    return memory.estimate_bytes(spaces) if memory else 0


def pack(remaining: int, slots: int, most: int = MAX_STACK) -> int:
    """Return how many Sessions to stack in a job: as many as leave no slot idle, in as few rounds as possible.

    Args:
        remaining: Sessions to run.
        slots: jobs that run at the same time.
        most: Sessions that are stacked, at most.
    """
    rounds = -(-remaining // (slots * most))
    return max(1, -(-remaining // (slots * max(1, rounds))))


def number_points(
    composer: Composer,
    fixed: Sequence[str],
    points: Sequence[Point],
    started: Sequence[Trial],
    seeds: Sequence[int],
    swept: Sequence[str] = (),
) -> tuple[list[Point], str]:
    """Return the distinct points by number, and a note on points that were given more than once.

    Points are equal if their specs are; a Trial that was extended is still the one of its point. Started Trials keep
    their numbers, and new points follow.
    """

    def identity(point: Point) -> str:
        return spec_identity(composer, [*fixed, *point.extend().overrides], seeds)

    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(identity(point), []).append(point)
    known = {identity(trial.point) for trial in started}
    new = [resolve_point(composer, fixed, equal[0], seeds, swept) for key, equal in groups.items() if key not in known]
    repeated = [equal for equal in groups.values() if len(equal) > 1]
    note = ""
    if repeated:
        names = [" = ".join(dict.fromkeys(" ".join(point.overrides) for point in equal)) for equal in repeated]
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        note = (
            f"Of the {len(points)} points, {len(groups)} are different: {', '.join(names[:MAX_NAMED])}{more}"
            f" {'is' if len(names) == 1 else 'are'} trained once."
        )
    return [*(trial.point for trial in started), *new], note


def spec_identity(composer: Composer, overrides: Sequence[str], seeds: Sequence[int]) -> str:
    """Return a text that is the same for overrides that make the same specs."""
    return canonical([spec.to_dict() for spec in distinct_specs(composer, overrides, seeds)])


def resolve_point(
    composer: Composer, fixed: Sequence[str], point: Point, seeds: Sequence[int], swept: Sequence[str] = ()
) -> Point:
    """Return a point with the hyperparameters that its specs hold, those of `swept` that it does not set among them.

    They differ from those of its overrides where a value is interpolated or converted to the type of its key. A value
    that differs between seeds, and a choice of a config group, stays as written.
    """
    try:
        specs = [spec.to_dict() for spec in distinct_specs(composer, [*fixed, *point.overrides], seeds)]
    except LabError:  # its Sessions will fail with this error
        return point
    values = {}
    choices = composer.group_choices([*fixed, *point.overrides]) if swept else {}
    keys = (key.lstrip("+") for key in swept)
    for key, written in {**dict.fromkeys(keys, MISSING), **point.hyperparameters}.items():
        if written is MISSING and key in choices:
            written = choices[key]
        held = [_trained_value(select(spec, key), written) for spec in specs]
        values[key] = held[0] if len(set(map(canonical, held))) == 1 else written
    return replace(point, hyperparameters={key: value for key, value in values.items() if value is not MISSING})


def distinct_specs(composer: Composer, overrides: Sequence[str], seeds: Sequence[int]) -> list[Spec]:
    """Return the specs of some seeds, except those that differ from the first in nothing but the seed."""
    specs = composer.specs(overrides, seeds)
    return [spec for spec in specs if spec is specs[0] or spec.algo is not specs[0].algo]  # equal ones are one object


def select(spec: dict[str, Any], key: str) -> Any:
    """Return the value of a spec at a dotted key, or MISSING."""
    value: Any = spec
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return select(spec, ALIASES[key]) if key in ALIASES else MISSING
        value = value[part]
    return value


def _trained_value(held: Any, written: Any) -> Any:
    """Return the value that a spec holds for a written one; for {key: value}, only the keys that were written."""
    if held is MISSING or written is MISSING:
        return written if held is MISSING else held
    if isinstance(written, dict) and isinstance(held, dict):
        return {key: _trained_value(held.get(key, MISSING), value) for key, value in written.items()}
    return written if isinstance(held, dict) else held
