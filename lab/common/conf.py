"""Where the config groups are."""

from pathlib import Path


def config_path() -> str:
    """Return the directory of the config groups: beside the package in a checkout, inside it once installed."""
    package = Path(__file__).resolve().parents[1]
    inside, beside = package / "conf", package.parent / "conf"
    return str(inside if inside.is_dir() else beside)
