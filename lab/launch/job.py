"""A job: what Hydra runs for one composed config, a stack of one or more Sessions."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, flag_override

from lab.common.signals import was_asked_to_stop
from lab.errors import LabError, did_you_mean, print_error, print_to_stderr, warn_once
from lab.launch.job_trials import split_trials
from lab.launch.naming import is_default_directory, run_directory
from lab.launch.supervise import notify_supervisor
from lab.run.directory import RunDir, SweepDir, acquire_directory
from lab.run.files import read_yaml
from lab.run.guard import refuse_foreign
from lab.run.lock import LOCK_SECONDS
from lab.run.schemas import ENDED
from lab.run.trackers import is_rerun
from lab.spec import Spec, read
from lab.sweep_spec import read_max_file_size, read_sweep
from lab.trial import states_of

if TYPE_CHECKING:
    from lab.training.record import Outcome, Record

HANDOVER_SECONDS = 60.0  # for the process that had a job's Sessions before to end
EXIT_STATUS = {"completed": 0, "pruned": 0, "failed": 1, "interrupted": 130}
SWEEP_KEYS = ("search", "points", "plan", "retry", "mix_code", "only_trial", "detach")

START, START_FOLDER = time.time(), Path(os.path.realpath("."))
started = False  # whether the config was composed


def run(config: DictConfig) -> None:
    """Train the Sessions of a composed config in the directory that Hydra made; exit with a status other than 0.

    After a mistake in the config, the directory is removed again. A job of a sweep prints nothing: its results are in
    the directories of its Sessions.

    Raises:
        LabError: a mistake, in a sweep.
    """
    global started
    started = True
    threading.excepthook = _print_in_a_sentence
    given = Path(HydraConfig.get().runtime.output_dir)
    notify_supervisor("output", str(given))
    if not OmegaConf.is_missing(HydraConfig.get().job, "num") and HydraConfig.get().job.num is not None:
        analyze(_train(config, given, swept=True))
        return
    named = run_directory(config, HydraConfig.get())
    output = acquire_directory(named) if is_default_directory(HydraConfig.get(), "run") else named
    notify_supervisor("output", str(output))
    if output != named:
        hydra: Any = HydraConfig.get()
        with flag_override(hydra, ["readonly", "struct"], False):
            hydra.runtime.output_dir = str(output)
        if Path.cwd() == named:  # by hydra.job.chdir
            os.chdir(output)
    try:
        _refuse_sweep(config, output)
        records = _train(config, output)
    except (Exception, KeyboardInterrupt) as error:
        interrupted = KeyboardInterrupt() if was_asked_to_stop() else None  # it may come out as any other error
        if not interrupted and not isinstance(error, (LabError, MemoryError, OSError, KeyboardInterrupt)):
            raise
        status = print_error(interrupted or error, output)
    else:
        status = finish(records)
    for folder in {output, *([given] if given != named else [])}:
        remove_if_empty(folder)
    if status:
        sys.exit(status)


def resume(specs: list[Spec], directories: list[RunDir]) -> int:
    """Resume the interrupted Sessions in some directories as one stack, and return the exit status.

    Raises:
        LabError: they cannot be trained.
    """
    from lab import session
    from lab.env.vector import probe

    directories = [RunDir(directory.path.absolute()) for directory in directories]  # an environment may change the cwd
    for directory in directories:
        notify_supervisor("session", str(directory.path))
    return finish(session.train(specs, directories, probe(specs[0].env)))


def _print_in_a_sentence(problem: threading.ExceptHookArgs) -> None:
    """Print what stopped a thread: a full disk stops TensorBoard's writer before it stops the Session."""
    if isinstance(problem.exc_value, OSError):
        print_to_stderr(f"TensorBoard events cannot be written: {problem.exc_value.strerror}.")
    else:
        threading.__excepthook__(problem)


def _refuse_sweep(config: DictConfig, output: Path) -> None:
    for key in SWEEP_KEYS:  # which a spec from a run directory does not have
        if config.get(key):
            raise LabError(f"{key} is for a sweep, and this is a single job: add -m to the command.")
    if SweepDir(output).sweep.exists():
        raise LabError(f"{output} holds a sweep: choose another hydra.run.dir for a single job.")
    if "objective" in config:
        read_sweep(config)  # a mistake is told, although a single job does not use its keys


def _train(config: DictConfig, output: Path, swept: bool = False) -> list[Record]:
    """Check a composed config, train its Sessions and return their records.

    In a sweep, Sessions that have ended are left out: a cluster may run a job again of which some had ended.
    """
    trials = split_trials(config, _overrides())
    specs = [spec for trial in trials for spec in read_specs(trial.config, trial.overrides)]
    max_size = read_max_file_size(config)
    check_tuned(_overrides(), HydraConfig.get().runtime)
    if not swept:
        note_other_environment(specs[0].env.id, HydraConfig.get().runtime)
    from lab.training.lockstep import check_spaces

    owners = [trial for trial in trials for _ in trial.seeds]
    single = len(specs) == 1
    sessions = [
        (spec, RunDir(output if single else output / trial.subdir / f"seed-{spec.seed}"), trial, spaces)
        for spec, trial, spaces in zip(specs, owners, check_spaces(specs), strict=True)
    ]
    if swept:
        states = states_of({index: directory for index, (_, directory, _, _) in enumerate(sessions)})
        sessions = [sessions[index] for index, state in states.items() if state not in ENDED]
        if not sessions:
            return []
    elif not single:
        refuse_foreign(output, "hydra.run.dir", sweep=True)
    directories = [directory for _, directory, _, _ in sessions]
    for directory in directories:
        notify_supervisor("session", str(directory.path))
    from lab import session
    from lab.run.trust import warn_of_foreign_code

    for directory in directories:
        if not swept and directory.spec.exists():  # a sweep has warned of its own directory
            warn_of_foreign_code(directory.path, "to go on with it")
    composed = [trial.hydra_files(spec.seed) for spec, _, trial, _ in sessions]
    specs, spaces = [spec for spec, *_ in sessions], sessions[0][-1]
    patience = HANDOVER_SECONDS if swept else LOCK_SECONDS
    fit_memory = swept and config.get("stack") == "auto"
    return session.train(specs, directories, spaces, composed, not swept, patience, max_size, fit_memory)


def analyze(records: Sequence[Record | Outcome]) -> None:
    """Write the metrics of every Session, as far as its files allow."""
    from lab.analysis import analyze_session

    for record in records:
        try:
            analyze_session(record.dir)
        except (OSError, LabError) as error:
            print_to_stderr(f"The metrics of {record.dir.path} could not be made: {error}")


def finish(records: Sequence[Record | Outcome]) -> int:
    """Analyze Sessions that have ended, print their results and return the exit status."""
    from lab.analysis import analyze as analyze_run
    from lab.training.display import print_results

    try:
        analyze(records)
        if len(records) > 1:
            analyze_run(records[0].dir.path.parent)
    except KeyboardInterrupt:
        print("\nInterrupted while drawing; make metrics and pictures with: python -m lab report DIR", file=sys.stderr)
    if not is_rerun():  # which compares them
        print_results(records)
    return max(EXIT_STATUS[record.state] for record in records)


def read_specs(config: DictConfig, overrides: Iterable[str]) -> list[Spec]:
    """Return the specs of a composed config, whose networks know which keys the overrides set.

    Raises:
        LabError: an algorithm or network that does not suit the environment, rather than numbers that are not allowed.
    """
    specs = read(config, numbers=False)
    named = frozenset(override.partition("=")[0].lstrip("+") for override in overrides)
    for spec in specs:
        spec.net.named = named
    try:
        for spec in specs:
            spec.check_numbers()
    except LabError:
        from lab.training.lockstep import check_spaces

        check_spaces(specs[:1])
        raise
    return specs


def check_tuned(overrides: Iterable[str], runtime: Any) -> None:
    """Raise LabError if overrides name a tuned file that does not exist, because the group is optional to Hydra.

    If the network is another one than the tuned one, say that its tuned settings are left out.

    Args:
        overrides: of the config.
        runtime: Hydra's facts about the config, `hydra.runtime`.
    """
    folders = [Path(source.path) for source in runtime.config_sources if source.schema == "file"]
    options = sorted(path.stem for folder in folders for path in (folder / "tuned").glob("*.yaml"))
    for option in [override.partition("=")[2] for override in overrides if override.startswith("tuned=")]:
        if option not in options:
            raise LabError(
                f"tuned={option} does not exist.{did_you_mean(option, options)} Options are: {', '.join(options)}."
            )
    net, tuned = runtime.choices.get("net"), runtime.choices.get("tuned/net@net")
    if tuned and not any((folder / "tuned/net" / f"{tuned}.yaml").exists() for folder in folders):
        settings = tuned.removesuffix(net)
        known = sorted({path.stem for folder in folders for path in (folder / "net").glob("*.yaml")})
        files = {path.stem for folder in folders for path in (folder / "tuned/net").glob("*.yaml")}
        nets = " or ".join(f"net={name}" for name in known if f"{settings}{name}" in files)
        warn_once(f"tuned={runtime.choices['tuned']} sets keys of {nets}, which are left out with net={net}.")


def note_other_environment(env_id: str, runtime: Any) -> None:
    """Warn if env.id differs from that of the option of `env`, whose other settings still apply."""
    folders = [Path(source.path) for source in runtime.config_sources if source.schema == "file"]
    ids = {}
    for file in (file for folder in folders for file in sorted((folder / "env").glob("*.yaml"))):
        with suppress(LabError, OSError):
            ids[file.stem] = str(read_yaml(file).get("id", ""))
    option = runtime.choices.get("env")
    expected = ids.get(option, "")
    if expected in ("", "???", env_id) or "${" in expected:
        return
    fitting = [f"env={name}" for name, its_id in ids.items() if its_id == env_id]
    warn_once(
        f"env.id={env_id} is trained with what env={option} says of {expected}: its name, env.num_envs and tuned"
        f" settings. Write {' or '.join([*fitting, f'env=gymnasium env.id={env_id}'])} instead, unless that is meant."
    )


def _overrides() -> list[str]:
    """Return the overrides of this job, with their interpolations unresolved."""
    return list(OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False))  # type: ignore[arg-type]


def remove_if_empty(folder: Path, since: float = START) -> None:
    """Remove an empty directory that was made since a time, and its parents as far as the same is true of them."""
    with suppress(OSError):  # another process may use or remove one of them meanwhile
        for path in (folder, *folder.parents):
            if path.absolute() in (START_FOLDER, *START_FOLDER.parents):  # where a user's shell is
                return
            if not path.is_dir() or any(path.iterdir()) or path.stat().st_ctime < since:
                return
            path.rmdir()
