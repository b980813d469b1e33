"""Parts of pages that are made when the site is built, where a page has a marker: <!-- generated: NAME -->."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import keys

ROOT = Path(__file__).resolve().parent.parent


def root_page(name: str, end: str = "") -> str:
    """Return a page of the repository's root, up to a line, with links that lead where they should from docs/."""
    text = (ROOT / name).read_text(encoding="utf-8")
    text = text[: text.index(end)] if end else text
    text = re.sub(r"!\[(.*?)\]\((?!\w+:)", r"![\1](../", text)
    text = text.replace("](docs/", "](")
    text = re.sub(r"(?<!!)\[(.*?)\]\((CHANGELOG|CONTRIBUTING)\.md", lambda m: f"[{m[1]}]({m[2].lower()}.md", text)
    text = text.replace("](#speed)", "](explanation/performance.md)")
    return re.sub(r"(?<!!)\[(.*?)\]\((?:results|benchmark)/.*?\)", r"`\1`", text)  # the site has no such files


def root_section(name: str, heading: str) -> str:
    """Return what stands below a heading of a page of the repository's root, for a page in a folder of docs/."""
    text = root_page(name).split(f"\n## {heading}\n")[1].partition("\n## ")[0]
    return re.sub(r"\]\((?!\w+:|#)", "](../", text)


SECTIONS: dict[str, Callable[[], str]] = {
    "README.md": lambda: root_page("README.md", end="<!-- the site goes on -->"),
    "README.md#Results": lambda: root_section("README.md", "Results"),
    "README.md#Speed": lambda: root_section("README.md", "Speed"),
    "CONTRIBUTING.md": lambda: root_page("CONTRIBUTING.md"),
    "CHANGELOG.md": lambda: root_page("CHANGELOG.md"),
    "config": keys.top_level,
    "algorithms": lambda: keys.group("algo", "algo."),
    "networks": lambda: keys.group("net", "net."),
    "environments": keys.environment,
    "launchers": lambda: keys.group("hydra/launcher", "hydra.launcher."),
    "pruners": lambda: keys.group("hydra/sweeper/pruner", "hydra.sweeper.pruner."),
    "search": keys.search_spaces,
    "commands": keys.commands,
    "stable-baselines3": keys.stable_baselines3,
}


def add_generated_sections(app: object, docname: str, source: list[str]) -> None:
    """Replace the markers of a page by Markdown (Sphinx's event "source-read")."""
    source[0] = re.sub(
        r"^<!-- generated: (\S+) -->$", lambda match: SECTIONS[match[1]](), source[0], flags=re.MULTILINE
    )


def setup(app: object) -> dict[str, bool]:
    """Register this module as an extension of Sphinx."""
    app.connect("source-read", add_generated_sections)  # type: ignore[attr-defined]
    return {"parallel_read_safe": True}
