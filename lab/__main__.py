"""The command line: `python -m lab algo=a2c env=cartpole` trains, `python -m lab enjoy DIR` plays."""

import sys

# With -m, Python looks for modules in the working directory first, where a module may have any name. This entry is put
# back once everything below was imported from elsewhere.
WORKING_DIRECTORY = [] if sys.flags.safe_path or __name__ != "__main__" else [sys.path.pop(0)]

import os
import signal


def _exit_at_once(*_: object) -> None:
    os.write(2, b"\nInterrupted.\n")
    os._exit(130)


if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _exit_at_once)  # during an import, KeyboardInterrupt can turn into any error

from contextlib import nullcontext
from importlib import import_module

from lab.common.imports import installed_only
from lab.common.output import keep_going
from lab.common.signals import was_asked_to_stop
from lab.errors import LabError, did_you_mean, print_error, print_to_stderr
from lab.launch.supervise import UnexpectedExitError, connect_to_caller, supervise

sys.path[:0] = WORKING_DIRECTORY

COMMANDS = (
    "compare",
    "enjoy",
    "export",
    "ls",
    "publish",
    "report",
    "rerun",
    "resume",
    "rm",
    "show",
    "status",
    "tag",
    "validate",
)  # lab.command.NAME.main(arguments)
READING = (
    "compare",
    "enjoy",
    "export",
    "ls",
    "publish",
    "report",
    "rm",
    "show",
    "status",
    "tag",
)  # those for which a run directory is only data
UNSUPERVISED = (
    "compare",
    "ls",
    "publish",
    "report",
    "rerun",
    "rm",
    "show",
    "status",
    "tag",
)  # those that run no environment in their own process


def start() -> None:
    """Run the command line, in a supervised process if it may run an environment, and exit."""
    keep_going()
    connect_to_caller()
    if sys.modules["lab"].__file__ is None:  # a namespace, whose __init__.py has not run
        print_error(LabError("The folder ./lab hides the package lab here: run it in another directory, as `cd lab`."))
        sys.exit(2)
    if sys.argv[1:2] and sys.argv[1] in UNSUPERVISED:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        status = run()
    else:
        try:
            status = supervise(run)
        except KeyboardInterrupt as error:
            status = print_error(error)
        except UnexpectedExitError as end:
            with installed_only() if sys.argv[1:2] and sys.argv[1] in READING else nullcontext():
                status = import_module("lab.launch.unexpected_exit").handle_unexpected_exit(end)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # everything is written
    sys.exit(status)


def main() -> None:
    """Run the command line in this process, and exit."""
    sys.exit(run())


def run() -> int:
    """Run the command line; return 0, 1 (failed), 2 (a mistake) or 130 (interrupted)."""
    name, arguments = sys.argv[1] if sys.argv[1:] else "", sys.argv[2:]
    try:
        if name in COMMANDS:
            trusts_here = name == "enjoy" and "code=here" in arguments[1:]
            with installed_only() if name in READING and not trusts_here else nullcontext():
                import_module(f"lab.command.{name}").main(arguments)
        elif name and "=" not in name and not name.startswith(("-", "+", "~")):
            raise LabError(
                f"{name!r} is not a command.{did_you_mean(name, COMMANDS)} Commands are: {', '.join(COMMANDS)};"
                " to train, write key=value, for example algo=a2c env=cartpole."
            )
        else:
            import_module("lab.command.train").main()
    except SystemExit as end:
        if isinstance(end.code, str):
            print_to_stderr(end.code)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except (LabError, OSError, KeyboardInterrupt) as error:
        return print_error(KeyboardInterrupt() if was_asked_to_stop() else error)
    except Exception:
        if was_asked_to_stop():  # an interrupted import can raise any error
            return print_error(KeyboardInterrupt())
        raise
    return 0


if __name__ == "__main__":
    start()
