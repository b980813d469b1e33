"""A spec and the options of config groups that a command line makes, composed in this process."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from omegaconf import open_dict

from lab.common.conf import config_path
from lab.common.text import quote
from lab.errors import LabError
from lab.launch.job import read_specs
from lab.spec import Spec


def compose(overrides: Sequence[str], options: Sequence[str] = (), seed: int = 0) -> tuple[Spec, dict[str, str]]:
    """Return the spec that overrides make, in which nothing is `auto` that a Session decides, and the chosen options.

    Args:
        overrides: of a single job; those of `hydra` are left out.
        options: of Hydra on the command line, among them pairs of `--config-dir` and a folder.
        seed: of the Session.

    Raises:
        LabError: they make no spec.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig

    from lab.sweep import register
    from lab.sweep.composer import hydra_config
    from lab.sweep.explain import explain
    from lab.training.lockstep import check_spaces

    register()
    folders = [folder for option, folder in pairwise(options) if option == "--config-dir"]
    searched = ",".join(quote(f"file://{folder}") for folder in folders)
    lines = [line for line in overrides if not line.lstrip("+~").startswith("hydra")]
    lines = [*lines, f"seed={seed}", *([f"hydra.searchpath=[{searched}]"] if folders else [])]
    try:
        with hydra.initialize_config_dir(config_path()), hydra_config():
            config = hydra.compose("config", lines, return_hydra_config=True)
            HydraConfig.instance().set_config(config)
            choices = {str(key): str(option) for key, option in config.hydra.runtime.choices.items()}
            with open_dict(config):
                del config["hydra"]
            (spec,) = read_specs(config, lines)
        check_spaces([spec])
        return spec, choices
    except LabError:
        raise
    except Exception as error:
        raise LabError(explain(error, lines, []) or f"{' '.join(lines)} makes no spec: {error}") from error
