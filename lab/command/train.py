"""`python -m lab key=value ...`: let Hydra compose the config, and train what it says."""

from __future__ import annotations

import os
import sys

from lab.errors import LabError


def main() -> None:
    """Compose the config of the command line and train it.

    Raises:
        LabError: the config cannot be composed, unless HYDRA_FULL_ERROR asks for tracebacks.
    """
    import hydra

    from lab.common.conf import config_path
    from lab.launch import job
    from lab.sweep import register
    from lab.sweep.arguments import first_choices, prepare
    from lab.sweep.explain import explain

    register()
    full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let Hydra raise all errors instead of printing tracebacks of some
    try:
        sys.argv = [sys.argv[0], *prepare(sys.argv[1:])]
        hydra.main(config_path=config_path(), config_name="config")(job.run)()
    except LabError:
        raise
    except Exception as error:
        sentence = explain(error, sys.argv[1:], first_choices(sys.argv[1:]))
        if not sentence and isinstance(error, OSError):
            sentence = f"{error.filename or 'a file'} cannot be written: {error.strerror}."
        elif not (sentence or job.started):
            sentence = f"the config cannot be composed: {' '.join(str(error).split())}"
        if full_error or not sentence:
            raise
        raise LabError(sentence) from error
