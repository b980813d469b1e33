"""`ls`: what was run, of whatever level and in whatever state, and the conditions that choose among it."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lab.analysis import analyze_trial
from lab.analysis.conditions import find_runs
from lab.analysis.experiment import experiment_results, read_experiment
from lab.analysis.runs import Run, read_runs
from lab.analysis.session import read_tables, session_results
from lab.analysis.settings import find_differences
from lab.command import ls
from lab.errors import LabError
from lab.run.directory import RunDir, TrialDir
from lab.run.files import read_json, write_json, write_sealed_json
from lab.run.tags import write_tags
from tests import synthetic
from tests.helpers import lab, specs


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make up outputs: two Sessions, a Trial with a failed seed, and an Experiment."""
    outputs = tmp_path_factory.mktemp("finding") / "outputs"
    for index, (algo, rate) in enumerate((("a2c", 0.001), ("ppo", 0.0003))):
        spec = specs(f"algo={algo}", "env=cartpole", f"algo.lr={rate}")[0].to_dict()
        directory = RunDir(outputs / f"{algo}_cartpole" / "2026-01-02" / f"03-04-0{index}")
        synthetic.session(directory, spec, "completed", 400.0 if algo == "ppo" else 200.0, 10, np.random.default_rng(0))
        provenance = read_json(directory.provenance) | {
            "command": f"python -m lab algo={algo} algo.lr={rate} device=cpu"
        }
        write_sealed_json(directory.provenance, provenance | {"start": f"2026-01-0{2 + index}T00:00:00+00:00"})
        write_json(directory.results, session_results(read_tables(directory)))
    trial = synthetic.experiment(outputs / "moved", 1, seeds=3, rows=10, states={(0, 1): "failed"}).trial(0)
    analyze_trial(TrialDir(trial.path.rename(outputs / "trial")))
    shutil.rmtree(outputs / "moved")
    search = synthetic.experiment(outputs / "search", 3, seeds=2, rows=10)
    for each in search.trials():
        analyze_trial(each)
    write_json(search.results, experiment_results(read_experiment(search)))
    (outputs / "notes").mkdir()
    (outputs / "notes" / "spec.yaml").write_text("openapi: 3.1.0\nseed: 3\n")  # of another program
    return outputs


@pytest.fixture
def outputs(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "outputs"))


def names(runs: list[Run], root: Path) -> list[str]:
    return [str(run.path.relative_to(root)) for run in runs]


def test_the_command_lists_what_was_run(outputs: Path) -> None:
    done = lab("ls", "outputs", "sort=return", cwd=outputs.parent)
    assert done.returncode == 0, done.stderr
    header, *lines = done.stdout.splitlines()
    assert header.split("  ")[0] == "run" and "95 % interval" in header and header.endswith("settings")
    assert {line.split()[0] for line in lines} == {
        "outputs/a2c_cartpole/2026-01-02/03-04-00", "outputs/ppo_cartpole/2026-01-02/03-04-01", "outputs/search",
        "outputs/trial",
    }  # fmt: skip
    ppo = next(line for line in lines if line.startswith("outputs/ppo"))
    assert ppo.split()[1:4] == ["ppo", "CartPole-v1", "completed"] and ppo.endswith(
        "0123456  algo.lr=0.0003 device=cpu"
    )
    trial = next(line for line in lines if line.startswith("outputs/trial"))
    assert "failed" in trial and "2/3" in trial
    search = next(line for line in lines if line.startswith("outputs/search"))
    assert "6/6" in search and "algo.lr=" in search


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["algo=ppo"], ["ppo_cartpole/2026-01-02/03-04-01"]),
        (["algo=a2c", "level=trial"], ["search/trial-000", "search/trial-001", "search/trial-002", "trial"]),
        (["algo=a2c", "state=completed", "level=session", "algo.lr=1e-3"], ["a2c_cartpole/2026-01-02/03-04-00"]),
        (["env.id=CartPole*", "return>300", "algo!=a2c"], ["ppo_cartpole/2026-01-02/03-04-01"]),
        (["state=failed"], ["trial"]),
        (["state=failed,running", "algo=ppo,a2c", "algo.lr!=1,2"], ["trial"]),
        (["state=failed", "level=session"], ["trial/seed-1"]),
        (["since=2026-01-02", "before=2026-01-03T12:00", "algo=ppo"], ["ppo_cartpole/2026-01-02/03-04-01"]),
        (["before=1000w"], []),
        (["sha=01234", "seed=2"], ["trial"]),
        (["frames>=200_000", "env=cartpole", "net=mlp", "frame<=100000", "sessions=3"], ["trial"]),
        (["tag=paper"], ["search"]),
        (["tag!=paper", "algo.clip_range=0.2"], ["ppo_cartpole/2026-01-02/03-04-01"]),
    ],
)  # fmt: skip
def test_conditions_choose(outputs: Path, conditions: list[str], expected: list[str]) -> None:
    write_tags(outputs / "search", ["paper"])
    options = dict(each.split("=") for each in conditions if each.startswith("level="))
    chosen = [each for each in conditions if not each.startswith("level=")]
    assert sorted(names(find_runs(outputs, *chosen, **options), outputs)) == expected


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("algo.clp_range>1", "Did you mean 'algo.clip_range'?"),
        ("lr=1", "Did you mean 'algo.optimizer.lr'?"),
        ("retrun>1", "Did you mean 'return'?"),
        ("srot=return", "Did you mean 'sort'?"),
        ("sort=foo", "Keys are algo, "),
        ("state=complete", "Did you mean 'completed'?"),
        ("level=sessions", "Did you mean 'session'?"),
        ("state=failed,complete", "Did you mean 'completed'?"),
        ("return>high", "what return is compared with by > must be a number"),
        ("since=7q", "since must be an age, as 30m, 12h, 7d or 2w, or a date"),
        ("since>7d", "write since=7d"),
        ("--cvs", "Did you mean 'csv'?"),
    ],
)
def test_mistakes_are_sentences(outputs: Path, argument: str, sentence: str) -> None:
    with pytest.raises(LabError, match=r".") as error:
        ls.main([str(outputs), argument])
    assert sentence in str(error.value)


def test_a_value_that_no_run_has_is_told_with_the_nearest(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ls.main([str(outputs), "algo=pppo"])
    assert capsys.readouterr().out == f"No run below {outputs} has algo=pppo. Did you mean 'ppo'?\n"


def test_runs_are_sorted_with_the_best_and_the_newest_first(outputs: Path) -> None:
    returns = [run.figures["return"] for run in find_runs(outputs, sort="return")]
    assert returns == sorted(returns, key=float, reverse=True)
    assert [run.figures["return"] for run in find_runs(outputs, sort="-return")] == returns[::-1]
    assert [run.algos for run in find_runs(outputs, sort="algo")] == [["a2c"], ["a2c"], ["a2c"], ["ppo"]]
    dates = [run.start for run in find_runs(outputs)]
    assert dates == sorted(dates, key=lambda date: date.timestamp(), reverse=True)


def test_settings_are_those_that_were_set_and_those_that_differ(outputs: Path) -> None:
    runs = read_runs(outputs)
    settings = dict(zip(names(runs, outputs), find_differences(runs), strict=True))
    assert settings["ppo_cartpole/2026-01-02/03-04-01"] == {"algo.lr": "0.0003", "device": "cpu"}
    assert settings["a2c_cartpole/2026-01-02/03-04-00"].keys() == {"algo.lr", "device"}, "gamma is the default"
    assert "algo.gamma" in settings["search"]
    assert settings["search"]["algo.lr"].count(",") == 2


def test_what_is_damaged_is_listed_as_such(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (outputs / "search/trial-000/seed-0/status.json").write_text("{")
    (outputs / "trial/trial.json").write_text('{"metrics": 3}')
    ppo = outputs / "ppo_cartpole/2026-01-02/03-04-01"
    (ppo / "spec.yaml").write_text("!!python/object/apply:os.system ['touch ran']\nseed: 1\n")
    (ppo / "tags.json").write_text("[]")
    (ppo / "provenance.json").write_text("[[")
    ls.main([str(outputs)])
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 1 + 4 + 5, printed
    assert "damaged" in next(line for line in printed.splitlines() if line.startswith(str(outputs / "search")))
    for file in (
        "search/trial-000/seed-0/status.json",
        "trial/trial.json",
        f"{ppo}/spec.yaml",
        "tags.json",
        "provenance",
    ):
        assert any(line.startswith("Note: ") and file in line for line in printed.splitlines()), file
    assert not Path("ran").exists()


def test_names_from_files_cannot_control_a_terminal(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = outputs / "ppo_cartpole/2026-01-02/03-04-01/spec.yaml"
    spec.write_text(spec.read_text().replace("id: CartPole-v1", 'id: "\\e[31mred"', 1))
    for csv_too in ([], ["--csv"]):
        ls.main([str(outputs), *csv_too])
        assert "\x1b" not in capsys.readouterr().out


def test_links_are_not_followed(outputs: Path) -> None:
    (outputs / "again").symlink_to(outputs, target_is_directory=True)
    assert len(read_runs(outputs)) == 4


def test_a_narrow_output_gets_further_lines(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(outputs.parent)
    monkeypatch.setenv("COLUMNS", "80")
    spec = outputs / "ppo_cartpole/2026-01-02/03-04-01/spec.yaml"
    spec.write_text(re.sub(r"(?m)^# checksum.*\n", "", spec.read_text()).replace("CartPole-v1", "A/" + "Long" * 9, 1))
    ls.main([])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80, "what is piped, too"
    further = [line for line in lines if line.startswith(" ")]
    assert len(further) >= 4 and any("0123456  algo.lr=0.0003" in line for line in further)


def test_what_rerun_made_is_marked(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(outputs / "trial" / "rerun.json", {"of": "published/a2c"})
    ls.main([str(outputs)])
    assert "rerun of published/a2c" in next(line for line in capsys.readouterr().out.splitlines() if "/trial" in line)
    assert len(find_runs(outputs, "is_rerun=false")) == 3 and len(find_runs(outputs, "is_rerun=true")) == 1


def test_settings_leave_out_what_is_the_default(outputs: Path) -> None:
    for name, rate in (("a", 0.001), ("b", 0.002)):
        spec = specs("algo=a2c", "env=acrobot", f"algo.lr={rate}")[0].to_dict()
        directory = RunDir(outputs / name)
        synthetic.session(directory, spec, "completed", 100.0, 5, np.random.default_rng(0))
        facts = {"command": f"python -m lab algo=a2c env=acrobot{' algo.lr=0.002' if name == 'b' else ''}"}
        write_sealed_json(directory.provenance, read_json(directory.provenance) | facts)
    runs = read_runs(outputs)
    settings = dict(zip(names(runs, outputs), find_differences(runs), strict=True))
    assert settings["a"] == {} and settings["b"] == {"algo.lr": "0.002"}


def test_a_table_for_programs(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ls.main([str(outputs), "--csv"])
    rows = {row["path"]: row for row in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    row = rows[str(outputs / "trial")]
    assert (row["level"], row["state"], row["sessions"], row["completed"]) == ("trial", "failed", "3", "2")
    trial = read_json(outputs / "trial" / "trial.json")["metrics"]["best"]["mean"]
    assert [float(row[key]) for key in ("best", "best_low", "best_high")] == [
        trial[key] for key in ("value", "low", "high")
    ]
    assert rows[str(outputs / "ppo_cartpole/2026-01-02/03-04-01")]["algo.lr"] == "0.0003"


def test_nothing_heavy_is_imported(outputs: Path) -> None:
    program = (
        "import sys; from lab.command import ls; ls.main(sys.argv[1:]);"
        " print(sorted({'torch', 'numpy', 'hydra'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(outputs)], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


def test_nothing_was_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ls.main([str(tmp_path)])
    assert capsys.readouterr().out == f"There is no run directory below {tmp_path}.\n"
    with pytest.raises(LabError, match="There is no directory"):
        ls.main([str(tmp_path / "none")])
