"""The page of an Experiment: what it holds, and what a browser makes of it."""

from __future__ import annotations

import base64
import json
import re
import shutil
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from plotly.offline import get_plotlyjs

from lab.analysis import plot_hyperparameters, report
from lab.analysis.experiment import experiment_results, read_experiment
from lab.analysis.plotting import rank_color
from lab.analysis.report import write_report
from lab.analysis.report_figures import MAX_POINTS, figure_data
from lab.common.terminal import Terminal
from lab.run.directory import SweepDir
from lab.run.files import read_json, write_sealed_json
from lab.run.schemas import MEANINGS, METRICS
from lab.sweep.summary import print_experiment
from tests.browser import Browser, needs_chromium
from tests.helpers import ROOT
from tests.synthetic import TRACEBACK, experiment

STATES = {(2, 1): "failed", (3, 0): "pruned", (5, 3): "pending"}
EVIL = '</script><b>bold</b><img src=x onerror="document.title=\'broken\'"> & "quoted" {{payload}} \u2028'


def write_page(folder: Path) -> str:
    return write_report(read_experiment(SweepDir(folder)))


def read_figures(folder: Path) -> dict[str, Any]:
    return figure_data(read_experiment(SweepDir(folder)))


def decode(array: dict[str, str]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(array["bdata"]), f"<{array['dtype']}")


def curves(traces: list[dict[str, Any]], trial: int, kind: str) -> list[np.ndarray]:
    return [decode(trace["y"]) for trace in traces if trace["meta"] == {"trial": trial, "kind": kind}]


def part(page: str, trial: int) -> str:
    """Return what the page says of a Trial."""
    return page[page.index(f'<tbody id="trial-{trial}"') :].partition('<tbody id="trial-')[2].partition("<tbody id=")[0]


def update_json(path: Path, **values: Any) -> None:
    write_sealed_json(path, read_json(path) | values)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six Trials of four seeds, not all of which completed, below a folder with an odd name."""
    return experiment(tmp_path_factory.mktemp("made") / "a b#c%20é", 6, 4, states=STATES).path


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return write_page(folder)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Experiment of 20 Trials over five hyperparameters with long names, and returns of five digits."""
    folder = experiment(tmp_path_factory.mktemp("made") / "wide", 20, 2, rows=4).path
    for number in range(20):
        point = read_json(folder / f"trial-{number:03}" / "point.json")
        more = {"algo.optimizer.max_grad_norm": number / 7, "algo.target_update_interval": 1000 + number}
        update_json(folder / f"trial-{number:03}" / "point.json", hyperparameters=point["hyperparameters"] | more)
        for table in folder.glob(f"trial-{number:03}/seed-*/*.csv"):
            rows = pd.read_csv(table)
            rows.assign(**{"return": -100 * rows["return"]} if "return" in rows else {}).to_csv(table, index=False)
    (folder / "report.html").write_text(write_page(folder), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Experiment with HTML in its name, hyperparameters, spec and traceback."""
    folder = experiment(tmp_path_factory.mktemp("made") / "evil", 4, 2, states={(1, 0): "failed"}).path
    update_json(folder / "sweep.json", name=EVIL)
    update_json(folder / "trial-000/point.json", hyperparameters={"algo.lr": 0.1, "algo.gamma": EVIL, EVIL: EVIL})
    update_json(folder / "trial-001/seed-0/status.json", error=f"Traceback\n{EVIL}")
    spec = folder / "trial-001/seed-1/spec.yaml"
    spec.write_text(spec.read_text() + f"note: {json.dumps(EVIL)}\n")
    update_json(folder / "trial-001/seed-1/provenance.json", command=EVIL)
    return folder


def test_the_table_has_the_hyperparameters_that_differ_and_the_ranking_in_order(folder: Path, page: str) -> None:
    columns = re.findall(r'data-key="([^"]*)"', page)
    assert [column for column in columns if "." in column] == ["algo.lr", "algo.gamma", "algo.advantage"]
    common = page.partition("Common to all Trials")[2]
    assert "env.id: CartPole-v1" in common and "\nalgo.lr:" not in common
    ranking = [ranked.trial.number for ranked in read_experiment(SweepDir(folder)).ranking]
    assert [int(number) for number in re.findall(r'<tbody id="trial-(\d+)"', page)] == [*ranking, 2, 3, 5]
    assert f'<a href="#trial-{ranking[0]}">trial-{ranking[0]:03}</a> is best' in page
    assert "95 % interval" not in page, "a space that does not break"
    for number in range(6):
        point = read_json(folder / f"trial-{number:03}" / "point.json")["hyperparameters"]
        assert f'data-value="{point["algo.lr"]}"' in part(page, number)


def test_ties_are_said_to_be_ties(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = experiment(tmp_path, trials=2, seeds=2, rows=3)
    for seed in (0, 1):
        one, other = (made.trial(number).session(seed) for number in (0, 1))
        shutil.copy(one.metrics, other.metrics)
        shutil.copy(one.episodes, other.episodes)
    page = write_page(tmp_path)
    assert "2 Trials are tied for the best" in page and "The runner-up is" not in page
    print_experiment(Terminal(soft_wrap=True), tmp_path, experiment_results(read_experiment(made)))
    assert "Tied for the best: trial-000, trial-001" in capsys.readouterr().out


def test_names_of_hyperparameters_are_shortened_to_what_is_unique(wide: Path) -> None:
    page = (wide / "report.html").read_text(encoding="utf-8")
    heads = dict(
        re.findall(r'<th scope="col" data-key="([^"]*)".*?<button type="button">(.*?)</button>', page, re.DOTALL)
    )
    names = [heads[key].replace("<wbr>", "") for key in heads if key.startswith("algo.")]
    assert names == ["lr", "gamma", "advantage", "max_grad_norm", "target_update_interval"]
    assert 'title="algo.optimizer.max_grad_norm"' in page


def test_a_trial_has_one_color_in_page_and_picture(folder: Path) -> None:
    ranking = read_experiment(SweepDir(folder)).ranking
    colors = read_figures(folder)["colors"]
    assert colors[str(ranking[0].trial.number)] == plot_hyperparameters.color_of(0)
    assert [colors[str(ranked.trial.number)] for ranked in ranking] == [
        rank_color(place) for place in range(len(ranking))
    ]


def test_metrics_explain_themselves(folder: Path, page: str) -> None:
    for name in ("strength", "consistency", "sample_efficiency", "stability"):
        assert f'title="{MEANINGS[name]}"' in page, name
    assert f'<abbr title="{MEANINGS["IQM"]}">IQM</abbr>' in page
    assert f"<dt>probability of improvement</dt><dd>{MEANINGS['probability of improvement']}</dd>" in page
    concepts = (ROOT / "docs/explanation/concepts.md").read_text(encoding="utf-8")
    assert [name for name in METRICS if f"`{name}`" not in concepts] == []


def test_importance_of_few_trials_has_a_caveat(wide: Path, tmp_path: Path) -> None:
    caveat = "rough: 8 Trials, fewer than 20"
    few = experiment(tmp_path / "few", 8, 2, rows=4).path
    assert f"Importance</abbr> is by PED-ANOVA; {caveat}." in write_page(few)
    assert caveat in read_figures(few)["panels"][0][0]["layout"]["title"]["text"]
    assert "rough: " not in (wide / "report.html").read_text(encoding="utf-8")


def test_counts_have_no_decimals(page: str) -> None:
    assert "<td>200,000 [200,000, 200,000]</td>" in page and "200,000.0" not in page


def test_few_seeds_separate_no_trials(page: str, wide: Path) -> None:
    assert "as it takes 4 seeds each" not in page
    assert "do not separate the two, as it takes 4 seeds each." in (wide / "report.html").read_text(encoding="utf-8")


def test_points_of_a_short_curve_are_marked(tmp_path: Path) -> None:
    short = read_figures(experiment(tmp_path / "short", 1, 2, rows=10).path)["columns"]
    modes = {column: {trace["mode"] for trace in short[column]["data"]} for column in ("return", "eval_return")}
    assert modes == {"return": {"lines"}, "eval_return": {"lines", "lines+markers"}}, "of one evaluation, and a band"


def test_a_reference_far_from_the_curves_is_named_and_not_drawn(tmp_path: Path) -> None:
    folder = experiment(tmp_path / "low", 1, 2).path
    for spec in folder.glob("*/*/spec.yaml"):
        spec.write_text(spec.read_text().replace("solved: 475.0", "solved: 4750.0"))
    layout = read_figures(folder)["columns"]["return"]["layout"]
    assert [shape["y0"] for shape in layout["shapes"]] == [22.24]
    assert [each["text"] for each in layout["annotations"]] == ["solved (4750) lies above", "random actions (22.24)"]


def test_a_failed_session_is_shown_and_excluded_from_means(folder: Path, page: str) -> None:
    trial = part(page, 2)
    assert "Not ranked: seed 1 failed" in trial and f"<pre>{TRACEBACK}".replace('"', "&#34;") in trial
    assert "1 of 24 Sessions failed and is excluded from means." in page
    figures = read_figures(folder)
    sessions = curves(figures["trials"]["2"], 2, "session")
    (mean,) = curves(figures["columns"]["return"]["data"], 2, "mean")
    completed = [values for values in sessions[:4] if len(values) == len(mean)]
    assert (len(completed), len(sessions[1])) == (3, len(mean) // 2)
    assert mean == pytest.approx(np.mean(completed, axis=0), rel=1e-5)
    low_and_high = curves(figures["columns"]["return"]["data"], 2, "band")[0]
    assert (low_and_high[: len(mean)] <= mean).all() and (low_and_high[len(mean) :][::-1] >= mean).all()


def test_frames_that_curves_share_are_stored_once(folder: Path) -> None:
    assert len(read_figures(folder)["frames"]) <= 6  # of metrics and evaluations, whole, cut, and around a band


def test_links_are_relative_and_lead_to_files(folder: Path, page: str) -> None:
    addresses = re.findall(r'<a href="([^"#]*)"', page.replace(get_plotlyjs(), ""))
    assert "trial-002/seed-1/" in addresses and "trial-002/seed-1/session.log" in addresses
    assert all((folder / unquote(address)).exists() for address in addresses)
    assert str(folder.parent) not in page


def test_a_link_is_percent_encoded(tmp_path: Path) -> None:
    renamed = shutil.move(experiment(tmp_path / "x", 1, 1).path, tmp_path / "a: b?#%é")
    session = read_experiment(SweepDir(renamed)).trials[0].sessions[0]
    assert report._files(session, tmp_path)["directory"] == "a%3A%20b%3F%23%25%C3%A9/trial-000/seed-0/"


def test_the_same_files_give_the_same_bytes_wherever_they_are(folder: Path, page: str, tmp_path: Path) -> None:
    assert write_page(folder) == page
    assert write_page(shutil.copytree(folder, tmp_path / "moved")) == page


def test_the_page_loads_nothing_from_a_network(page: str) -> None:
    assert page.count(get_plotlyjs()) == 1
    assert "://" not in page.replace(get_plotlyjs(), "")
    assert "default-src 'none'" in page and "unsafe-eval" not in page


def test_text_cannot_break_out_of_its_element(evil: Path, page: str) -> None:
    hostile = write_page(evil).replace(get_plotlyjs(), "")
    assert hostile.count("</script>") == page.replace(get_plotlyjs(), "").count("</script>")
    assert "<img" not in hostile and "<b>" not in hostile
    assert hostile.count("&lt;/script&gt;&lt;b&gt;bold&lt;/b&gt;") >= 6


def test_templates_are_package_data() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert settings["tool"]["setuptools"]["package-data"]["lab.analysis"] == ["templates/*"]
    assert (Path(report.__file__).parent / "templates" / "report.html.j2").exists()


def test_curves_are_thinned_and_keep_their_ends(tmp_path: Path) -> None:
    figures = read_figures(experiment(tmp_path, 1, 2, rows=1000).path)
    (line,) = (trace for trace in figures["columns"]["return"]["data"] if trace["meta"]["kind"] == "mean")
    frames = decode(figures["frames"][line["x"]])
    assert len(frames) == len(decode(line["y"])) == MAX_POINTS
    assert (np.diff(frames) > 0).all() and frames[0] <= 1_000 and frames[-1] == 200_000


@pytest.mark.parametrize(("trials", "rows"), [(12, 200), pytest.param(250, 200, marks=pytest.mark.slow)])
def test_a_report_is_small_and_soon_made(trials: int, rows: int, tmp_path: Path) -> None:
    sweep = experiment(tmp_path, trials, 4, rows)
    start = time.process_time()
    read = read_experiment(sweep)
    between = time.process_time()
    page = write_report(read)
    assert time.process_time() - between < 2 * (between - start) + 4  # seconds; optuna and plotly are imported
    print(len(page) - len(get_plotlyjs()), time.process_time() - between, between - start)
    assert len(page.encode()) - len(get_plotlyjs().encode()) < 30_000 + 8_000 * 4 * trials  # 8 MB for 1,000 Sessions


def no_session_completed(folder: Path) -> None:
    experiment(folder, 3, 2, states={(trial, seed): "interrupted" for trial in range(3) for seed in range(2)})


def nothing_started(folder: Path) -> None:
    experiment(folder, 3, 2, states={(trial, seed): "pending" for trial in range(3) for seed in range(2)})


def several_objectives(folder: Path) -> None:
    experiment(folder, 9, 2)
    metrics = {"metrics": ["return", "sample_efficiency"], "directions": ["maximize", "minimize"], "aggregate": "mean"}
    update_json(folder / "sweep.json", objective=metrics)


def missing_files(folder: Path) -> None:
    experiment(folder, 4, 2)
    (folder / "sweep.json").unlink()
    (folder / "trial-000/seed-0/provenance.json").unlink()
    (folder / "trial-000/seed-1/provenance.json").write_text("{torn")
    for path in (folder / "trial-001/seed-0").iterdir():
        if path.name != "status.json":
            path.unlink()
    update_json(folder / "trial-001/seed-0/status.json", state="failed", frame=0, error="LabError: no such device")


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
    no_session_completed, nothing_started, several_objectives, missing_files, nothing_differs, not_finite, one_seed,
]  # fmt: skip


def test_half_finished_and_odd_directories(tmp_path: Path) -> None:
    def make(case: Callable[[Path], None]) -> str:
        case(tmp_path / case.__name__)
        return write_page(tmp_path / case.__name__)

    page = make(no_session_completed)
    assert "No Trial is ranked yet" in page and "No metrics: no Session has completed." in part(page, 0)
    assert curves(read_figures(tmp_path / "no_session_completed")["columns"]["return"]["data"], 0, "session")
    page = make(nothing_started)
    assert (
        "Trials planned</dt><dd>3" in page
        and "0 of 6" in page
        and read_figures(tmp_path / "nothing_started")["columns"] == {}
    )
    page = make(one_seed)
    assert page.count("one seed: no interval") == 2 and "It is the only ranked Trial." in page
    figures = read_figures(tmp_path / "one_seed")
    assert [trace["meta"]["kind"] for trace in figures["columns"]["return"]["data"]] == ["mean"]
    page = make(several_objectives)
    front = [ranked.trial.number for ranked in read_experiment(SweepDir(tmp_path / "several_objectives")).front]
    assert page.count(" ◆<") == len(front) and "Pareto front" in page
    page = make(missing_files)
    assert "<title>missing_files: Experiment" in page
    assert "provenance.json cannot be read" in part(page, 0) and 'href="trial-001/seed-0/"' in part(page, 1)
    page = make(nothing_differs)
    assert "Spec, where it differs" not in page and 'data-key="algo.lr"' not in page
    make(not_finite)
    (values,) = curves(read_figures(tmp_path / "not_finite")["columns"]["value_loss"]["data"], 0, "mean")
    assert len(values) == 10 and np.isfinite(values).all()


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


ROWS = "[...document.querySelectorAll('#table > tbody:not([hidden])')].map(body => Number(body.dataset.trial))"
FILTER = """(text => {{ const box = document.getElementById('filter'); box.value = text;
    box.dispatchEvent(new Event('input')); return [{rows}, document.getElementById('shown').textContent]; }})({text})"""
TEXT = "document.querySelector({selector}).innerText"


def filtered(browser: Browser, text: str) -> tuple[list[int], str]:
    rows, shown = browser.run(FILTER.format(rows=ROWS, text=json.dumps(text)))
    return sorted(rows), shown


@needs_chromium
def test_a_browser_shows_every_trial_and_no_error(opened: Browser) -> None:
    assert len(opened.run(ROWS)) == 6
    assert opened.run("document.querySelectorAll('#curves .scatterlayer path.js-line').length") > 3
    assert opened.run("document.querySelectorAll('.panels .plotly').length") == 3
    assert opened.errors == []


@needs_chromium
def test_five_hyperparameters_fit_1280_pixels(browser: Browser, wide: Path) -> None:
    size = {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.ask("Emulation.setDeviceMetricsOverride", **size)
    browser.open(wide / "report.html")
    widths = "[...document.querySelectorAll('html, .scroller')].map(each => each.scrollWidth - each.clientWidth)"
    assert max(browser.run(widths)) == 0
    browser.ask("Emulation.clearDeviceMetricsOverride")


@needs_chromium
def test_sorting(opened: Browser, folder: Path) -> None:
    trials = read_experiment(SweepDir(folder)).trials
    rates = {trial.number: trial.value("algo.lr") for trial in trials}
    head = "document.querySelector('[data-key=\"algo.lr\"]')"
    assert opened.run(f"{head}.querySelector('button').click(), {ROWS}") == sorted(rates, key=rates.__getitem__)
    assert opened.run(f"{head}.getAttribute('aria-sort')") == "ascending"
    opened.run(f"{head}.querySelector('button').focus()")
    for kind in ("keyDown", "keyUp"):
        opened.ask("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13)
    assert opened.run(ROWS) == sorted(rates, key=rates.__getitem__, reverse=True)
    assert opened.run(f"{head}.getAttribute('aria-sort')") == "descending"
    assert opened.run("location.hash") == "#sort=-algo.lr"
    assert opened.errors == []


@needs_chromium
def test_filtering(opened: Browser, folder: Path) -> None:
    trials = read_experiment(SweepDir(folder)).trials
    slow = [trial.number for trial in trials if trial.value("algo.lr") < 0.01]
    assert filtered(opened, "state=failed") == ([2], "1 of 6 Trials")
    assert filtered(opened, "algo.lr < 0.01")[0] == slow == filtered(opened, "lr<0.01")[0]
    assert filtered(opened, "algo.lr>=0.01 state=failed")[0] == [2]
    assert filtered(opened, "environment broke")[0] == [2]
    gae = [trial.number for trial in trials if trial.value("algo.advantage") == "gae"]
    assert filtered(opened, "advantage=gae")[0] == gae
    assert len(filtered(opened, "rank<=2")[0]) == 2
    assert filtered(opened, "nonsense=1")[1] == "There is no column “nonsense”."
    assert len(filtered(opened, "")[0]) == 6
    assert opened.errors == []


@needs_chromium
def test_a_trial_opens_by_its_address(opened: Browser, folder: Path) -> None:
    opened.open(folder / "report.html", "#trial-2")
    inside = opened.run(TEXT.format(selector="'#trial-2 .inside'"))
    assert "Not ranked: seed 1 failed; 3 of 4 Sessions completed" in inside
    assert TRACEBACK.splitlines()[-1] in inside and "0123456789abcdef" in inside
    assert opened.run("document.querySelectorAll('#curves-2 .scatterlayer path.js-line').length") >= 4 * 5
    address = "document.querySelector('#trial-2 a[href*=seed-1]')"
    assert opened.run(f"{address}.href") == (folder / "trial-002/seed-1").as_uri() + "/"
    opened.run("document.querySelector('#trial-4 .disclose').click()")
    assert opened.run("location.hash") == "#trial-2&trial-4"
    opened.run("document.querySelector('#trial-2 .disclose').click()")
    assert opened.run("document.querySelectorAll('.details:not([hidden])').length") == 1
    assert opened.errors == []


@needs_chromium
def test_a_chosen_trial_has_its_curve_highlighted(opened: Browser) -> None:
    shown = "document.querySelector('#curves .legend').textContent"
    assert "trial-002" not in opened.run(shown)
    opened.run("document.querySelector('#trial-2 input').click()")
    assert "trial-002" in opened.run(shown)
    opened.run("const list = document.getElementById('column'); list.value = 'entropy'")
    opened.run("list.dispatchEvent(new Event('change'))")
    assert "entropy" in opened.run("document.querySelector('#curves .ytitle').textContent")
    assert opened.errors == []


@needs_chromium
def test_hostile_text_is_shown_as_text(browser: Browser, evil: Path) -> None:
    browser.errors.clear()
    (evil / "report.html").write_text(write_page(evil), encoding="utf-8")
    browser.open(evil / "report.html", "#trial-1&trial-0")
    assert browser.run("document.title") == f"{EVIL}: Experiment"
    assert browser.run("document.getElementById('name').textContent") == EVIL
    assert browser.run("document.querySelectorAll('img, main b').length") == 0
    assert browser.run("document.querySelector('main').textContent").count(EVIL) >= 6
    assert browser.errors == []


@needs_chromium
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_a_browser_shows_half_finished_directories(
    case: Callable[[Path], None], browser: Browser, tmp_path: Path
) -> None:
    case(tmp_path)
    browser.errors.clear()
    (tmp_path / "report.html").write_text(write_page(tmp_path), encoding="utf-8")
    browser.open(tmp_path / "report.html", "#trial-0&trial-1&all=1")
    shown = browser.run("document.querySelector('main').innerText")
    assert not re.search(r"undefined|NaN|\[object|None", shown)
    assert browser.run(f"{ROWS}.length") == len(read_experiment(SweepDir(tmp_path)).trials)
    assert base64.b64decode(browser.ask("Page.printToPDF")["data"]).startswith(b"%PDF")
    assert browser.errors == []
