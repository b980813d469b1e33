"""The documentation: its examples work as they are printed, and the site is built without a warning."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lab.common.text import flatten
from tests.browser import Browser, needs_chromium
from tests.examples import pattern, read_page, run_page
from tests.helpers import CONF, ROOT, specs

DOCS = ROOT / "docs"
PAGES = sorted(str(path.relative_to(ROOT)) for path in DOCS.rglob("*.md"))
EXAMPLES = [page for page in PAGES if any(block.kind == "console" for block in read_page(ROOT / page)[0])]
TUTORIALS = [path.stem for path in (DOCS / "tutorials").glob("*.md") if path.stem != "index"]
LOADED = re.compile(
    r"<(?:script|img|iframe|source|link)\b[^>]*\b(?:src|href)=\"(?:https?:)?//[^>]*>|@import|url\(['\"]?https?:"
)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", EXAMPLES)
def test_examples_do_what_the_page_shows(page: str, tmp_path: Path) -> None:
    run_page(page, tmp_path)


def test_every_tutorial_is_run() -> None:
    assert [name for name in TUTORIALS if f"docs/tutorials/{name}.md" not in EXAMPLES] == []


@pytest.mark.parametrize(
    ("expected", "printed", "fits"),
    [
        ("return  500.0\n", "return 21.5\n", True),
        ("return  500.0\n", "returns 21.5\n", False),
        ("A\n...\nB\n", "A\nx\ny\nB\n", True),
        ("A\n...\nB\n", "A\nx\n", False),
        ("trial-001  [1, 2.5]  ppo\n", "trial-001 [-10, 3e-4] ppo\n", True),
        ("trial-001  [1, 2.5]  ppo\n", "trial-002 [1, 2.5] ppo\n", False),
        ("seed 0, at (from 1 to 5)\n", "seed 3, at (from 22.5 to 1,000)\n", True),
        ("in .../outputs/a/2026-01-02/03-04-05\n", "in /x/outputs/a/2027-11-12/13-14-15-2\n", True),
    ],
)
def test_numbers_are_free_and_words_are_not(expected: str, printed: str, fits: bool) -> None:
    assert bool(re.fullmatch(pattern(expected), printed)) is fits


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site, as `make docs` does."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", "-d", str(folder / "cache")]
    done = subprocess.run([*command, str(DOCS), str(folder / "html")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    files = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(files) > 20
    for path in files:
        assert not LOADED.search(path.read_text(encoding="utf-8")), path
    assert "mathjax" not in "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.html")).lower()


@pytest.mark.slow
@needs_chromium
def test_no_page_scrolls_sideways_on_a_telephone(site: Path, tmp_path: Path) -> None:
    browser = Browser(tmp_path / "profile")
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.ask("Emulation.setDeviceMetricsOverride", **size)
    wide = []
    for page in sorted(site.rglob("*.html")):
        browser.open(page)
        if browser.run("document.documentElement.scrollWidth") > 390:
            wide.append(page.name)
    browser.close()
    assert wide == []


def test_the_reference_has_every_key_of_a_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS)
    import keys

    for algo in ("ppo", "rainbow", "sac"):
        listed = keys.read_keys(CONF / "algo" / f"{algo}.yaml")
        spec = flatten(specs(f"algo={algo}", "env=cartpole")[0].to_dict())
        missing = (
            {key for key in spec if key.startswith("algo.")} - {f"algo.{key}" for key in listed} - {"algo._target_"}
        )
        assert not {key for key in missing if not key.endswith("kwargs")}, algo
        schema = [keys.target(CONF / "algo" / f"{algo}.yaml")]
        for key in listed.values():
            assert key.meaning and (keys.allowed(schema, key.name) or key.name == "lr"), (algo, key)
    meanings = {key.name: key.meaning for key in keys.read_keys(CONF / "config.yaml").values()}
    assert meanings["eval.max_steps"] == "steps after which an evaluation episode is cut"
    assert "learning steps on, if there is a C++ compiler" in meanings["compile"], "a comment of several lines"


def test_keys_beside_those_of_others_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS)
    import keys

    known = set(keys.read_keys(CONF / "config.yaml"))
    for group in ("algo", "net", "env", "search"):
        known |= {f"{group}.{key}" for path in keys.files(group) for key in keys.read_keys(path)}
    text = (DOCS / "coming-from.md").read_text(encoding="utf-8")
    rows = [re.split(r"(?<!\\)\|", line)[2] for line in text.splitlines() if line.count("|") == 3]
    named = re.findall(r"(?<![\w.])((?:algo|net|env|eval|log|checkpoint|search|objective)\.\w[\w.]*\w)", "".join(rows))
    assert len(named) > 30
    assert set(named) - known == set()
