"""How numbers, values and names are written in pictures, pages and tables, escaped and put into templates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.common.text import (
    format_estimate,
    format_interval,
    format_number,
    format_seeds,
    format_value,
    plural,
)
from lab.errors import visible
from lab.run.schemas import MEANINGS, meaning

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

ENOUGH_TRIALS = 20  # ranked, for an importance without a caveat


DISPLAY_NAMES = {
    "a2c": "A2C", "crossq": "CrossQ", "ddqn_per": "DDQN+PER", "dqn": "DQN", "ppo": "PPO", "pqn": "PQN",
    "rainbow": "Rainbow", "reinforce": "REINFORCE", "sac": "SAC", "sarsa": "SARSA", "td3": "TD3",
}  # of the algorithms in conf/algo, as papers write them  # fmt: skip


def display_name(algo: str) -> str:
    """Return the name of an algorithm for readers; that of one's own algorithm as it is."""
    return DISPLAY_NAMES.get(algo, algo)


def format_hyperparameter(value: Any) -> str:
    """Return a hyperparameter's value as in a config, floats to three digits.

    A float just below 1, such as a discount, keeps three digits of its distance from 1.
    """
    if isinstance(value, list):
        return f"[{','.join(map(format_hyperparameter, value))}]"
    if not isinstance(value, float):
        return format_value(value)
    if not np.isfinite(value) or not value:
        return f"{value:g}"
    if not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    if 0.99 < value < 1:
        return f"{value:.{1 - int(np.floor(np.log10(1 - value)))}g}"
    return f"{value:.{max(3, int(np.log10(abs(value))) + 1)}g}"


def capitalize(text: str) -> str:
    """Return text with its first letter in upper case and the others unchanged."""
    return text[:1].upper() + text[1:]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return for each dotted key its shortest ending that no other key has."""

    def name(key: str) -> str:
        parts = key.split(".")
        endings = (".".join(parts[place:]) for place in reversed(range(len(parts))))
        return next((end for end in endings if sum(f".{other}".endswith(f".{end}") for other in keys) == 1), key)

    return {key: name(key) for key in keys}


def breakable(name: str) -> Markup:
    """Return a name as HTML that may be broken after an underscore or a dot."""
    from markupsafe import Markup, escape

    return Markup("<wbr>").join(map(escape, re.split(r"(?<=[_.])", name)))


def importance_caveat(trials: int) -> str:
    """Return a caveat for importance computed from few ranked Trials; empty if there are enough."""
    return f"rough: {plural(trials, 'Trial')}, fewer than {ENOUGH_TRIALS}" if trials < ENOUGH_TRIALS else ""


def shorten(text: str, width: int) -> str:
    """Return text on one line, with its middle replaced by an ellipsis if it is longer than width."""
    text = " ".join(text.split())
    half = (width - 1) // 2
    return text if len(text) <= width else f"{text[: width - 1 - half]}…{text[-half:]}"


# An interval in brackets is no link and an underscore within a word no emphasis: both stay as they are.
_MARKDOWN = re.compile(r"(?P<interval>\[[-\d.,e+ ]*\](?![(\[:]))|[\\|*`~\[\]]|(?<!\w)_|_(?!\w)")


def escape_markdown(text: str) -> str:
    """Return text that Markdown shows literally, on one line and within a table cell."""
    text = _MARKDOWN.sub(lambda match: match["interval"] or f"\\{match[0]}", visible(text))
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").split())


def fence(code: str, language: str = "") -> str:
    """Return a Markdown code block with a fence longer than any in the code."""
    longest = max(map(len, re.findall("`+", code)), default=0)
    ticks = "`" * max(3, longest + 1)
    return "\n".join([f"{ticks}{language}", *map(visible, code.splitlines()), ticks])


@cache
def _templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    templates = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=select_autoescape(["html.j2"]),  # run directories may be a stranger's
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    functions = (
        format_number,
        format_interval,
        format_estimate,
        format_hyperparameter,
        format_seeds,
        plural,
        breakable,
    )
    templates.globals |= {"meanings": MEANINGS, "meaning": meaning}
    templates.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    templates.filters |= {function.__name__: function for function in (*functions, capitalize, fence)} | {
        "md": escape_markdown
    }
    return templates


def render(template: str, **context: Any) -> str:
    """Return a template of lab/analysis/templates/ filled with values; those ending in .html.j2 escape them."""
    text = _templates().get_template(template).render(**context)
    return text.replace("95 %", "95\N{NO-BREAK SPACE}%") if template.endswith(".html.j2") else text


def note_on_seeds(counts: Sequence[int]) -> str:
    """Return a note on a ranking whose Trials have different numbers of seeds; empty if they have the same."""
    if len(set(counts)) < 2:
        return ""
    return (
        f"Trials have {min(counts)} to {plural(max(counts), 'seed')}, and each is ranked by all of its own. One with"
        " few seeds may rank high by luck: give the best ones as many before a conclusion (resume TRIAL seed=...)."
    )


def note_on_extensions(trials: Sequence[int]) -> str:
    """Return a note on a ranking in which Trials of these numbers were extended; empty if none was."""
    if not trials:
        return ""
    names = ", ".join(f"trial-{number:03}" for number in sorted(trials))
    return f"Extended to more frames, and ranked by what it had at those of the others: {names}."
