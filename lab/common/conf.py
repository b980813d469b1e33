"""Where the config groups are, and whether the package is in a clone."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def config_path() -> str:
    """Return the directory of the config groups: beside the package in a checkout, inside it once installed."""
    return str(PACKAGE.parent / "conf" if is_clone() else PACKAGE / "conf")


def is_clone() -> bool:
    """Return whether the package is used from a clone, not installed from a wheel."""
    return not (PACKAGE / "conf").is_dir()


def install_command(extra: str) -> str:
    """Return the command that installs an extra, as "pip install 'lab-rl[atari]'"."""
    return f"in the clone of Lab, pip install -e '.[{extra}]'" if is_clone() else f"pip install 'lab-rl[{extra}]'"
