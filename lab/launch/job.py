"""A job: what Hydra runs for one composed config, a stack of one or more Sessions."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from lab.common.signals import was_asked_to_stop
from lab.errors import LabError, did_you_mean, print_error, visible
from lab.launch.naming import run_directory
from lab.launch.supervise import report
from lab.run.directory import RunDir, SweepDir
from lab.run.guard import refuse_foreign
from lab.run.lock import LOCK_SECONDS
from lab.run.schemas import ENDED
from lab.spec import Spec, read
from lab.trial import states_of

if TYPE_CHECKING:
    from lab.train.record import Ended, Record

HANDOVER_SECONDS = 60.0  # how long a job waits for the process that had its Sessions before to end
STATUS = {"completed": 0, "pruned": 0, "failed": 1, "interrupted": 130}

START = time.time()
started = False  # whether composing the config is over


def run(config: DictConfig) -> None:
    """Train the Sessions of a composed config in the directory that Hydra made; exit with a status if all is not well.

    After a mistake in the config, the directory is left without a trace. In a sweep, what came of the Sessions is in
    their directories, and nothing is shown.

    Raises:
        LabError: a mistake, in a sweep.
    """
    global started
    started = True
    threading.excepthook = in_a_sentence
    output = Path(HydraConfig.get().runtime.output_dir)
    report("output", str(output))
    if is_swept():
        analyze(train(config, output, swept=True))
        return
    made, output = output, run_directory(config, HydraConfig.get())
    report("output", str(output))
    try:
        refuse_sweep(config, output)
        records = train(config, output)
    except (Exception, KeyboardInterrupt) as error:
        interrupted = KeyboardInterrupt() if was_asked_to_stop() else None  # which can come out as any other error
        if not interrupted and not isinstance(error, (LabError, MemoryError, OSError, KeyboardInterrupt)):
            raise
        status = print_error(interrupted or error, output)
    else:
        status = conclude(records)
    for folder in {made, output}:
        remove_empty(folder)
    if status:
        sys.exit(status)


def resume(specs: list[Spec], directories: list[RunDir]) -> int:
    """Train Sessions again whose directories hold them interrupted, and return the exit status.

    Raises:
        LabError: they cannot be trained.
    """
    from lab import session
    from lab.env.vector import probe

    lasting = [RunDir(directory.path.absolute()) for directory in directories]  # wherever an environment changes to
    for directory in lasting:
        report("session", str(directory.path))
    return conclude(session.train(specs, lasting, probe(specs[0].env)))


def in_a_sentence(problem: threading.ExceptHookArgs) -> None:
    """Say what stopped a thread; TensorBoard's writer has one, which a full disk stops before it stops the Session."""
    if isinstance(problem.exc_value, OSError):
        print(visible(f"TensorBoard events cannot be written: {problem.exc_value.strerror}."), file=sys.stderr)
    else:
        threading.__excepthook__(problem)


def is_swept() -> bool:
    """Say whether this job is part of a sweep."""
    return not OmegaConf.is_missing(HydraConfig.get().job, "num") and HydraConfig.get().job.num is not None


def refuse_sweep(config: DictConfig, output: Path) -> None:
    """Raise LabError for words that only a sweep understands, and for the directory of one."""
    for key in ("search", "plan", "retry", "mix_code"):  # a spec alone, as it lies in a run directory, has none of them
        if config.get(key):
            raise LabError(f"{key} is for a sweep, and this is a single job: add -m to the command.")
    if SweepDir(output).sweep.exists():
        raise LabError(f"{output} holds a sweep: choose another hydra.run.dir for a single job.")


def train(config: DictConfig, output: Path, swept: bool = False) -> list[Record]:
    """Check a composed config, train its Sessions and return their records.

    In a sweep, those that have ended are left alone: a cluster may run a job again of which some had.
    """
    specs = read(config)
    check_tuned(overrides(), HydraConfig.get().runtime.config_sources)
    from lab.train.lockstep import check_spaces

    spaces = check_spaces(specs)
    directories = [RunDir(output)]
    if len(specs) > 1:
        if not swept:
            refuse_foreign(output, "hydra.run.dir", sweep=True)
        directories = [RunDir(output / f"seed-{spec.seed}") for spec in specs]

    if swept:
        states = states_of(dict(enumerate(directories)))
        left = [index for index, state in states.items() if state not in ENDED]
        specs, directories = [specs[index] for index in left], [directories[index] for index in left]
        spaces = [spaces[index] for index in left]
        if not specs:
            return []

    for directory in directories:
        report("session", str(directory.path))
    from lab import session
    from lab.run.trust import warn_of_foreign_code

    if not swept:  # a sweep has said it of its own directory
        for directory in directories:
            if directory.spec.exists():
                warn_of_foreign_code(directory.path, "to go on with it")
    composed = [composition(config, spec.seed) for spec in specs]
    patience = HANDOVER_SECONDS if swept else LOCK_SECONDS
    return session.train(specs, directories, spaces[0], composed, not swept, patience)


def analyze(records: Sequence[Record | Ended]) -> None:
    """Make the figures of every Session, as far as its files allow."""
    from lab.analysis import analyze_session

    for record in records:
        try:
            analyze_session(record.dir)
        except (OSError, LabError) as error:
            print(visible(f"The figures of {record.dir.path} could not be made: {error}"), file=sys.stderr)


def conclude(records: Sequence[Record | Ended]) -> int:
    """Analyze every Session, show the results and return the exit status."""
    from lab.analysis import analyze as analyze_run
    from lab.train.display import print_results

    try:
        analyze(records)
        if len(records) > 1:
            analyze_run(records[0].dir.path.parent)
    except KeyboardInterrupt:
        print("\nInterrupted while drawing; make figures again with: python -m lab report DIR", file=sys.stderr)
    print_results(records)
    return max(STATUS[record.state] for record in records)


def check_tuned(words: Iterable[str], sources: Iterable[Any]) -> None:
    """Raise LabError if words ask for a tuned file that does not exist, which Hydra takes as optional.

    Args:
        words: overrides.
        sources: where Hydra looks for config files.
    """
    asked = [word.partition("=")[2] for word in words if word.startswith("tuned=")]
    folders = [Path(source.path) for source in sources if source.schema == "file"]
    options = sorted(path.stem for folder in folders for path in (folder / "tuned").glob("*.yaml"))
    for option in asked:
        if option not in options:
            raise LabError(
                f"tuned={option} does not exist.{did_you_mean(option, options)} Options are: {', '.join(options)}."
            )


def overrides() -> list[str]:
    """Return the overrides of this job, with their interpolations as they were written."""
    return list(OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False))  # type: ignore[arg-type]


def composition(config: DictConfig, seed: int) -> dict[str, str]:
    """Return what Hydra records of a composition, by the names of its files, as for one Session alone."""
    alone = OmegaConf.merge(config, {"seed": seed})
    hydra_config = HydraConfig.get()
    words = [word for word in overrides() if not word.startswith("seed=")]
    return {
        "config.yaml": OmegaConf.to_yaml(alone),
        "hydra.yaml": OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra_config})),
        "overrides.yaml": OmegaConf.to_yaml(OmegaConf.create([*words, f"seed={seed}"]), resolve=False),
    }


def remove_empty(folder: Path, since: float = START) -> None:
    """Remove a job's directory if it is empty and was made since a time, and those around it that are so then."""
    for path in (folder, *folder.parents):
        if not path.is_dir() or any(path.iterdir()) or path.stat().st_ctime < since:
            return
        path.rmdir()
