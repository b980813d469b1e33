"""Published results: their values by hand, how they compare with a peer's, and what the pages say."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.analysis import analyze, plotting
from lab.analysis.benchmark import Benchmark, Peer, read_benchmark, read_benchmarks
from lab.analysis.pages import AGGREGATES, picture_name, write_markdown, write_page
from lab.analysis.plot_published import plot_environment
from lab.analysis.plotting import PALETTE, band
from lab.analysis.published import Publication, Result, read_publication
from lab.analysis.published_across import group_results, list_excluded, plot_groups
from lab.analysis.published_tables import list_notes, list_shortfalls, results_csv, results_json, table
from lab.analysis.text import DISPLAY_NAMES, display_name
from lab.common.text import format_number
from lab.errors import LabError
from lab.run.directory import TrialDir, find_level
from lab.run.files import write_json, write_sealed_json
from tests import synthetic
from tests.analysis.test_card import alone, constant, spec_of
from tests.analysis.test_trial import session, trial
from tests.browser import Browser, needs_chromium
from tests.helpers import ALGORITHMS, ENVIRONMENTS, ROOT

CARTPOLE = {"id": "CartPole-v1", "random_return": 25.0, "solved": 475.0}
EVIL = '<script>alert(1)</script>|*bold*|"{{body}}"'


def result(
    *returns: float, peer: float | None = None, frames: int = 200_000, env: dict[str, Any] | None = None, **spec: object
) -> Result:
    """Make up a result whose Sessions ended at these returns."""
    env = {"name": "cartpole", "id": "CartPole-v1", "kwargs": {}, "reference": CARTPOLE, **(env or {})}
    whole = {"algo": {"name": "ppo"}, "env": env, "frames": frames, **spec}
    made = trial(*(session(seed, spec=whole, **{"return": value}) for seed, value in enumerate(returns)))
    if not returns:
        made = trial(session(0, "failed", spec=whole))
    peers = {} if peer is None else {(env["name"], whole["algo"]["name"]): Peer(200_000, peer, name="Peer")}
    return Result(made, peers)


def benchmark(**returns: float) -> Benchmark:
    """Make up a peer's results, by `algo_on_env`, of 200,000 frames each."""
    pairs = {tuple(reversed(name.split("_on_"))): value for name, value in returns.items()}
    peers = {(env, algo): Peer(200_000, value, name="Peer") for (env, algo), value in pairs.items()}
    return Benchmark("Peer", {"Peer": "their page"}, peers)


def publication(*results: Result, against: Benchmark | None = None) -> Publication:
    return Publication(Path("published"), list(results), {}, against, [])


def markdown(publication: Publication) -> str:
    return write_markdown(publication, group_results(publication))


def page_of(publication: Publication, pictures: dict[str, bytes]) -> str:
    return write_page(publication, group_results(publication), pictures)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two Trials on CartPole, one of which has a Session that failed, and one on Acrobot."""
    path = tmp_path_factory.mktemp("made") / "published"
    ppo = {**spec_of()["algo"], "name": "ppo"}
    alone(path / "first", [480.0, 490.0, 9999.0, 500.0], states={2: "failed"}, algo=ppo)
    alone(path / "second", [400.0, 400.0, 300.0, 500.0], frames=100_000)
    alone(path / "third", [-90.0, -80.0], env=spec_of("acrobot")["env"])
    return path


@pytest.fixture(scope="module")
def published(folder: Path) -> Publication:
    return read_publication(folder, benchmark(ppo_on_cartpole=501.0, a2c_on_cartpole=320.0, sarsa_on_pendulum=-1.0))


@pytest.fixture(scope="module")
def pictures(published: Publication) -> dict[str, bytes]:
    drawn = {env: plot_environment(published, env) for env in published.environments}
    return {AGGREGATES: plot_groups(group_results(published)), **drawn}


def test_the_results_of_slm_lab_are_those_of_its_table() -> None:
    actual = read_benchmark(ROOT / "benchmark" / "slm_lab.csv")
    assert actual.name == "SLM Lab v5.3"
    assert "docs/BENCHMARKS.md" in actual.sources["SLM Lab v5.3"]
    assert len(actual.peers) == 28
    assert actual.peers["cartpole", "ppo"] == Peer(200_000, 498.9, "return", "SLM Lab v5.3")
    assert actual.peers["lunarlander_continuous", "a2c"] == Peer(300_000, -76.8, "return", "SLM Lab v5.3")
    algorithms = ["reinforce", "sarsa", "dqn", "ddqn_per", "a2c", "ppo", "sac", "crossq"]
    environments = ["cartpole", "acrobot", "pendulum", "lunarlander", "lunarlander_continuous"]
    assert list(dict.fromkeys(algo for _, algo in actual.peers)) == algorithms
    assert list(dict.fromkeys(env for env, _ in actual.peers)) == environments
    assert set(algorithms) & set(ALGORITHMS) and set(environments) & set(ENVIRONMENTS)


def test_results_stand_on_completed_sessions_and_are_named_by_environment_and_algorithm(published: Publication) -> None:
    made = results_json(published)
    assert {env: list(algos) for env, algos in made.items()} == {"cartpole": ["ppo", "a2c"], "acrobot": ["a2c"]}
    actual = made["cartpole"]["ppo"]
    assert (actual["frames"], actual["sessions"], actual["planned"]) == (200_000, 3, 4)
    assert (actual["return"], actual["iqm"], actual["best"]) == (490.0, 490.0, 490.0)
    assert (actual["return_low"], actual["return_high"]) == (480.0, 500.0), "of three seeds, the ends are the values"
    assert actual["strength"] == pytest.approx(490 - 22.24)
    assert actual["solved"] == 3
    assert (actual["peer"], actual["peer_frames"], actual["difference"], actual["verdict"]) == (
        501,
        200_000,
        -11.0,
        "worse",
    )
    actual = made["cartpole"]["a2c"]
    assert (actual["return"], actual["iqm"], actual["solved"], actual["verdict"]) == (400.0, 400.0, 1, "better")
    actual = made["acrobot"]["a2c"]
    assert (actual["return"], actual["peer"], actual["difference"], actual["verdict"]) == (-85.0, None, None, None)


def test_the_table_has_a_row_for_each_trial(published: Publication) -> None:
    rows = list(csv.DictReader(io.StringIO(results_csv(published))))
    assert [(row["env"], row["algo"], row["directory"]) for row in rows] == [
        ("cartpole", "ppo", "first"), ("cartpole", "a2c", "second"), ("acrobot", "a2c", "third")
    ]  # fmt: skip
    assert (rows[0]["env_id"], rows[0]["return"], rows[0]["sessions"]) == ("CartPole-v1", "490.0", "3")
    assert (rows[1]["frames"], rows[1]["stability"], rows[1]["peer_frames"]) == ("100000", "1.0", "200000")
    assert rows[2]["peer"] == ""


@pytest.mark.parametrize(
    ("returns", "peer", "verdict"),
    [
        ((480.0, 490.0, 500.0), 479.9, "better"), ((480.0, 490.0, 500.0), 480.0, "even"),
        ((480.0, 490.0, 500.0), 495.0, "even"), ((480.0, 490.0, 500.0), 500.1, "worse"),
        ((500.0, 500.0), 498.9, "better"), ((483.3, 483.3), 483.3, "even"), ((500.0,), 400.0, None), ((), 400.0, None),
    ],
)  # fmt: skip
def test_better_and_worse_are_what_the_whole_interval_says(
    returns: tuple[float, ...], peer: float, verdict: str | None
) -> None:
    assert result(*returns, peer=peer).verdict == verdict
    assert result(*returns).verdict is None, "nothing to compare with"


def test_a_shortfall_is_a_share_of_the_way_from_random_actions() -> None:
    assert result(440.0, 460.0, peer=475.0).shortfall == pytest.approx(25 / 450)
    assert result(440.0, peer=475.0, env={"kwargs": {"a": 1}}).shortfall is None, (
        "of another environment nothing is known"
    )
    assert result(1.0, peer=20.0).shortfall is None, "the peer is below random actions"
    sentences = list_shortfalls(publication(result(440.0, 460.0, peer=475.0), against=benchmark()))
    assert sentences == [
        "PPO on CartPole-v1 is 25.0 below Peer's 475.0, 5.6 % of its gain over random actions;"
        " the 95 % interval is [440.0, 460.0]."
    ]
    for returns in ((440.0, 480.0), (480.0,), (480.0, 490.0)):
        assert list_shortfalls(publication(result(*returns, peer=475.0), against=benchmark())) == []


def test_what_a_reader_should_know_is_said(published: Publication) -> None:
    sentences = list_notes(published)
    assert "In PPO on CartPole-v1, seed 2 failed: Sessions that did not complete are excluded." in sentences
    assert (
        "A2C on CartPole-v1 was trained for 100,000 frames and Peer's for 200,000: that alone can make a difference."
    ) in sentences
    assert "Peer has results without a Trial here: on pendulum, SARSA." in sentences
    assert "Peer has no result of A2C on Acrobot-v1." in sentences


def test_a_peers_result_is_of_the_environment_as_it_is_and_of_no_other(tmp_path: Path) -> None:
    base = spec_of()["env"]
    against = benchmark(a2c_on_cartpole=490.0)
    for name, change in {"kwargs": {"kwargs": {"sutton_barto_reward": True}}, "id": {"id": "CartPole-v0"}}.items():
        alone(tmp_path / name / "a2c_cartpole", [500.0], env={**base, **change})
        (actual,) = read_publication(tmp_path / name, against).results
        assert actual.peer is None
    assert table(read_publication(tmp_path / "id"))[1][0][0] == "CartPole-v0"


def test_experiments_are_shown_and_sessions_are_left_alone_and_named(tmp_path: Path) -> None:
    alone(tmp_path / "a2c_cartpole", [500.0])
    alone(tmp_path / "nothing", [1.0], states={0: "pending"})
    alone(tmp_path / "deeper" / "ppo_cartpole", [500.0])
    alone(tmp_path / "waiting", [1.0], states={0: "pending"}).session(0).path.mkdir()
    write_json(TrialDir(tmp_path / "planned").path / "sweep.json", {"kind": "trial"})
    synthetic.experiment(tmp_path / "search_a2c", trials=2, seeds=2, rows=4)
    shutil.copytree(tmp_path / "a2c_cartpole" / "seed-0", tmp_path / "single")
    (tmp_path / "notes.txt").write_text("a file")
    actual = read_publication(tmp_path)
    assert [(each.env, each.key) for each in actual.results] == [("cartpole", "a2c")]
    assert actual.ignored == [
        "no Session of planned has started", "single is a Session, not a Trial", "no Session of waiting has started",
    ]  # fmt: skip
    assert "Ignored: single is a Session, not a Trial." in list_notes(actual)
    (name,) = actual.experiments
    best = actual.experiments[name].best
    assert name == "search_a2c" and best is not None
    sentence = actual.experiments[name].describe()
    assert sentence.startswith("2 of 2 Trials ranked, over algo.lr; ")
    assert f"the best by mean return: {format_number(best.values[0])} [" in sentence
    assert f"algo.lr={best.trial.hyperparameters['algo.lr']:.3g}" in sentence
    assert "![The Experiment search_a2c](pictures/search_a2c.png)" in markdown(actual)
    assert html.escape(sentence) in page_of(actual, {"cartpole": b"", "search_a2c": b""})
    (tmp_path / "search_a2c").rename(tmp_path / "cartpole")
    with pytest.raises(LabError, match=r"with the name, so also the picture, of an environment"):
        read_publication(tmp_path)


def test_the_same_files_give_the_same_bytes_wherever_they_are(
    folder: Path, published: Publication, pictures: dict[str, bytes], tmp_path: Path
) -> None:
    def made(actual: Publication, pictures: dict[str, bytes]) -> list[bytes]:
        texts = (
            json.dumps(results_json(actual)),
            results_csv(actual),
            markdown(actual),
            page_of(actual, pictures),
        )
        return [*(text.encode() for text in texts), *pictures.values()]

    first = made(published, pictures)
    moved = read_publication(shutil.copytree(folder, tmp_path / "somewhere else" / "published"), published.benchmark)
    drawn = {env: plot_environment(moved, env) for env in moved.environments}
    assert made(moved, {AGGREGATES: plot_groups(group_results(moved)), **drawn}) == first
    for text in first[:4]:
        for hidden in (b"2026-01-01", b"/somewhere", str(folder.parent).encode(), str(tmp_path).encode()):
            assert hidden not in text


def test_the_markdown_has_a_row_for_each_trial(published: Publication) -> None:
    lines = markdown(published).splitlines()
    assert lines[2].startswith("3 Trials of 2 algorithms on 2 environments; 9 of 10 Sessions completed.")
    assert lines[2].endswith("Compared with Peer on 2 results: 1 better, 0 even, 1 worse.")
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    assert rows[0] == ["environment", "frames", "algorithm", "n", "return", "95 % interval", "IQM", "frames to solve",
                       "time", "frames/s", "settings", "Peer", "difference", "verdict"]  # fmt: skip
    assert rows[2][:6] == ["CartPole-v1", "200,000", "PPO", "3 of 4", "490.0", "[480.0, 500.0]"]
    assert rows[2][11:] == ["501.0", "-11.0", "▼ worse"]
    assert rows[3][:5] == ["CartPole-v1", "100,000", "A2C", "4", "400.0"]
    assert rows[3][11:] == ["320.0", "80.0", "▲ better"]
    assert rows[4][:6] == ["Acrobot-v1", "200,000", "A2C", "2", "-85.0", "[-90.0, -80.0]"]
    assert rows[4][11:] == ["-", "-", "-"]
    assert "![Learning curves on CartPole-v1](pictures/cartpole.png)" in lines


def test_algorithms_and_environments_are_in_the_order_of_the_peer() -> None:
    made = publication(
        result(500.0), result(-80.0, env={"name": "acrobot", "id": "Acrobot-v1"}, algo={"name": "dqn"}),
        result(400.0, algo={"name": "mine"}), result(500.0, algo={"name": "dqn"}),
        against=benchmark(dqn_on_cartpole=240.0, ppo_on_cartpole=499.0),
    )  # fmt: skip
    assert [row[2] for row in table(made)[1]] == ["DQN", "PPO", "mine", "DQN"]


def test_every_algorithm_has_a_name_for_readers() -> None:
    assert set(ALGORITHMS) == set(DISPLAY_NAMES)
    assert display_name("mine") == "mine"


def test_variants_are_named_by_what_differs_or_by_their_directories(tmp_path: Path) -> None:
    base = spec_of()["algo"]
    for name, lr in (("slow", 1e-4), ("fast", 1e-2)):
        algo = {**base, "lr": lr, "optimizer": {**base["optimizer"], "lr": lr}}
        alone(tmp_path / name, [500.0, 480.0], algo=algo)
    alone(tmp_path / "ppo", [500.0, 490.0], algo={**base, "name": "ppo"})
    actual = read_publication(tmp_path, benchmark(a2c_on_cartpole=350.0))
    assert [row[2] for row in table(actual)[1]] == ["A2C lr=0.01", "A2C lr=1e-4", "PPO"]
    assert list(results_json(actual)["cartpole"]) == ["a2c lr=0.01", "a2c lr=1e-4", "ppo"]
    assert [row["variant"] for row in csv.DictReader(io.StringIO(results_csv(actual)))] == ["lr=0.01", "lr=1e-4", ""]
    assert plot_environment(actual, "cartpole").startswith(b"\x89PNG")
    assert "<b>A2C lr=1e-4</b>" in page_of(actual, {"cartpole": b""})
    shutil.copytree(tmp_path / "slow", tmp_path / "slow again")
    names = [row[2] for row in table(read_publication(tmp_path))[1]]
    assert names == ["A2C fast", "A2C slow", "A2C slow again", "PPO"]


def test_a_trial_or_an_experiment_is_published_itself(tmp_path: Path) -> None:
    one = alone(tmp_path / "a2c_cartpole", [500.0, 490.0])
    actual = read_publication(one.path)
    assert [each.title for each in actual.results] == ["A2C on CartPole-v1"]
    assert "python -m lab rerun a2c_cartpole</pre>" in page_of(actual, {"cartpole": b""})
    sweep = synthetic.experiment(tmp_path / "sweep", trials=3, seeds=2, rows=4)
    actual = read_publication(sweep.path)
    assert list(actual.experiments) == ["sweep"]
    assert len(actual.results) == 3 and all("lr=" in each.variant for each in actual.results)
    with pytest.raises(LabError, match=r"seed-0 is a Session\. What can be published is a Trial"):
        read_publication(one.session(0).path)


def test_of_a_trial_without_sessions_metrics_are_shown_and_marked(tmp_path: Path) -> None:
    kept = alone(tmp_path / "published" / "a2c_cartpole", [500.0, 490.0])
    old = alone(tmp_path / "published" / "ppo_cartpole", [400.0, 410.0], algo={**spec_of()["algo"], "name": "ppo"})
    before = read_publication(tmp_path / "published", benchmark(ppo_on_cartpole=300.0))
    analyze(old.path)
    for seed in old.seeds():
        shutil.rmtree(old.session(seed).path)
    old.point.unlink()
    actual = read_publication(tmp_path / "published", benchmark(ppo_on_cartpole=300.0))
    expected = [[*row[:2], row[2].replace("PPO", "PPO †"), *row[3:]] for row in table(before)[1]]
    expected[0][8:10] = ["-", "-"]  # how long it took stands in its Sessions
    assert table(actual)[1] == expected
    assert results_json(actual) == results_json(before)
    assert any(note.startswith("† Trained by older code") for note in list_notes(actual))
    page = page_of(actual, {"cartpole": b""})
    assert page.count("<h3>Use</h3>") == 1 and f"rerun published/{kept.path.name}" in page
    assert plot_environment(actual, "cartpole") != plot_environment(before, "cartpole")
    assert plot_environment(Publication(actual.path, actual.on("cartpole")[:1], {}, None, []), "cartpole")
    with pytest.raises(LabError, match="holds the metrics of a Trial, but none of its Sessions"):
        find_level(old.path)
    old.card.write_text("nothing")
    with pytest.raises(LabError, match=r"card\.md is damaged"):
        read_publication(tmp_path / "published")


def test_the_page_holds_everything_and_asks_nothing_of_a_network(published: Publication) -> None:
    page = page_of(published, dict.fromkeys((AGGREGATES, *published.environments), b"picture"))
    assert not re.findall(r"\w+://", page)
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert page.count("data:image/png;base64,cGljdHVyZQ==") == 3
    assert "python -m lab enjoy published/first/seed-3 video=films" in page
    assert "python -m lab rerun published/second" in page
    assert page.count("0123456789abcdef0123456789abcdef01234567") == 3
    assert "3 of 4 Sessions" in page and "9999" not in page
    assert "normalize_observations: false" in page, "the spec"


def test_text_cannot_break_out_of_the_pages(tmp_path: Path) -> None:
    base = spec_of()
    alone(
        tmp_path / "x" / "a b",
        [500.0],
        env={**base["env"], "name": EVIL, "id": EVIL},
        algo={**base["algo"], "name": EVIL},
    )
    actual = read_publication(tmp_path / "x")
    page = page_of(actual, {EVIL: b""})
    assert "<script" not in page and page.count("&lt;script&gt;") > 3
    assert "python -m lab rerun &#39;x/a b&#39;" in page
    text = markdown(actual)
    assert "<script" not in text and r"\|\*bold\*\|" in text
    assert picture_name(EVIL) == "pictures/-script-alert-1---script---bold-----body---.png"


@needs_chromium
def test_a_browser_shows_the_page(published: Publication, pictures: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(page_of(published, pictures), encoding="utf-8")
    browser = Browser(tmp_path / "profile")
    browser.open(tmp_path / "report.html")
    assert browser.run("[...document.images].map(image => image.naturalWidth > 1000)") == [True, True, True]
    assert "1 better, 0 even, 1 worse" in browser.run("document.querySelector('.lead').innerText")
    assert browser.run("[...document.querySelectorAll('.grid .worse')].map(cell => cell.innerText)") == ["▼ worse"]
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    assert browser.errors == []
    browser.close()


def test_curves_are_of_completed_sessions_alone(published: Publication, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def listen(ax: Any, frames: np.ndarray, values: np.ndarray, statistic: str = "mean", **line: Any) -> None:
        drawn.append((values.shape, values.max(), line["color"]))
        band(ax, frames, values, statistic, **line)

    monkeypatch.setattr(plotting, "band", listen)
    assert plot_environment(published, "cartpole").startswith(b"\x89PNG")
    assert plot_environment(published, "acrobot").startswith(b"\x89PNG")
    first, second = PALETTE[:2]
    assert [(shape[0], highest, color) for shape, highest, color in drawn] == [
        (3, 500.0, first), (4, 500.0, second), (2, -80.0, second)
    ], "an algorithm has the same color everywhere"  # fmt: skip


def test_odd_results_are_drawn_too(tmp_path: Path) -> None:
    alone(tmp_path / "one", [500.0])
    failed = {**spec_of()["algo"], "name": "$failed"}
    alone(tmp_path / "none", [1.0, 2.0], states={0: "failed", 1: "interrupted"}, algo=failed)
    actual = read_publication(tmp_path, benchmark(a2c_on_cartpole=490.0))
    assert plot_environment(actual, "cartpole").startswith(b"\x89PNG")
    assert results_json(actual)["cartpole"]["$failed"]["return"] is None
    assert results_json(actual)["cartpole"]["$failed"]["sessions"] == 0
    assert [row[2:6] for row in table(actual)[1]] == [["A2C", "1", "500.0", "-"], ["$failed", "0 of 2", "-", "-"]]
    shutil.rmtree(tmp_path / "one")
    assert plot_environment(read_publication(tmp_path), "cartpole").startswith(b"\x89PNG")


def test_a_directory_that_cannot_be_published_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="nothing cannot be published: there is no such directory"):
        read_publication(tmp_path / "nothing")
    with pytest.raises(LabError, match=r"holds no Trial: `python -m lab export DIR out=.*/ppo_cartpole` puts one into"):
        read_publication(tmp_path)
    one = alone(tmp_path / "one", [1.0])
    base = spec_of()
    other = {"algo": {**base["algo"], "name": "ppo"}, "env": {**base["env"], "id": "CartPole-v0"}}
    alone(tmp_path / "two", [1.0], **other)
    with pytest.raises(LabError, match="different environments under the name cartpole: CartPole-v1 and CartPole-v0"):
        read_publication(tmp_path)
    shutil.rmtree(tmp_path / "two")
    spec = one.session(0).spec
    spec.write_text(spec.read_text().replace("  name: a2c\n", ""))
    with pytest.raises(LabError, match="one cannot be published: the spec of none of its Sessions can be read"):
        read_publication(tmp_path)


def test_a_peers_file(tmp_path: Path) -> None:
    path = tmp_path / "peer.csv"
    with pytest.raises(LabError, match="it must be a CSV with the columns algo, env, frames and return"):
        read_benchmark(path)
    with pytest.raises(LabError, match="cannot be read"):
        read_benchmark(tmp_path)
    path.write_text("return,algo,env,frames,more\n 1.5, ppo ,cartpole,100,x\n")
    actual = read_benchmark(path)
    assert (actual.name, actual.sources) == ("peer", {"peer": ""}), "without a comment, the name of the file"
    assert actual.peers == {("cartpole", "ppo"): Peer(100, 1.5, "return", "peer")}
    assert read_benchmarks([]) is None


def test_of_several_peers_the_first_that_has_a_result_counts(tmp_path: Path) -> None:
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    first.write_text("# One: a page\nalgo,env,frames,return\nppo,cartpole,200000,300.0\n")
    second.write_text(
        "# Two: a table\nalgo,env,frames,return,metric\nppo,cartpole,200000,1.0,\n"
        "a2c,cartpole,200000,450.0,eval_return\n"
    )
    benchmark = read_benchmarks([first, second])
    assert benchmark is not None and benchmark.sources == {"One": "a page", "Two": "a table"}
    ppo = {**spec_of()["algo"], "name": "ppo"}
    alone(tmp_path / "all" / "ppo_cartpole", [480.0, 490.0], algo=ppo)
    made = alone(tmp_path / "all" / "a2c_cartpole", [480.0, 490.0])
    for seed, value in enumerate((400.0, 420.0)):
        constant(made.session(seed), 485.0, evaluated=value)
    columns, rows = table(publication := read_publication(tmp_path / "all", benchmark))
    assert columns[11] == "peer"
    assert rows[0][11:] == ["300.0 (One)", "185.0", "▲ better"]
    assert rows[1][4] == "485.0"
    assert rows[1][11:] == [
        "450.0 (Two, by evaluation; here 410.0 [400.0, 420.0])",
        "-40.0",
        "▼ worse",
    ]
    assert list_shortfalls(publication)[0].startswith("A2C on CartPole-v1 is 40.0 by evaluation below Two's 450.0")
    assert "Compared with One and Two on 2 results" in markdown(publication)


def test_settings_that_were_chosen_by_the_seeds_of_the_table_are_marked(tmp_path: Path) -> None:
    alone(tmp_path / "own", [480.0, 490.0], tuning={"source": "by hand", "seeds": [1, 2]})
    ppo = {**spec_of()["algo"], "name": "ppo"}
    alone(tmp_path / "fresh", [480.0, 490.0], algo=ppo, tuning={"source": "search", "seeds": [1000, 1001]})
    actual = read_publication(tmp_path)
    assert {result.algo: result.settings for result in actual.results} == {
        "a2c": "by hand on seeds 1 and 2 ‡", "ppo": "search on seeds 1000 and 1001"
    }  # fmt: skip
    (note,) = [note for note in list_notes(actual) if note.startswith("‡")]
    assert note.endswith(": A2C on CartPole-v1.")
    rows = list(csv.DictReader(io.StringIO(results_csv(actual))))
    assert {(row["settings"], row["tuned_on"]) for row in rows} == {("by hand", "1 2"), ("search", "1000 1001")}


def test_a_trial_that_was_stopped_on_success_has_no_verdict(tmp_path: Path) -> None:
    made = alone(tmp_path / "a2c_cartpole", [65.0, 66.0])
    for seed, frame in enumerate((8192, 10240)):
        status = made.session(seed).status
        content = {**json.loads(status.read_text()), "frame": frame, "stopped": "its return has reached 60"}
        write_sealed_json(status, {key: value for key, value in content.items() if key != "checksum"})
    actual = read_publication(tmp_path, benchmark(a2c_on_cartpole=500.0))
    assert table(actual)[1][0][-1] == "-"
    (note,) = [note for note in list_notes(actual) if "stopped on success" in note]
    assert note.startswith("A2C on CartPole-v1 was stopped on success after 8,192 to 10,240 frames")


def test_settings_that_the_command_line_changed_are_named(tmp_path: Path) -> None:
    made = alone(tmp_path / "a2c_cartpole", [480.0, 490.0], tuning={"source": "RL Zoo", "seeds": []})
    for seed in made.seeds():
        hydra = made.session(seed).hydra
        hydra.mkdir()
        (hydra / "overrides.yaml").write_text("- algo=a2c\n- algo.lr=0.1\n- frames=1000\n- log.every=5\n")
    (actual,) = read_publication(tmp_path).results
    assert actual.settings == "RL Zoo, but for algo.optimizer.lr, frames"


def test_what_has_no_common_scale_is_not_compared_over_environments(tmp_path: Path) -> None:
    unknown = {**spec_of()["env"], "name": "mine", "id": "Mine-v0"}
    shorter = {**spec_of("acrobot")["env"]}
    for name, env, frames in (("one", spec_of()["env"], 1000), ("two", unknown, 1000), ("three", shorter, 1000)):
        alone(tmp_path / f"a2c_{name}", [1.0, 2.0], env=env, frames=frames)
    ppo = {**spec_of()["algo"], "name": "ppo"}
    for name, env, frames in (("one", spec_of()["env"], 1000), ("three", shorter, 2000)):
        alone(tmp_path / f"ppo_{name}", [1.0, 2.0], env=env, frames=frames, algo=ppo)
    actual = read_publication(tmp_path)
    groups = group_results(actual)
    assert [list(group.results) for group in groups] == [["A2C"], ["PPO"]], "of other frames on Acrobot"
    assert [len(group.across.normalizations) for group in groups] == [2, 2]
    assert list_excluded(actual) == [
        "Not compared over environments, as no reference returns are known for its environment: A2C on Mine-v0."
    ]


def test_algorithms_are_compared_over_the_environments_that_they_share(tmp_path: Path) -> None:
    base = spec_of()
    for algo, cartpole, acrobot in (("a2c", [475.0, 475.0], [-100.0, -100.0]), ("ppo", [248.62, 248.62], None)):
        spec = {"algo": {**base["algo"], "name": algo}}
        alone(tmp_path / f"{algo}_cartpole", cartpole, **spec)
        if acrobot:
            alone(tmp_path / f"{algo}_acrobot", acrobot, **spec, env=spec_of("acrobot")["env"])
    dqn = {**base["algo"], "name": "dqn"}
    alone(tmp_path / "dqn_acrobot", [-100.0, -100.0], algo=dqn, env=spec_of("acrobot")["env"])
    alone(tmp_path / "dqn_cartpole", [22.24, 475.0], algo=dqn)
    against = benchmark(a2c_on_cartpole=248.62, a2c_on_acrobot=-100.0, dqn_on_cartpole=100.0)
    (group,) = group_results(read_publication(tmp_path, against))
    assert list(group.across.normalizations) == ["CartPole-v1", "Acrobot-v1"]
    assert [row[:3] for row in group.rows] == [["2 environments", "A2C", "2"], ["2 environments", "DQN", "2"]]
    assert group.rows[0][3:] == ["1 [1, 1]", "0.75", "0.75 [0.75, 0.75]"], "half of solved, and a tie"
    assert group.rows[1][4:] == ["-", "-"], "the peer has no result on Acrobot"
    assert "one" not in markdown(read_publication(tmp_path / "a2c_cartpole")), "nothing over several"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("algo,env,frames\nppo,cartpole,1\n", "no column 'return': its columns must be algo, env, frames and return"),
        ("# nothing\n", "has no column 'algo'"),
        ("algo,env,frames,return\nppo,cartpole,1,high\n", "ppo on cartpole: return=high is not allowed: return must"),
        ("algo,env,frames,return\nppo,cartpole,1,nan\n", "return must be a number"),
        ("algo,env,frames,return\nppo,cartpole,1.5,1\n", "ppo on cartpole: frames=1.5 is not allowed: frames must be"),
        ("algo,env,frames,return\n\n# x\nppo,cartpole\n", "ppo on cartpole: frames= is not allowed"),
        ("algo,env,frames,return\nppo,cartpole,1,1\nppo,cartpole,2,2\n", "two results of ppo on cartpole"),
    ],
    ids=["column", "empty", "number", "not finite", "whole", "short", "twice"],
)  # fmt: skip
def test_a_mistake_in_the_peers_results_is_a_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "peer.csv").write_text(text)
    with pytest.raises(LabError) as error:
        read_benchmark(tmp_path / "peer.csv")
    assert sentence in str(error.value)
