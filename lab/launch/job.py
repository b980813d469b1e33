"""A job: what Hydra runs for one composed config, a stack of one or more Sessions."""

from __future__ import annotations

import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from lab.errors import LabError
from lab.run_dir import RunDir
from lab.spec import Spec, read

STATUS = {"completed": 0, "failed": 1, "interrupted": 130}


def run(config: DictConfig) -> None:
    """Train the Sessions of a composed config in the directory that Hydra made; exit with a status if all is not well.

    After a mistake in the config, the directory is left without a trace.
    """
    output = Path(HydraConfig.get().runtime.output_dir)
    try:
        specs = read(config)
        from lab.env.vector import probe

        spaces = probe(specs[0].env)
        for spec in specs:
            spec.algo.check_spaces(spaces, spec.env)
        directories = lay_out(specs, output)

        from lab.session import train

        states = train(specs, directories, spaces, [composition(config, spec.seed) for spec in specs])
    except LabError as error:
        remove_empty(output)
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
    from lab.analysis import analyse_session
    from lab.display import show_results

    for directory in directories:
        analyse_session(directory)
    show_results(specs, directories, states)
    status = max(STATUS[state] for state in states)
    if status:
        sys.exit(status)


def lay_out(specs: list[Spec], output: Path) -> list[RunDir]:
    """Return each Session's directory: the job's own for one, seed-N within it for each of a stack.

    Raises:
        LabError: one of them holds a Session already.
    """
    directories = [RunDir(output)]
    if len(specs) > 1:
        directories = [RunDir(output / f"seed-{spec.seed}") for spec in specs]
    for directory in directories:
        if directory.status.exists():
            state = directory.read_status()
            raise LabError(
                f"{directory.path} already holds a Session ({state['state']} at frame {state['frame']:,}):"
                " choose another hydra.run.dir, or remove it first."
            )
    return directories


def composition(config: DictConfig, seed: int) -> dict[str, str]:
    """Return what Hydra records of a composition, by the names of its files, as for one Session alone."""
    alone = OmegaConf.merge(config, {"seed": seed})
    hydra_config = HydraConfig.get()
    words = [word for word in hydra_config.overrides.task if not word.startswith("seed=")]
    return {
        "config.yaml": OmegaConf.to_yaml(alone),
        "hydra.yaml": OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra_config})),
        "overrides.yaml": OmegaConf.to_yaml(OmegaConf.create([*words, f"seed={seed}"])),
    }


def remove_empty(folder: Path) -> None:
    """Remove a job's directory if there is nothing in it, and those around it that are empty then."""
    for path in (folder, *folder.parents):
        inside = Path.cwd() in path.parents
        if not path.is_dir() or any(path.iterdir()) or (path != folder and not inside):
            return
        path.rmdir()
