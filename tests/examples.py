"""Runs the examples of a page of the documentation as a reader would, and compares what they print.

In a page's fenced blocks,

- `console` has commands, after "$ ", and what they print. A line "..." stands for any lines, "..." within a line for
  any text, a number for any number, runs of spaces for any, and a row of a ranking for any row. A run directory that
  is printed is the one that later commands mean by the same name;
- any other block that begins with a comment of a path, as "# my_package/__init__.py", is that file (Hydra's
  "# @package" may stand before it);
- all others are only read.

Training in full would take too long for a test: a comment "<!-- short: frames=2_000 ... -->" in a page adds overrides
to each command below it that trains, up to the next such comment. With LAB_FULL_EXAMPLES=1 nothing is added.
A comment "<!-- after: first-session.md -->" lets a page begin in the folder that another one leaves.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.helpers import ROOT, lab

PART = re.compile(r"^<!-- (short|after): *(.*?) *-->$|^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
DIRECTORY = re.compile(r"(?:outputs|multirun)/[\w.-]+/\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d(?:-\d+)?")
NUMBER = re.compile(r"(?<![\w.-])-?\d(?:[\d,]*\d)?(?:\.\d+)?(?:e[-+]?\d+)?(?!\w)")
RANKED = re.compile(r" *\d+  trial-\d+ ")
TRAINS = re.compile(r"^python -m lab (?=-|[\w./@]+=|~)(?!.*--(?:cfg|help|info))", re.MULTILINE)
FULL = os.environ.get("LAB_FULL_EXAMPLES") == "1"


@dataclass
class Block:
    """A fenced block of code, with the overrides for a short run of it."""

    kind: str
    text: str
    short: str = ""

    @property
    def file(self) -> str | None:
        """The path of the file that it is; None if it is none."""
        name = re.match(r"(?:# @package .*\n)?# (\S+\.\w+)\n", self.text)
        return name[1] if name and self.kind != "console" else None

    def commands(self) -> list[tuple[str, str]]:
        """Return each command with what it prints."""
        parts = re.split(r"^\$ ", self.text, flags=re.MULTILINE)
        assert not parts[0].strip(), f"output without a command: {parts[0]}"
        return [re.match(r"((?:[^\n]*\\\n)*[^\n]*)\n?(.*)", part, re.DOTALL).groups() for part in parts[1:]]  # type: ignore[union-attr,misc]


def read_page(path: Path, section: str = "") -> tuple[list[Block], str | None]:
    """Return the blocks of a page, or of one of its sections, and the page that it goes on from."""
    text, short, after = path.read_text(encoding="utf-8"), "", None
    if section:
        (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    blocks = []
    for key, value, indent, kind, body in PART.findall(text):
        if key == "short":
            short = value
        elif key == "after":
            after = value
        else:
            blocks.append(Block(kind, re.sub(rf"^{indent}", "", body, flags=re.MULTILINE), short))
    return blocks, after


@dataclass
class Place:
    """A folder in which the examples of a page are run, and which directories its commands were given."""

    folder: Path
    directories: dict[str, str] = field(default_factory=dict)

    def run(self, blocks: list[Block]) -> None:
        """Write the files of blocks and run their commands, one after the other."""
        for block in blocks:
            if block.file:
                path = self.folder / block.file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text)
            elif block.kind == "console":
                for command, expected in block.commands():
                    self._check(command, expected, block.short)

    def _run(self, command: str) -> subprocess.CompletedProcess[str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        env = {"PYTHONPATH": str(ROOT), "PATH": path, "COLUMNS": "1000"}
        if command.startswith("python -m lab ") and not re.search(r"[|<>;$]|&&", command):
            return lab(*shlex.split(command)[3:], timeout=600, cwd=self.folder, env=env)
        shell, env = ["bash", "-c", command], {**os.environ, **env}
        return subprocess.run(shell, capture_output=True, text=True, timeout=600, check=False, cwd=self.folder, env=env)

    def _check(self, command: str, expected: str, short: str) -> None:
        for shown, real in self.directories.items():
            command = command.replace(shown, real)
        if TRAINS.match(command) and not FULL:
            command = f"{command} {short}"
        left = DIRECTORY.search(re.sub("|".join(map(re.escape, self.directories.values())) or "$^", "", command))
        assert not left, f"{command}: no command above printed {left[0] if left else ''}"
        done = self._run(command)
        printed = (done.stdout + done.stderr).rstrip() + "\n"
        fits = re.fullmatch(pattern(expected), printed)
        assert fits, f"$ {command}\n{printed}\n--- is not what the page shows:\n{expected}"
        mistake = re.search(r"^Error: ", expected, re.MULTILINE)
        assert done.returncode == (2 if mistake else 0), f"$ {command}\n{printed}"
        self.directories |= dict(zip(DIRECTORY.findall(expected), fits.groups(), strict=True))


def pattern(expected: str) -> str:
    """Return what output must match, with a group for each run directory."""
    lines = []
    for line in expected.rstrip().splitlines():
        if line.strip() == "...":
            lines.append(r"(?:.*\n)*?")
            continue
        if RANKED.match(line):
            lines.append(r" *\d+  trial-\d+ .*\n")
            continue
        words = []
        for word in line.split():
            parts = re.split(rf"({DIRECTORY.pattern}|{NUMBER.pattern}|\.\.\.)", word)
            for index, part in enumerate(parts):
                if not index % 2:
                    words.append(re.escape(part))
                elif part == "...":
                    words.append(".*?")
                else:
                    words.append(rf"({DIRECTORY.pattern})" if DIRECTORY.fullmatch(part) else r"[^\s;)\]]*[^\s,;)\]]")
            words.append(" +")
        lines.append(" *" + "".join(words[:-1]) + " *\n" if words else " *\n")
    return "".join(lines) or r"\s*"


def run_page(page: str, folder: Path) -> Place:
    """Run the examples of a page in a new folder, after those of the page that it goes on from."""
    place = Place(folder)
    _run(page, place)
    return place


def _run(page: str, place: Place) -> None:
    blocks, after = read_page(ROOT / page)
    if after:
        _run(os.path.normpath(Path(page).parent / after), place)
    place.run(blocks)
