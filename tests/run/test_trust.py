"""Law 7, by name: a stranger's run directory is data."""

from __future__ import annotations

import json
import os
import re
import shutil
import site
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from markdown_it import MarkdownIt

from lab import spec as spec_module
from lab.command import compare, enjoy, publish, report, rerun, resume, status
from lab.common.imports import import_named, installed_only
from lab.common.interpolation import literal
from lab.errors import UNSAFE, LabError, print_error
from lab.run import trust
from lab.run.directory import RunDir, SweepDir
from lab.run.files import CHECKSUM, read_json, write_json
from tests import synthetic
from tests.helpers import ROOT, lab, train

EVIL = (
    "\x1b]0;owned\x07\x1b[31m\x9b2J\r[red]y[/red][link=http://z]:smile:\u202e&lt;</script><img src=x onerror=y>"
    '" onload=z [a](b) ![a](b) [1](b) **b** _c_ ~~d~~ `e` |\n\n```\n<b>f</b>\n# g'
)
KNOWN = (
    "mode",
    "state",
    "metrics",
    "directions",
    "aggregate",
    "kind",
    "updated",
    "_target_",
)  # their values are checked


def spoil(value: Any) -> Any:
    """Return plain data in which every text does harm if it is interpreted, except those that are checked."""
    if isinstance(value, dict):
        return {key: item if key in KNOWN else spoil(item) for key, item in value.items()}
    if isinstance(value, list):
        return [spoil(item) for item in value]
    return value + EVIL if isinstance(value, str) else value


def publishable(folder: Path, evil: str) -> Path:
    """Make up what can be published: an Experiment, and a Trial that is one of its own; return their folder."""
    path = synthetic.experiment(folder / "sweep", trials=3, seeds=2, rows=12, states={(2, 1): "failed"}).path
    for file in path.rglob("*.json"):
        content = json.loads(file.read_text())
        content.pop(CHECKSUM, None)  # a stranger may well leave it out
        if file.name == "point.json":
            content["hyperparameters"][f"key{evil}"] = content["hyperparameters"]["algo.advantage"]
        file.write_text(json.dumps(spoil(content) if evil else content))
    for file in path.rglob("spec.yaml"):
        spec = yaml.safe_load(file.read_text())
        spec["net"][f"key{evil}"] = "value"
        spec = spoil(spec) if evil else spec
        spec["env"]["reference"]["id"] = spec["env"]["id"]
        file.write_text(yaml.safe_dump(spec))
    for file in path.rglob("metrics.csv"):
        table = pd.read_csv(file)
        table["key" + evil.replace("\r", "") + "_loss"] = 1.0  # pandas would not quote it
        table.to_csv(file, index=False)
    shutil.copytree(path / "trial-000", folder / "trial")
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publishable(tmp_path_factory.mktemp("hostile") / os.fsdecode(b"a\x1b[2J[bold]\x9b"), EVIL)


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (status, ["sweep"]),
        (report, ["sweep"]),
        (report, ["trial"]),
        (report, ["trial/seed-0"]),
        (compare, ["sweep/trial-000", "sweep/trial-001", "out=."]),
        (enjoy, ["trial"]),
        (enjoy, ["trial/seed-0"]),
        (resume, ["trial/seed-0"]),
        (rerun, ["trial"]),
    ],
    ids=lambda given: "" if isinstance(given, list) else given.__name__.rpartition(".")[2],
)
def test_the_content_of_files_does_not_control_the_terminal(
    hostile: Path, command: Any, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        command.main([f"out={hostile}" if word.startswith("out=") else str(hostile / word) for word in arguments])
    except LabError as error:
        print_error(error)
    shown = "".join(capsys.readouterr())
    assert r"a\x1b[2J[bold]\udc9b" in shown, "markup is shown as it is, and controls as escapes"
    assert not UNSAFE.search(shown)


class Elements(HTMLParser):
    """Collects the elements of a page, each with the names of its attributes, and where links and pictures lead."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, ...]] = []
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "wbr":  # where a long name may break: it has no attributes, and their number follows the name
            self.tags.append((tag, *(name for name, _ in attrs)))
        self.addresses += [str(value) for name, value in attrs if name in ("href", "src", "action", "style")]


def test_no_element_and_no_attribute_of_a_page_comes_from_data(
    hostile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.analysis.plotting.save", lambda *arguments: b"a picture")
    plain = publishable(tmp_path / "plain", "")
    pages: list[list[Elements]] = []
    for folder in (plain, hostile):
        report.main([str(folder / "sweep")])
        report.main([str(folder / "trial")])
        publish.main([str(folder), f"out={folder / 'out'}"])
        files = [folder / "sweep/report.html", folder / "out/report.html"]
        texts = [file.read_text(encoding="utf-8") for file in files]
        notes = [folder / "trial/card.md", folder / "out/results.md"]
        texts += [MarkdownIt().enable(["table", "strikethrough"]).render(file.read_text("utf-8")) for file in notes]
        assert not any(UNSAFE.search(file.read_text("utf-8")) for file in notes)
        pages.append([Elements(text) for text in texts])
    assert not UNSAFE.search("".join(capsys.readouterr()))
    for one, other in zip(*pages, strict=True):
        assert len(one.tags) > 10
        assert one.tags == other.tags
        assert all(
            re.match(r"(#|data:image/png;base64,|[\w.%-]+(/[\w.%-]+)*/?$)", address) for address in other.addresses
        )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    arguments = ("frames=100", "algo.horizon=25", "eval.every=100", "eval.episodes=1")
    return train(tmp_path_factory.mktemp("trained"), *arguments)[0]


@pytest.fixture
def played(trained: RunDir, tmp_path: Path) -> RunDir:
    return RunDir(shutil.copytree(trained.path, tmp_path / "played"))


def change(session: RunDir, key: str, value: Any) -> None:
    """Set a key of a saved spec, written as on the command line."""
    spec = yaml.safe_load(session.spec.read_text())
    *groups, last = key.split(".")
    node = spec
    for group in groups:
        node = node[group]
    node[last] = value
    session.spec.write_text(yaml.safe_dump(spec))


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory in which a module lies that leaves a mark when it runs; Python searches it, as with -m."""
    place = tmp_path / "here"
    place.mkdir()
    (place / "planted.py").write_text("import pathlib\npathlib.Path('ran').touch()\n")
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend("")
    yield place
    sys.modules.pop("planted", None)


NAMED = {
    "algo._target_": "planted.Algo",
    "net._target_": "planted.Net",
    "algo.optimizer.name": "planted.Optimizer",
    "algo.optimizer.lr_schedule": "planted.Schedule",
    "env.id": "planted:Env-v0",
}


CASES = [*((key, value, "") for key, value in NAMED.items())]
CASES += [("env.id", NAMED["env.id"], where) for where in ("relative", "run directory")]


@pytest.mark.parametrize(("key", "value", "where"), CASES)
def test_enjoy_imports_nothing_from_here_unless_told_to(
    played: RunDir, planted: Path, key: str, value: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = planted / "planted.py"
    if where == "relative":  # as by PYTHONPATH=src
        module = planted / "src" / "planted.py"
        monkeypatch.syspath_prepend("src")
    if where == "run directory":
        module = played.path / "planted.py"
        monkeypatch.syspath_prepend(str(played.path))
    module.parent.mkdir(exist_ok=True)
    if where:
        (planted / "planted.py").rename(module)
    change(played, key, value)
    status.main([str(played.path)])
    if where:
        report.main([str(played.path)])
    with pytest.raises(LabError, match=re.escape(f"lies in {module}")) as error:
        enjoy.main([str(played.path)])
    assert f"{key}={value}" in str(error.value) and "code=here" in str(error.value)
    assert not Path("ran").exists()
    with pytest.raises(LabError):  # it has no such class
        enjoy.main([str(played.path), "code=here"])
    assert Path("ran").exists()


@pytest.mark.parametrize(
    "name", ["antigravity", "unittest.__main__", "os", "torch.distributed.__main__", "..planted", ""]
)
def test_modules_of_python_and_programs_are_not_imported(name: str) -> None:
    with installed_only(), pytest.raises(ImportError):
        import_named(name)


def test_law_7_a_folder_above_a_strangers_directory_is_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "above" / "stranger").mkdir(parents=True)
    (tmp_path / "above" / "stranger" / "planted.py").write_text("import pathlib\npathlib.Path('ran').touch()\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.syspath_prepend(str(tmp_path / "above"))
    with installed_only(tmp_path / "above" / "stranger"), pytest.raises(ImportError, match="add code=here"):
        import_named("stranger.planted")
    assert not Path("ran").exists()


def test_threads_wait_for_each_other_where_only_installed_packages_are_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    entered, left = threading.Event(), threading.Event()

    def another() -> None:
        with installed_only(tmp_path):
            entered.set()
            left.wait(5.0)

    thread, before = threading.Thread(target=another), list(sys.path)
    with installed_only(tmp_path):
        thread.start()
        assert not entered.wait(0.05)
    left.set()
    thread.join()
    assert sys.path == before and entered.is_set()


@pytest.mark.parametrize("place", [Path(sys.prefix).parent, ROOT], ids=["environment", "checkout"])
def test_installed_packages_are_imported_also_below_the_working_directory(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    before = list(sys.path)
    with installed_only():
        assert str(place) not in sys.path
        assert set(site.getsitepackages()) & set(before) <= set(sys.path)
        assert import_named("lab.net.recurrent")
        assert import_named("submitit")
    assert sys.path == before


ALL = [
    "status",
    "enjoy",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("report", "compare", "export", "publish")),
]


@pytest.mark.law
@pytest.mark.parametrize("command", ALL)
def test_no_module_in_the_working_directory_runs_under_any_name(played: RunDir, tmp_path: Path, command: str) -> None:
    publishable(tmp_path / "runs", "")
    sides = {
        "compare": [tmp_path / "runs/trial", tmp_path / "runs/sweep"],
        "publish": [tmp_path / "runs"],
        "export": [tmp_path / "runs/trial", f"out={tmp_path / 'new'}"],
        "enjoy": [played.path, "episodes=1"],
    }.get(command, [played.path])
    place = tmp_path / "stranger's"
    place.mkdir()
    names = {*sys.stdlib_module_names, *(module.partition(".")[0] for module in sys.modules)} - {"lab"}
    for name in names:
        (place / f"{name}.py").write_text(
            f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})\nraise SystemExit(9)\n"
        )
    entry = place / "evil-1.0.dist-info"  # with which a package has Gymnasium import it
    entry.mkdir()
    (entry / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (entry / "entry_points.txt").write_text("[gymnasium.envs]\nevil = planted:main\n")
    (place / "planted.py").write_text((place / "this.py").read_text())
    (place / "matplotlibrc").write_text("backend: module://planted\n")
    done = lab(command, *map(str, sides), cwd=place, env={"PYTHONPATH": str(ROOT)}, fresh=True)
    assert not (tmp_path / "ran").exists()
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_saved_spec_is_read_literally(played: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "leaked")
    secret = "${oc.env:SECRET} \\${oc.env:SECRET} ${"
    change(played, "env.kwargs", {"level": secret, "more": [{"deep": secret}]})
    change(played, "name", secret)
    loaded = spec_module.load(played.spec)
    assert loaded.env.kwargs == {"level": secret, "more": [{"deep": secret}]}
    assert loaded.name == secret
    for key, kind in (("algo.optimizer.lr", "a number"), ("checkpoint.minutes", "a number"), ("net.hidden", "a list")):
        before = played.spec.read_text()
        change(played, key, "${oc.env:SECRET}")
        with pytest.raises(LabError, match=re.escape(f"{key}=${{oc.env:SECRET}} is not allowed: {key} must be {kind}")):
            spec_module.load(played.spec)
        played.spec.write_text(before)


@pytest.mark.parametrize("text", ["${a}", "\\${a}", "\\\\${a}", "\\\\\\${${a}}", "a\\", "${", "\\ ${a} \\\\"])
def test_a_literal_is_the_same_once_it_is_resolved(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from omegaconf import OmegaConf

    assert OmegaConf.to_container(OmegaConf.create(literal({"x": [text], "a": 1})), resolve=True) == {
        "x": [text],
        "a": 1,
    }


MINE = {"user": trust.user_name(), "host": trust.platform.node()}


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "_warned", set())


@pytest.mark.usefixtures("warned")
@pytest.mark.parametrize(
    ("facts", "who"),
    [
        (MINE, None),
        ({**MINE, "host": "h1"}, f"{MINE['user']} on host h1"),
        ({"user": "alice", "host": "h1"}, "alice on host h1"),
        ({**MINE, "resumed": [{"user": "bob", "host": "h2"}]}, "bob on host h2"),
        ({**MINE, "resumed": [MINE]}, None),
        ({"user": "al\x1bice", "host": "h1"}, "al\\x1bice on host h1"),
        ({"host": "h1"}, "somebody unknown"),
        ({}, "somebody unknown"),
        (None, "somebody unknown"),
    ],
)
@pytest.mark.parametrize("command", [resume, rerun], ids=["resume", "rerun"])
def test_resume_and_rerun_print_whose_code_they_run(
    tmp_path: Path, command: Any, facts: Any, who: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    session = RunDir(tmp_path / "run")
    publishable(tmp_path / "runs", "")
    shutil.copytree(tmp_path / "runs/trial/seed-0", session.path)
    if facts is None:
        session.provenance.write_text("{torn")
    else:
        known = {key: value for key, value in read_json(session.provenance).items() if key not in ("user", "host")}
        write_json(session.provenance, {**known, **facts})
    with pytest.raises((LabError, KeyError)):  # there is nothing to go on with, and no such commit
        command.main([str(session.path)])
    name = command.__name__.rpartition(".")[2]
    warning = capsys.readouterr().err
    assert warning.startswith(f"{session.path} was made by {who}: {name} runs code from it") if who else not warning


@pytest.mark.usefixtures("warned")
def test_files_of_another_user_are_foreign(
    played: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(played.provenance, {**read_json(played.provenance), **MINE})
    trust.warn_of_foreign_code(played.path, "resume")
    assert capsys.readouterr().err == ""
    if os.getuid() == 0:
        os.chown(played.spec, 4321, -1)
        trust.warn_of_foreign_code(played.path, "resume")
        assert "was made by user 4321, who owns files in it" in capsys.readouterr().err


@pytest.mark.usefixtures("warned")
def test_an_exported_session_has_no_name_and_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = RunDir(publishable(tmp_path, "") / "trial" / "seed-0")
    facts = {key: value for key, value in read_json(session.provenance).items() if key not in ("user", "host")}
    write_json(session.provenance, facts)
    write_json(session.exported, {"of": "trained", "weights": None})
    trust.warn_of_foreign_code(session.path, "rerun")
    assert " was made by somebody whose name `export` left out: rerun runs code" in capsys.readouterr().err


@pytest.mark.usefixtures("warned")
def test_resume_prints_whose_sweep_it_is_before_running_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = SweepDir(publishable(tmp_path, "") / "sweep")
    sweep.multirun.write_text(yaml.safe_dump({"hydra": {"overrides": {"hydra": [], "task": ["algo=${oc.env:SECRET}"]},
        "runtime": {"config_sources": []}, "job": {"config_name": "config"}}}))  # fmt: skip
    warning: list[str] = []
    monkeypatch.setenv("SECRET", "leaked")
    monkeypatch.setattr("lab.command.train.main", lambda: warning.extend((capsys.readouterr().err, *sys.argv)))
    monkeypatch.setattr(sys, "argv", ["lab"])
    resume.main([str(sweep.path), "plan=true"])
    assert warning[0].startswith(f"{sweep.path} was made by somebody unknown: resume runs code from it")
    assert "algo=${oc.env:SECRET}" in warning, "Hydra resolves it, as at first"


@pytest.mark.slow
@pytest.mark.law
def test_a_sweep_prints_whose_it_is_before_its_code_runs(tmp_path: Path) -> None:
    (tmp_path / "custom.py").write_text("print('CUSTOM RAN', flush=True)\ndef space(config, trial):\n    pass\n")
    arguments = ("-m", "algo=a2c", "env=cartpole", "search=command_line", "algo.lr=interval(0.001,0.002)", "frames=100")
    arguments = (
        *arguments,
        "search.custom=custom.space",
        "search.n_trials=1",
        "hydra.sweep.dir=sweep",
        "log.tensorboard=false",
    )
    place: dict[str, Any] = {"cwd": tmp_path, "env": {"PYTHONPATH": str(ROOT)}}
    done = lab(*arguments, **place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "was made by" not in done.stderr
    mine = lab("resume", "sweep", "plan=true", **place)
    assert mine.returncode == 0 and "was made by" not in mine.stderr
    sweep = tmp_path / "sweep/sweep.json"
    write_json(sweep, {**read_json(sweep), "user": "alice", "host": "h1"})
    command = [sys.executable, "-m", "lab", "resume", "sweep", "plan=true"]
    env = {**os.environ, **place["env"]}
    shown = subprocess.run(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert shown.stdout.index("sweep was made by alice on host h1: resume runs code") < shown.stdout.index("CUSTOM RAN")
    assert shown.stdout.count("was made by") == 1
