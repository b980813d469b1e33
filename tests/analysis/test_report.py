"""The report of an Experiment: what it holds, and what a browser makes of it."""

from __future__ import annotations

import base64
import json
import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from lab.analysis import report
from lab.analysis.experiment import read_experiment
from lab.analysis.report import POINTS, write_report
from lab.run.directory import SweepDir
from lab.run.files import read_json, write_sealed_json
from tests.synthetic import TRACEBACK, experiment

STATES = {(2, 1): "failed", (3, 0): "pruned", (5, 3): "pending"}
EVIL = '</script><b>bold</b><img src=x onerror="document.title=\'broken\'"> & "quoted" {{payload}} \u2028'
CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on PATH: apt-get install chromium")


def written(folder: Path) -> str:
    return write_report(read_experiment(SweepDir(folder)))


def payload(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="payload">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def held(folder: Path) -> dict[str, Any]:
    return payload(written(folder))


def by_number(data: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {trial["number"]: trial for trial in sorted(data["trials"], key=lambda trial: trial["number"])}


def lines(curve: list[Any]) -> np.ndarray:
    return np.array(curve[2:]) * 10.0 ** curve[1]


def change(path: Path, **values: Any) -> None:
    write_sealed_json(path, read_json(path) | values)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six Trials of four seeds, of which not all completed, below a folder with an odd name."""
    return experiment(tmp_path_factory.mktemp("made") / "a b#c%20é", 6, 4, states=STATES).path


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return written(folder)


def test_only_hyperparameters_that_differ_are_in_the_table(folder: Path, page: str) -> None:
    data = payload(page)
    assert data["hyperparameters"] == ["algo.lr", "algo.gamma", "algo.advantage"]
    assert not set(data["hyperparameters"]) & set(data["common"])
    assert data["common"]["env.id"] == "CartPole-v1"
    for number, trial in by_number(data).items():
        point = json.loads((folder / f"trial-{number:03}" / "point.json").read_text())["hyperparameters"]
        assert trial["hyperparameters"] == list(point.values())
        point["algo.optimizer.lr"] = point.pop("algo.lr")  # which is short for it
        assert trial["spec"] == point


def test_a_failed_session_is_shown_and_in_no_mean(page: str) -> None:
    data = payload(page)
    trial = by_number(data)[2]
    states = [session["state"] for session in trial["sessions"]]
    assert states == ["completed", "failed", "completed", "completed"]
    assert data["texts"][trial["sessions"][1]["error"]] == TRACEBACK
    assert trial["rank"] is None and "seed 1" in trial["reason"]
    completed = [session for session in trial["sessions"] if session["state"] == "completed"]
    n, mean, low, high, *_ = trial["figures"]["return"]
    assert n == 3
    assert mean == pytest.approx(np.mean([session["figures"]["return"] for session in completed]), rel=1e-5)
    assert low < mean < high
    curve = np.mean([lines(session["curves"]["return"])[0] for session in completed], axis=0)
    assert lines(trial["curves"]["return"])[0] == pytest.approx(curve, abs=0.2)
    assert "return" in trial["sessions"][1]["curves"]


def test_what_is_shared_is_held_once(page: str) -> None:
    data = payload(page)
    assert sorted(data["texts"]) == sorted([TRACEBACK, "pruned at rung 5 of 10 by MedianPruner"])
    assert len(data["provenances"]) == 1
    assert set(data["provenances"][0]["packages"]) == {"torch"}
    assert len(data["axes"]) <= 4  # of metrics and of evaluations, whole and cut


def test_the_ranking_comes_first_and_in_order(page: str) -> None:
    trials = payload(page)["trials"]
    assert [trial["rank"] for trial in trials] == [1, 2, 3, None, None, None]
    values = [trial["values"][0] for trial in trials[:3]]
    assert values == sorted(values, reverse=True)
    assert trials[0]["improvement"]["value"] > 0.5 and trials[2]["improvement"] is None


def test_links_are_relative_and_lead_to_files(folder: Path, page: str) -> None:
    addresses = [
        address
        for trial in payload(page)["trials"]
        for session in trial["sessions"]
        for address in session["files"].values()
    ]
    assert "trial-002/seed-1/" in addresses and "trial-002/seed-1/session.log" in addresses
    assert all((folder / unquote(address)).exists() for address in addresses)
    assert str(folder.parent) not in page


def test_a_link_is_percent_encoded(tmp_path: Path) -> None:
    session = read_experiment(experiment(tmp_path / "x", 1, 1)).trials[0].sessions[0]
    assert report._files(session, tmp_path)["directory"] == "x/trial-000/seed-0/"
    renamed = shutil.move(tmp_path / "x", tmp_path / "a: b?#%é")
    session = read_experiment(SweepDir(renamed)).trials[0].sessions[0]
    assert report._files(session, tmp_path)["directory"] == "a%3A%20b%3F%23%25%C3%A9/trial-000/seed-0/"


def test_the_same_files_give_the_same_bytes_wherever_they_are(folder: Path, page: str, tmp_path: Path) -> None:
    assert written(folder) == page
    assert written(shutil.copytree(folder, tmp_path / "moved")) == page


def test_the_page_asks_nothing_of_a_network(page: str) -> None:
    assert set(re.findall(r"\w+://[^\s\"'<]*", page)) == {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in page


def test_data_cannot_break_out_of_its_element(evil: Path, page: str) -> None:
    harmed = written(evil)
    data = payload(harmed)
    assert data["name"] == EVIL and EVIL in by_number(data)[0]["hyperparameters"]
    assert harmed.count("</script>") == page.count("</script>")
    assert harmed.count("<img") == 0 == page.count("<img")


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Experiment in whose name, hyperparameters, spec and traceback somebody wrote HTML."""
    folder = experiment(tmp_path_factory.mktemp("made") / "evil", 4, 2, states={(1, 0): "failed"}).path
    change(folder / "sweep.json", name=EVIL)
    change(folder / "trial-000/point.json", hyperparameters={"algo.lr": 0.1, "algo.gamma": EVIL, EVIL: EVIL})
    change(folder / "trial-001/seed-0/status.json", error=f"Traceback\n{EVIL}")
    spec = folder / "trial-001/seed-1/spec.yaml"
    spec.write_text(spec.read_text() + f"note: {json.dumps(EVIL)}\n")
    change(folder / "trial-001/seed-1/provenance.json", command=EVIL)
    return folder


def test_curves_are_thinned_and_keep_their_ends(tmp_path: Path) -> None:
    folder = experiment(tmp_path, 1, 2, rows=1000).path
    data = held(folder)
    trial = data["trials"][0]
    axis, _, *band = trial["curves"]["return"]
    assert [len(line) for line in band] == [POINTS] * 3
    frames = data["axes"][axis]
    assert frames == sorted(set(frames)) and frames[0] <= 1_000 and frames[-1] == 200_000
    assert len(trial["sessions"][0]["curves"]["return"][2]) == POINTS


@pytest.mark.parametrize(("trials", "rows"), [(12, 200), pytest.param(250, 200, marks=pytest.mark.slow)])
def test_a_report_is_small_and_soon_made(trials: int, rows: int, tmp_path: Path) -> None:
    sweep = experiment(tmp_path, trials, 4, rows)
    start = time.process_time()
    read = read_experiment(sweep)
    between = time.process_time()
    page = write_report(read)
    assert time.process_time() - between < 2 * (between - start) + 2  # seconds; there is optuna to import
    template = len(Path(report.__file__).with_name("report.html").read_bytes())
    assert len(page.encode()) - template < 6_000 * 4 * trials  # bytes a Session: 6 MB for 1,000 of them


def no_session_completed(folder: Path) -> None:
    experiment(folder, 3, 2, states={(trial, seed): "interrupted" for trial in range(3) for seed in range(2)})


def nothing_begun(folder: Path) -> None:
    experiment(folder, 3, 2, states={(trial, seed): "pending" for trial in range(3) for seed in range(2)})


def several_objectives(folder: Path) -> None:
    experiment(folder, 9, 2)
    metrics = {"metrics": ["return", "sample_efficiency"], "directions": ["maximize", "minimize"], "aggregate": "mean"}
    change(folder / "sweep.json", objective=metrics)


def missing_files(folder: Path) -> None:
    experiment(folder, 4, 2)
    (folder / "sweep.json").unlink()
    (folder / "trial-000/seed-0/provenance.json").unlink()
    (folder / "trial-000/seed-1/provenance.json").write_text("{torn")
    for path in (folder / "trial-001/seed-0").iterdir():
        if path.name != "status.json":
            path.unlink()
    change(folder / "trial-001/seed-0/status.json", state="failed", frame=0, error="LabError: no such device")


def nothing_differs(folder: Path) -> None:
    experiment(folder, 2, 2)
    for name in ("spec.yaml", "point.json"):
        for path in sorted((folder / "trial-001").rglob(name)):
            shutil.copy(folder / "trial-000" / path.relative_to(folder / "trial-001"), path)


def not_finite(folder: Path) -> None:
    experiment(folder, 3, 2)
    for seed in (0, 1):
        path = folder / f"trial-000/seed-{seed}/metrics.csv"
        head, *rows = path.read_text().splitlines()
        place = head.split(",").index("value_loss")
        cells = [row.split(",") for row in rows]
        for row in cells[10:]:
            row[place] = "inf"
        path.write_text("\n".join([head, *(",".join(row) for row in cells)]) + "\n")
        spec = folder / f"trial-000/seed-{seed}/spec.yaml"
        spec.write_text(re.sub(r"log_std_init: .*", "log_std_init: .inf", spec.read_text()))


def one_seed(folder: Path) -> None:
    experiment(folder, 1, 1)


CASES: list[Callable[[Path], None]] = [
    no_session_completed, nothing_begun, several_objectives, missing_files, nothing_differs, not_finite, one_seed,
]  # fmt: skip


def test_no_session_completed(tmp_path: Path) -> None:
    no_session_completed(tmp_path)
    trial = held(tmp_path)["trials"][0]
    assert trial["state"] == "interrupted" and trial["rank"] is None
    assert trial["figures"] == {} == trial["curves"]
    assert "return" in trial["sessions"][0]["curves"]


def test_nothing_begun(tmp_path: Path) -> None:
    nothing_begun(tmp_path)
    data = held(tmp_path)
    assert (data["planned"], data["seeds"], data["columns"]) == (3, 2, [])
    assert data["trials"][0]["sessions"][0]["files"] == {}


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    one_seed(tmp_path)
    trial = held(tmp_path)["trials"][0]
    assert (trial["rank"], trial["lows"], trial["highs"], trial["improvement"]) == (1, [None], [None], None)
    n, mean, low, high, std, *_ = trial["figures"]["return"]
    assert n == 1 and mean is not None and (low, high, std) == (None, None, None)
    assert len(trial["curves"]["return"][2:]) == 1


def test_several_objectives(tmp_path: Path) -> None:
    several_objectives(tmp_path)
    data = held(tmp_path)
    assert all(len(trial["values"]) == 2 and trial["improvement"] is None for trial in data["trials"])


def test_missing_files(tmp_path: Path) -> None:
    missing_files(tmp_path)
    data = held(tmp_path)
    assert data["name"] == tmp_path.name
    first, second = by_number(data)[0]["sessions"]
    assert first["provenance"] is None
    assert data["provenances"][second["provenance"]]["git"]["note"] == "provenance.json cannot be read"
    assert by_number(data)[1]["sessions"][0]["files"] == {"directory": "trial-001/seed-0/"}


def test_nothing_differs(tmp_path: Path) -> None:
    nothing_differs(tmp_path)
    data = held(tmp_path)
    assert data["hyperparameters"] == [] and all(trial["spec"] == {} for trial in data["trials"])


def test_what_is_not_finite(tmp_path: Path) -> None:
    not_finite(tmp_path)
    trial = by_number(held(tmp_path))[0]
    assert len(trial["curves"]["value_loss"][2]) == 10
    assert trial["spec"]["algo.log_std_init"] == "Infinity"


class Browser:
    """Chromium without a window, spoken to over two pipes in the DevTools protocol."""

    def __init__(self, profile: Path) -> None:
        theirs, self._commands = os.pipe()
        self._answers, ours = os.pipe()
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe")
        # It reads commands from descriptor 3 and answers on 4.
        words = ["bash", "-c", f'exec "$@" 3<&{theirs} 4>&{ours}', "bash", str(CHROMIUM), *flags]
        self._process = subprocess.Popen(
            [*words, f"--user-data-dir={profile}", "--window-size=1366,768"],
            pass_fds=(theirs, ours), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs)
        os.close(ours)
        self._pending = b""
        self._count, self._session = 0, {}
        self._events: list[str] = []
        self.errors: list[Any] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": params, **self._session}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._count:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._pending:
            assert select.select([self._answers], [], [], 60)[0], "chromium does not answer"
            more = os.read(self._answers, 1 << 20)
            assert more, "chromium ended"
            self._pending += more
        text, _, self._pending = self._pending.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self._events.append(message["method"])
        if message.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.errors.append(message["params"])
        return message

    def open(self, path: Path, fragment: str = "") -> None:
        for address in ("about:blank", path.as_uri() + fragment):
            self._events.clear()
            self.ask("Page.navigate", url=address)
            while "Page.loadEventFired" not in self._events:
                self._read()

    def run(self, script: str) -> Any:
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def close(self) -> None:
        self.ask("Browser.close")
        self._process.wait(30)
        os.close(self._commands)
        os.close(self._answers)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    made = Browser(tmp_path_factory.mktemp("profile"))
    yield made
    made.close()


@pytest.fixture
def opened(browser: Browser, folder: Path, page: str) -> Browser:
    (folder / "report.html").write_text(page, encoding="utf-8")
    browser.errors.clear()
    browser.open(folder / "report.html")
    return browser


ROWS = "[...document.querySelectorAll('#table tr.trial')].map(row => Number(row.id.split('-')[1]))"
FILTER = """(text => {{ const box = document.getElementById('filter'); box.value = text;
    box.dispatchEvent(new Event('input')); return [{rows}, document.getElementById('shown').textContent]; }})({text})"""
TEXT = "document.querySelector({selector}).innerText"


def filtered(browser: Browser, text: str) -> tuple[list[int], str]:
    rows, shown = browser.run(FILTER.format(rows=ROWS, text=json.dumps(text)))
    return sorted(rows), shown


@needs_chromium
def test_a_browser_shows_every_trial_and_no_error(opened: Browser) -> None:
    assert len(opened.run(ROWS)) == 6
    assert "1 of 24 Sessions failed: it is in no mean" in opened.run(TEXT.format(selector="'#failures'"))
    assert opened.run("document.querySelectorAll('#curves path').length") > 3
    assert opened.errors == []


@needs_chromium
def test_sorting(opened: Browser, page: str) -> None:
    trials = by_number(payload(page))
    rates = {number: trial["hyperparameters"][0] for number, trial in trials.items()}
    assert opened.run(ROWS)[:3] == sorted((n for n in trials if trials[n]["rank"]), key=lambda n: trials[n]["rank"])
    head = "document.querySelector('[data-key=\"algo.lr\"]')"
    assert opened.run(f"{head}.querySelector('button').click(), {ROWS}") == sorted(rates, key=rates.__getitem__)
    assert opened.run(f"{head}.getAttribute('aria-sort')") == "ascending"
    opened.run(f"{head}.querySelector('button').focus()")
    for kind in ("keyDown", "keyUp"):
        opened.ask("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13)
    assert opened.run(ROWS) == sorted(rates, key=rates.__getitem__, reverse=True)
    assert opened.run(f"{head}.getAttribute('aria-sort')") == "descending"
    assert opened.errors == []


@needs_chromium
def test_filtering(opened: Browser, page: str) -> None:
    trials = by_number(payload(page))
    slow = [number for number, trial in trials.items() if trial["hyperparameters"][0] < 0.01]
    assert filtered(opened, "state=failed") == ([2], "1 of 6 Trials")
    assert filtered(opened, "algo.lr < 0.01")[0] == slow == filtered(opened, "lr<0.01")[0]
    assert filtered(opened, "algo.lr>=0.01 state=failed")[0] == [2]
    assert filtered(opened, "environment broke")[0] == [2]
    assert filtered(opened, "advantage=gae")[0] == [n for n in trials if trials[n]["hyperparameters"][2] == "gae"]
    assert filtered(opened, "rank<=2")[0] == [number for number in trials if (trials[number]["rank"] or 9) <= 2]
    assert filtered(opened, "nonsense=1")[1] == "There is no column “nonsense”."
    assert len(filtered(opened, "")[0]) == 6
    assert opened.errors == []


@needs_chromium
def test_a_trial_opens_by_its_address(browser: Browser, opened: Browser, folder: Path) -> None:
    opened.open(folder / "report.html", "#trial-2")
    inside = opened.run(TEXT.format(selector="'.inside'"))
    assert "Not ranked: seed 1 failed; 3 of 4 Sessions completed" in inside
    assert TRACEBACK.splitlines()[-1] in inside and "0123456789abcdef" in inside
    address = "document.querySelector('.inside a[href*=seed-1]')"
    assert opened.run(f"{address}.getAttribute('href')") == "trial-002/seed-1/"
    assert opened.run(f"{address}.href") == (folder / "trial-002/seed-1").as_uri() + "/"
    opened.run("document.querySelector('#trial-4 .disclose').click()")
    assert opened.run("location.hash") == "#trial-2&trial-4"
    opened.run("document.querySelector('#trial-2 .disclose').click()")
    assert opened.run("document.querySelectorAll('.inside').length") == 1
    assert opened.errors == []


@needs_chromium
def test_a_row_that_is_chosen_has_its_curve_brought_out(opened: Browser) -> None:
    shown = "document.getElementById('legend').innerText"
    assert "Trial 2" not in opened.run(shown)
    opened.run("document.querySelector('#trial-2 input').click()")
    assert "Trial 2" in opened.run(shown)
    opened.run("const list = document.getElementById('column'); list.value = 'entropy'")
    opened.run("list.dispatchEvent(new Event('change'))")
    assert opened.run("document.querySelector('#curves svg').getAttribute('aria-label')") == "entropy over frames"
    assert opened.errors == []


@needs_chromium
def test_hostile_text_is_shown_as_text(browser: Browser, evil: Path) -> None:
    browser.errors.clear()
    (evil / "report.html").write_text(written(evil), encoding="utf-8")
    browser.open(evil / "report.html", "#trial-1&trial-0")
    assert browser.run("document.title") == f"{EVIL}: Experiment"
    assert browser.run("document.getElementById('name').textContent") == EVIL
    assert browser.run("document.querySelectorAll('img, main b').length") == 0
    everything = browser.run("document.querySelector('main').textContent")
    assert everything.count(EVIL) >= 6
    assert browser.errors == []


@needs_chromium
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_a_browser_shows_what_is_half_finished(case: Callable[[Path], None], browser: Browser, tmp_path: Path) -> None:
    case(tmp_path)
    browser.errors.clear()
    page = written(tmp_path)
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    browser.open(tmp_path / "report.html", "#trial-0&trial-1&all=1")
    shown = browser.run("document.querySelector('main').innerText")
    assert not re.search(r"undefined|NaN|\[object|Infinity(?! *$)", re.sub(r"log_std.*", "", shown))
    data = payload(page)
    assert browser.run(f"{ROWS}.length") == len(data["trials"])
    front = [trial for trial in data["trials"] if trial["rank"] == 1 and len(data["objective"]["metrics"]) > 1]
    assert shown.count(" ◆") == len(front) + bool(front)
    assert case is not one_seed or shown.count("one seed: no interval") >= 3
    pdf = base64.b64decode(browser.ask("Page.printToPDF")["data"])
    assert pdf.startswith(b"%PDF")
    assert browser.errors == []
