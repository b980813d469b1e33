"""The command line: `python -m lab algo=a2c env=cartpole` trains, `python -m lab enjoy DIR` plays."""

import sys

# Where Python looks first: with -m that is the working directory, in which a module of any name may lie. It is put back
# once what is imported below was found elsewhere.
FIRST = [] if sys.flags.safe_path or __name__ != "__main__" else [sys.path.pop(0)]

import os
import signal


def _end_at_once(*_: object) -> None:
    """End this process, which has nothing to lose yet."""
    os.write(2, b"\nInterrupted.\n")
    os._exit(130)


if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end_at_once)  # in the midst of an import, KeyboardInterrupt can become anything

from contextlib import nullcontext
from importlib import import_module

from lab.common.imports import installed_only
from lab.common.output import keep_going
from lab.common.signals import was_asked_to_stop
from lab.errors import LabError, did_you_mean, print_error, visible
from lab.launch.supervise import ProcessEndedError, supervise

sys.path[:0] = FIRST

COMMANDS = (
    "compare",
    "enjoy",
    "publish",
    "report",
    "rerun",
    "resume",
    "status",
)  # each a module in lab/command with a function main(words)
READING = ("compare", "enjoy", "publish", "report", "status")  # those for which a run directory is data
UNWATCHED = ("compare", "publish", "report", "rerun", "status")  # those that run no environment in their own process


def start() -> None:
    """Run what the command line asks for, what may run an environment in a process that is watched, and exit."""
    keep_going()
    if sys.argv[1:2] and sys.argv[1] in UNWATCHED:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        status = run()
    else:
        try:
            status = supervise(run)
        except KeyboardInterrupt as error:
            status = print_error(error)
        except ProcessEndedError as end:
            with installed_only() if sys.argv[1:2] == ["enjoy"] else nullcontext():
                status = import_module("lab.launch.aftermath").conclude(end)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # all is written, and it ends without a word
    sys.exit(status)


def main() -> None:
    """Run what the command line asks for in this process, and exit."""
    sys.exit(run())


def run() -> int:
    """Run what the command line asks for; return 0, 1 (failed), 2 (a mistake) or 130 (interrupted)."""
    words = sys.argv[1:]
    try:
        if words and words[0] in COMMANDS:
            asked = words[0] == "enjoy" and "code=here" in words[2:]
            with installed_only() if words[0] in READING and not asked else nullcontext():
                import_module(f"lab.command.{words[0]}").main(words[1:])
            return 0
        if words and "=" not in words[0] and not words[0].startswith(("-", "+", "~")):
            raise LabError(
                f"{words[0]!r} is not a command.{did_you_mean(words[0], COMMANDS)} Commands are: {', '.join(COMMANDS)};"
                " to train, write key=value, for example algo=a2c env=cartpole."
            )
        import_module("lab.command.train").main()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(visible(end.code), file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except (LabError, OSError, KeyboardInterrupt) as error:
        return print_error(KeyboardInterrupt() if was_asked_to_stop() else error)
    except Exception:
        if was_asked_to_stop():  # what interrupts an import can come out of it as any error
            return print_error(KeyboardInterrupt())
        raise
    return 0


if __name__ == "__main__":
    start()
