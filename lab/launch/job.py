"""A job: what Hydra runs for one composed config, a stack of one or more Sessions."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from lab.errors import LabError
from lab.run_dir import RunDir, write_text
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

        states = train(specs, directories, spaces)
    except LabError as error:
        remove_unused(output)
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

    Every one gets the record of its composition that Hydra would have made for it alone.
    """
    if len(specs) == 1:
        return [RunDir(output)]
    directories = [RunDir(output / f"seed-{spec.seed}") for spec in specs]
    composed = output / ".hydra"
    if composed.is_dir():
        for spec, directory in zip(specs, directories, strict=True):
            shutil.copytree(composed, directory.hydra, dirs_exist_ok=True)
            _set_seed(directory.hydra, spec.seed)
        shutil.rmtree(composed)
    return directories


def _set_seed(folder: Path, seed: int) -> None:
    path = folder / "config.yaml"
    config = OmegaConf.load(path)
    config.seed = seed
    write_text(path, OmegaConf.to_yaml(config))
    path = folder / "overrides.yaml"
    words = [word for word in OmegaConf.load(path) if not str(word).startswith("seed=")]
    write_text(path, OmegaConf.to_yaml(OmegaConf.create([*words, f"seed={seed}"])))


def remove_unused(output: Path) -> None:
    """Remove a job's directory if all it holds is Hydra's record of a config that was refused."""
    hydra_only = output.is_dir() and all(
        path.name in (".hydra", "seed-0") or path.name.startswith("seed-") for path in output.iterdir()
    )
    used = [path for path in output.rglob("*") if path.is_file() and path.parent.name != ".hydra"]
    if hydra_only and not used:
        shutil.rmtree(output, ignore_errors=True)
        for folder in output.parents:
            if folder == Path.cwd() or Path.cwd() not in folder.parents or any(folder.iterdir()):
                break
            folder.rmdir()
