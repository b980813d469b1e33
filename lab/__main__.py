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

import re
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import LabError, did_you_mean, tell, visible
from lab.imports import installed_only
from lab.interruption import was_asked_to_stop
from lab.launch.supervise import ProcessEndedError, supervise
from lab.output import keep_going

sys.path[:0] = FIRST

if TYPE_CHECKING:
    from hydra.errors import MissingConfigException


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


def config_path() -> str:
    """Return the directory of the config groups: beside the package in a checkout, inside it once installed."""
    package = Path(__file__).resolve().parent
    inside, beside = package / "conf", package.parent / "conf"
    return str(inside if inside.is_dir() else beside)


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
            status = tell(error)
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
        compose_and_run()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(visible(end.code), file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except (LabError, OSError, KeyboardInterrupt) as error:
        return tell(KeyboardInterrupt() if was_asked_to_stop() else error)
    except Exception:
        if was_asked_to_stop():  # what interrupts an import can come out of it as any error
            return tell(KeyboardInterrupt())
        raise
    return 0


def compose_and_run() -> None:
    """Let Hydra compose the config and run it."""
    import hydra
    from hydra.errors import CompactHydraException, MissingConfigException
    from omegaconf.errors import OmegaConfBaseException

    from lab.launch import job, register

    register()
    # Hydra prints tracebacks for errors it does not know; asked for full errors it hands all of them on to here.
    wanted = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"
    entry = hydra.main(config_path=config_path(), config_name="config")(job.run)
    try:
        entry()
    except LabError:
        raise
    except (KeyboardInterrupt, SystemExit):
        raise
    except MissingConfigException as error:
        if wanted:
            raise
        raise LabError(missing_option(error)) from error
    except (CompactHydraException, OmegaConfBaseException) as error:
        if wanted:
            raise
        raise LabError(refused(str(error), str(error.__cause__ or ""))) from error
    except OSError as error:
        if wanted:
            raise
        raise LabError(f"{error.filename or 'a file'} cannot be written: {error.strerror}.") from error
    except Exception as error:
        # Composition is all that happens outside a job, so what went wrong there is in the words or in a config file.
        if wanted or job.started:
            raise
        raise LabError(f"the config cannot be composed: {' '.join(str(error).split())}") from error


def refused(message: str, cause: str) -> str:
    """Say in a sentence why Hydra could not compose the config."""
    missing = re.search(r"Missing mandatory value: (\S+)", message)
    if missing:
        return f"{missing[1]} is missing: it must be set, as in {missing[1]}=VALUE."
    unknown = re.search(r"Could not override '([^']+)'", message)
    if "Ambiguous value" in message:
        return f"{message.splitlines()[0]} A stack of seeds is written seed=[0,1]; a sweep needs -m."
    if not unknown:
        return f"{message.splitlines()[0]} {cause.splitlines()[0] if cause else ''}".strip()

    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    key = unknown[1]
    words = [word for word in sys.argv[1:] if re.match(r"[\w/]+=\w+$", word) and key not in word]
    with initialize_config_dir(config_path()):
        config = compose("config", [*words, f"hydra.searchpath=[{own_folder(sys.argv[1:])}]"])
    group, _, leaf = key.rpartition(".")
    while group and not OmegaConf.is_dict(OmegaConf.select(config, group)):
        group, _, leaf = group.rpartition(".")  # the first part of the key that is not there
    node = OmegaConf.select(config, group) if group else config
    keys = [word for word in node if word != "_target_"] if OmegaConf.is_dict(node) else []
    where = group or "the spec"
    options = f" Its keys are: {', '.join(map(str, keys))}." if keys else ""
    advice = f" To add it, write +{key}=VALUE." if where == "env.kwargs" else did_you_mean(leaf, map(str, keys))
    groups = [str(part) for part in config if OmegaConf.is_dict(config._get_node(part))]
    owners = [f"{part}.{leaf}" for part in groups if leaf in config[part]]
    if not group and owners:
        advice = f" Did you mean {owners[0]!r}?"
    return f"{key} cannot be set: {where} has no key {leaf!r}.{advice}{options}"


def own_folder(words: list[str]) -> str:
    """Return the place of the user's own config groups, which --config-dir names; empty if there are none."""
    from lab.plain import quote

    for word, following in zip(words, [*words[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        if option in ("--config-dir", "-cd"):
            return quote(f"file://{Path(value if equals else following).absolute()}")
    return ""


def missing_option(error: "MissingConfigException") -> str:
    """Say which option a config group does not have, and which it has."""
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    options = list(error.options or [])
    if not group or not options:
        return str(error)
    hint = f" Any Gymnasium environment: env=gymnasium env.id={option}" if group == "env" else ""
    return f"{group}={option} does not exist.{did_you_mean(option, options)} Options are: {', '.join(options)}.{hint}"


if __name__ == "__main__":
    start()
