"""The command line: `python -m lab algo=a2c env=cartpole` trains, `python -m lab enjoy DIR` plays."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

COMMANDS = ("enjoy",)  # each a module in lab/command with a function main(words)


def config_path() -> str:
    """Return the directory of the config groups: beside the package in a checkout, inside it once installed."""
    package = Path(__file__).resolve().parent
    inside, beside = package / "conf", package.parent / "conf"
    return str(inside if inside.is_dir() else beside)


def main() -> None:
    """Run what the command line asks for, and exit with 0, 1 (failed), 2 (a mistake) or 130 (interrupted)."""
    from lab.errors import LabError

    words = sys.argv[1:]
    try:
        if words and words[0] in COMMANDS:
            import_module(f"lab.command.{words[0]}").main(words[1:])
            return
        if words and "=" not in words[0] and not words[0].startswith(("-", "+", "~")):
            from lab.errors import did_you_mean

            raise LabError(
                f"{words[0]!r} is not a command.{did_you_mean(words[0], COMMANDS)} Commands are: {', '.join(COMMANDS)};"
                " to train, write key=value, for example algo=a2c env=cartpole."
            )
        compose_and_run()
        status = 0
    except LabError as error:
        print(f"Error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("\nInterrupted before training began; nothing was lost.", file=sys.stderr)
        status = 130
    sys.exit(status)


def compose_and_run() -> None:
    """Let Hydra compose the config and run it."""
    import hydra
    from hydra.errors import CompactHydraException

    from lab.errors import LabError
    from lab.launch.job import run

    # Hydra prints tracebacks for errors it does not know; asked for full errors it hands all of them on to here.
    wanted = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"
    entry = hydra.main(config_path=config_path(), config_name="config")(run)
    try:
        entry()
    except LabError:
        raise
    except CompactHydraException as error:
        if wanted:
            raise
        cause = f" {str(error.__cause__).splitlines()[0]}" if error.__cause__ else ""
        raise LabError(f"{error}{cause}") from error
    except OSError as error:
        if wanted:
            raise
        raise LabError(f"{error.filename} cannot be written: {error.strerror}.") from error


if __name__ == "__main__":
    main()
