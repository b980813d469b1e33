"""The pipeline in dvc.yaml: it depends on all that decides a number, and runs what changed and nothing else."""

from __future__ import annotations

import ast
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from benchmark.throughput import format_readme
from lab.analysis.published_tables import SYMBOLS
from lab.analysis.text import display_name
from lab.run.directory import RunDir, find_level
from lab.run.files import read_json
from lab.spec import Spec, load, read
from lab.sweep_spec import SWEEP_KEYS
from tests.helpers import ALGORITHMS, CONF, ROOT, clone, git, lab, specs

# What training reaches by imports, and no stage depends on: it decides no number, or law 1 holds whatever it does.
NUMBERLESS = {
    "lab/__init__.py",
    "lab/algo/__init__.py",
    "lab/common/__init__.py",
    "lab/run/__init__.py",
    "lab/training/__init__.py",
    "lab/run/code/__init__.py",
    "lab/run/code/copy.py",
    "lab/run/code/discovery.py",
    "lab/run/code/exclusions.py",
    "lab/run/code/git.py",
    "lab/run/code/packages.py",
    "lab/run/code/repository.py",
    "lab/run/code/snapshot.py",
    "lab/run/tensor_files.py",
    "lab/run/checkpoint.py",  # a Session that is resumed is, to the last bit, one that was not
    "lab/training/display.py",
    "lab/training/tags.py",
    "lab/training/tensorboard.py",
    "lab/training/trackers.py",
    "lab/run/trackers.py",
    "lab/errors.py",
    "lab/run/files.py",
    "lab/run/guard.py",
    "lab/common/conf.py",
    "lab/common/imports.py",
    "lab/common/transfer.py",
    "lab/common/signals.py",
    "lab/common/validation.py",
    "lab/run/lock.py",
    "lab/training/lockstep.py",  # results do not depend on which Sessions share their steps
    "lab/common/text.py",
    "lab/common/parts.py",
    "lab/training/stack_size.py",  # results do not depend on how many Sessions share their steps
    "lab/common/renamed.py",
    "lab/run/provenance.py",
    "lab/run/status.py",
    "lab/run/directory.py",
    "lab/run/schemas.py",
    "lab/common/output.py",
    "lab/common/terminal.py",
    "lab/run/trust.py",
    "lab/run/parent.py",  # the spec holds the digest of the weights that a Session starts from
    "lab/run/exported.py",
    "lab/sweep_spec.py",  # decides which Sessions there are, and none of them
}
PUBLISHED = ("a2c", "crossq", "ddqn_per", "dqn", "ppo", "pqn", "rainbow", "reinforce", "sac", "sarsa", "td3")
TRAINING = ("train", "train_mujoco", "train_atari", "quick", "search")  # stages of pairs of algorithm and environment

# Edits of dvc.yaml that leave two pairs and half of their frames, so that tests of how it is run are soon over.
SMALLER = {
    "      a2c-pendulum: {algo: a2c, env: pendulum, code: a2c, base: a2c}\n      ppo-cartpole": "      ppo-cartpole",
    "      ppo-pendulum: {algo: ppo, env: pendulum, code: ppo, base: ppo}\n      dqn-cartpole": "      dqn-cartpole",
    "      dqn-cartpole: {algo: dqn, env: cartpole, code: dqn, base: dqn}\n      sac-pendulum": "      sac-pendulum",
    "      sac-pendulum: {algo: sac, env: pendulum, code: sac, base: sac}\n    do:\n      <<": "    do:\n      <<",
    "frames=4000": "frames=2000",
}
EXPORTED = ("card.md", "trial.json", "trial.png", "point.json", "sweep.json")  # of a Trial
EXPORTED_SESSION = ("spec.yaml", "provenance.json", "status.json", "session.json", "exported.json", "episodes.csv",
                    "metrics.csv", "timing.csv")  # fmt: skip
FILES = (".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore", "benchmark/slm_lab.csv", "benchmark/rl_zoo.csv",
         "benchmark/stage.py", "constraints.txt", "dvc.yaml", "params.yaml")  # fmt: skip


@pytest.fixture(scope="module")
def stages() -> dict[str, Any]:
    """Return every stage by its name, as DVC reads it."""
    from dvc.repo import Repo

    with Repo(str(ROOT)) as repo:
        return {stage.name: stage for stage in repo.index.stages}


def paths(parts: list[Any]) -> set[str]:
    return {str(Path(part.fs_path).relative_to(ROOT)) for part in parts}


def pair(stage: str) -> tuple[str, str]:
    """Return the algorithm and the environment of a stage that trains a pair."""
    algo, _, env = stage.partition("@")[2].partition("-")
    return algo, env


def training(stages: dict[str, Any], algorithm: str = "") -> dict[str, Any]:
    """Return the stages of pairs, or those among them of one algorithm."""
    chosen = {name: stage for name, stage in stages.items() if name.partition("@")[0] in TRAINING}
    return {name: stage for name, stage in chosen.items() if algorithm in ("", pair(name)[0])}


def reached(*begin: str) -> set[str]:
    """Return the modules of the project that some of its modules import, directly or not, and those themselves."""
    modules: set[str] = set()
    left = list(begin)
    while left:
        module = left.pop()
        if module in modules:
            continue
        modules.add(module)
        names = set()
        tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
        if module == "lab/__init__.py":  # the types of the Python API, and imports at calls
            tree.body = [node for node in tree.body if not isinstance(node, ast.If)]
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        for name in names:
            path = name.replace(".", "/")
            left += [file for file in (f"{path}.py", f"{path}/__init__.py") if (ROOT / file).is_file()]
    return modules


def test_all_that_stages_depend_on_is_there_or_made_by_a_stage(stages: dict[str, Any]) -> None:
    outs = {out for stage in stages.values() for out in paths(stage.outs)}
    made = outs | {str(folder) for out in outs for folder in Path(out).parents}
    absent = {
        (name, path)
        for name, stage in stages.items()
        for path in paths(stage.deps) - made
        if not (ROOT / path).exists()
    }
    assert not absent


@pytest.mark.parametrize("algorithm", PUBLISHED)
def test_pairs_depend_on_the_code_that_decides_their_numbers_and_on_no_other_algorithm(
    stages: dict[str, Any], algorithm: str
) -> None:
    code = {name: f"lab/algo/{specs(f'algo={name}')[0].algo.__module__.rpartition('.')[2]}.py" for name in ALGORITHMS}
    needed = reached("lab/session.py", "lab/training/stack.py", code[algorithm])
    others = {*code.values()} - needed  # CrossQ builds on SAC
    assert training(stages, algorithm)
    for name, stage in training(stages, algorithm).items():
        watched = paths(stage.deps)
        missed = {module for module in needed if not watched & {module, *map(str, Path(module).parents)}}
        assert missed == needed & NUMBERLESS, name
        assert not watched & (others | NUMBERLESS), name


def inherited(file: str) -> list[str]:
    """Return the names of the config files beside one that it inherits."""
    defaults = yaml.safe_load((ROOT / file).read_text(encoding="utf-8")).get("defaults", [])
    return [name for name in defaults if isinstance(name, str) and name != "_self_"]


def test_pairs_depend_on_every_config_file_that_they_compose(stages: dict[str, Any]) -> None:
    networks = {str(path.relative_to(ROOT)) for path in (CONF / "tuned" / "net").glob("*.yaml")}
    for name, stage in training(stages).items():
        algo, env = pair(name)
        searched = [f"search={algo}"] if name.startswith("search") else []
        with initialize_config_dir(str(CONF)):
            config = compose("config", [f"algo={algo}", f"env={env}", *searched], return_hydra_config=True)
        choices = {group: option for group, option in config.hydra.runtime.choices.items() if option}
        needed = {f"conf/{group}/{option}.yaml" for group, option in choices.items() if "hydra/" not in group}
        needed = {"conf/config.yaml", *(file.replace("@net", "") for file in needed)}
        left = list(needed)
        while left:
            file = left.pop()
            left += [
                more for base in inherited(file) if (more := str(Path(file).parent / f"{base}.yaml")) not in needed
            ]
            needed |= {*left}
        watched = paths([dep for dep in stage.deps if hasattr(dep, "params")])
        assert needed <= watched, name
        assert watched - needed <= networks, f"{name}: a network of another pair of this group may be watched"


def test_pairs_depend_on_every_key_that_decides_a_session(stages: dict[str, Any]) -> None:
    config = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))
    deciding = set(config) - {*SWEEP_KEYS, "provenance", "hydra"}
    assert deciding - {"defaults"} <= {field.name for field in fields(Spec)}
    for name, stage in training(stages).items():
        (config,) = (dep for dep in stage.deps if dep.fs_path == str(CONF / "config.yaml"))
        assert set(config.params) == deciding, name


def test_what_the_stage_of_a_session_trains_is_a_spec() -> None:
    assert read(OmegaConf.load(ROOT / "params.yaml"))


def test_git_has_what_dvc_does_not_keep_and_nothing_else(stages: dict[str, Any]) -> None:
    outs = [out for stage in stages.values() for out in stage.outs]
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", "--stdin"],
        cwd=ROOT,
        input="\n".join(paths(outs)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert set(done.stdout.splitlines()) == paths([out for out in outs if out.use_cache])


def test_the_readme_quotes_what_is_published() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (header,) = re.findall(r"^\| .*\(SLM Lab v5\.3\), n = 4 \| frames \| (.+) \|$", text, re.MULTILINE)
    names = {display_name(algo): algo for algo in ALGORITHMS}
    algorithms = [names[name] for name in header.split(" | ")]
    quoted = {}
    for env, frames, row in re.findall(r"^\| (\S+-v\d) \| ([\d,]+) \| (.+) \|$", text, re.MULTILINE):
        for algo, cell in zip(algorithms, row.split(" | "), strict=True):
            if cell.strip():
                quoted[env, algo] = [frames, *re.findall(r"-?[\d,]+\.\d", cell), cell.partition(") ")[2]]
    with (ROOT / "results" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert quoted == {
        (row["env_id"], row["algo"]): [
            f"{int(row['frames']):,}",
            *(f"{float(row[key]):,.1f}" for key in ("return", "peer") if row[key]),
            SYMBOLS[row["verdict"]] + ("" if (ROOT / "published" / row["directory"] / "seed-0").exists() else " †"),
        ]
        for row in rows
    }
    assert {row["sessions"] for row in rows} == {"4"}
    verdicts = [row["verdict"] for row in rows]
    counts = re.findall(r"Of (\d+) pairs, (\d+) are\s+better, (\d+) even and (\d+) worse", text)
    assert counts == [(str(len(rows)), *(str(verdicts.count(verdict)) for verdict in ("better", "even", "worse")))]
    table = (ROOT / "results" / "throughput.txt").read_text(encoding="utf-8")
    assert format_readme(table) in text, "python -m benchmark.throughput readme prints what should stand there"
    assert all((ROOT / picture).exists() for picture in re.findall(r"!\[.*?\]\((.+?)\)", text))


def start_dvc(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start DVC in a clone, where the command line is that of the clone, as the leader of a group of processes."""
    here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": here, "DVC_SITE_CACHE_DIR": str(folder.parent / "site"), "DVC_NO_ANALYTICS": "1"}
    env.pop("PYTHONPATH", None)
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def dvc(folder: Path, *arguments: str) -> str:
    """Run DVC in a clone, and return what it prints."""
    process = start_dvc(folder, *arguments)
    printed, errors = process.communicate(timeout=600)
    assert process.returncode == 0, printed + errors
    return printed


def reproduce(folder: Path) -> set[str]:
    """Bring the quick results up to date, and return the stages that ran."""
    return set(re.findall(r"^Running stage '(.+)':$", dvc(folder, "repro", "quick_results"), re.MULTILINE))


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "results")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{path} has no {old!r}"
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clone in which the quick results were made and committed."""
    folder = tmp_path_factory.mktemp("pipeline") / "published"
    clone(folder)
    for name in FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for old, new in SMALLER.items():
        edit(folder / "dvc.yaml", old, new)
    git(folder, "config", "user.name", "A")
    git(folder, "config", "user.email", "a@b.c")
    git(folder, "rm", "-r", "--quiet", "--ignore-unmatch", "dvc.lock", "quick", "results/quick")
    commit(folder)
    exports = {"quick_export@a2c-cartpole", "quick_export@ppo-cartpole"}
    assert reproduce(folder) == {"versions", "quick@a2c-cartpole", "quick@ppo-cartpole", *exports, "quick_results"}
    left = git(folder, "status", "--porcelain", "--untracked-files=all").splitlines()
    lines = {line.split(maxsplit=1)[1] for line in left if not line.startswith("D")}
    assert sum(line.endswith("/checkpoint/best.pt") for line in lines) == 2, "of each Trial the best agent"
    # The versions are those of the commit, or others, as the environment is.
    assert lines - {"versions.txt"} == {
        "dvc.lock",
        *(
            f"quick/{name}_cartpole/{file}"
            for name in ("a2c", "ppo")
            for file in (*EXPORTED, *(f"seed-{seed}/{file}" for seed in range(4) for file in EXPORTED_SESSION))
        ),
        *(line for line in lines if line.endswith("/checkpoint/best.pt")),
        *(
            f"results/quick/{file}"
            for file in ("results.json", "results.md", "results.csv", "report.html", "pictures/cartpole.png")
        ),
    }
    commit(folder)
    return folder


@pytest.fixture
def checkout(published: Path, tmp_path: Path) -> Path:
    """Return a copy of that clone, for a test to change."""
    return Path(shutil.copytree(published, tmp_path / "checkout", symlinks=True))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_is_up_to_date_is_left_alone(checkout: Path) -> None:
    assert reproduce(checkout) == set()
    assert git(checkout, "status", "--porcelain") == ""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_decides_no_number_trains_nothing(checkout: Path) -> None:
    edit(checkout / "conf/algo/a2c.yaml", "# learning rate\n", "# step size\n")
    edit(checkout / "conf/config.yaml", "Search for hyperparameters", "Look for hyperparameters")
    for module in NUMBERLESS:
        (checkout / module).write_text(f"{(checkout / module).read_text()}\n# changed\n")
    edit(checkout / "constraints.txt", "pytest==", "pytest==1")
    assert reproduce(checkout) == {"versions"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_hyperparameter_trains_its_pair_alone_and_the_difference_shows(checkout: Path) -> None:
    edit(checkout / "conf/tuned/ppo_cartpole.yaml", "lr: ", "lr: 1")
    assert reproduce(checkout) == {"quick@ppo-cartpole", "quick_export@ppo-cartpole", "quick_results"}
    commit(checkout)
    changed = json.loads(dvc(checkout, "metrics", "diff", "HEAD~1", "--json"))
    assert set(changed) == {"quick/ppo_cartpole/trial.json", "results/quick/results.json"}
    assert all(key.startswith("cartpole.ppo.") for key in changed["results/quick/results.json"])
    assert "cartpole.ppo.return" in changed["results/quick/results.json"]
    params = json.loads(dvc(checkout, "params", "diff", "HEAD~1", "--json"))
    assert set(params) == {"conf/tuned/ppo_cartpole.yaml"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_comment_in_an_algorithm_trains_what_uses_it_to_the_same_metrics(checkout: Path) -> None:
    module = checkout / "lab/algo/a2c.py"
    module.write_text(f"{module.read_text()}\n# a comment\n")
    assert (
        {"quick@a2c-cartpole"}
        <= reproduce(checkout)
        <= {"quick@a2c-cartpole", "quick_export@a2c-cartpole", "quick_results"}
    )
    commit(checkout)
    assert json.loads(dvc(checkout, "metrics", "diff", "HEAD~1", "--json")) == {}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_interrupted_stage_goes_on_unless_what_it_depends_on_has_changed(checkout: Path) -> None:
    edit(checkout / "dvc.yaml", "frames=2000", "frames=40000")
    session = RunDir(checkout / "trained/quick/ppo_cartpole/seed-0")
    process = start_dvc(checkout, "repro", "quick@ppo-cartpole")
    give_up = time.monotonic() + 300
    while not session.checkpoint("last").exists() or session.read_status()["frame"] < 4000:
        assert process.poll() is None and time.monotonic() < give_up, process.communicate()[0]
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=300)
    assert "quick@ppo-cartpole begins" in printed
    assert session.read_status()["state"] == "interrupted", printed
    printed = dvc(checkout, "repro", "quick@ppo-cartpole")
    assert "quick@ppo-cartpole goes on from the checkpoints in trained/quick/ppo_cartpole" in printed
    assert session.read_status()["state"] == "completed"
    assert read_json(session.provenance)["resumed"], "not trained from the start"
    assert "begins" in dvc(checkout, "repro", "--force", "quick@ppo-cartpole"), "what DVC has recorded is trained anew"
    lock = checkout / "dvc.lock"
    content = yaml.safe_load(lock.read_text())
    del content["stages"]["quick@ppo-cartpole"]
    lock.write_text(yaml.safe_dump(content))
    printed = dvc(checkout, "repro", "quick@ppo-cartpole")
    assert "has trained trained/quick/ppo_cartpole already" in printed, "what DVC has not recorded is kept"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_another_clone_pulls_and_has_nothing_to_do(checkout: Path, tmp_path: Path) -> None:
    dvc(checkout, "remote", "add", "--default", "store", str(tmp_path / "store"))
    commit(checkout)
    dvc(checkout, "push", "quick")
    other = tmp_path / "other"
    git(tmp_path, "clone", "--quiet", str(checkout), str(other))
    dvc(other, "pull", "quick")
    assert reproduce(other) == set()
    seed = RunDir(other / "trained/quick/ppo_cartpole/seed-3")
    assert seed.read_status()["state"] == "completed"
    assert (
        seed.checkpoint("best").read_bytes()
        == RunDir(checkout / "trained/quick/ppo_cartpole/seed-3").checkpoint("best").read_bytes()
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_metrics_and_pictures_are_shown(checkout: Path) -> None:
    shown = json.loads(dvc(checkout, "metrics", "show", "results/quick/results.json", "--json"))
    metrics = shown[""]["data"]["results/quick/results.json"]["data"]
    assert metrics == without_null(json.loads((checkout / "results/quick/results.json").read_text()))
    dvc(checkout, "plots", "show", "--out", "pictures")
    page = (checkout / "pictures/index.html").read_text()
    pictures = [name for name in re.findall(r'src="([^"]+)"', page) if "quick" in name]
    assert len(pictures) == 3, "of two Trials, and of an environment"
    assert all((checkout / "pictures" / name).stat().st_size > 10_000 for name in pictures)
    assert "http" not in page, "it can be read without a network"


def without_null(values: Any) -> Any:
    """Return metrics as DVC shows them, which leaves out those that there are not."""
    if not isinstance(values, dict):
        return values
    return {key: without_null(value) for key, value in values.items() if value is not None}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_experiment_of_dvc_trains_what_it_composed_into_a_run_directory_like_any_other(checkout: Path) -> None:
    overrides = ("algo=ppo", "env=pendulum", "algo.lr=2e-3", "frames=2048")
    dvc(checkout, "exp", "run", *(part for override in overrides for part in ("-S", override)), "session")
    session = RunDir(checkout / "session")
    assert load(session.spec) == specs(*overrides, "env.scale_images=true", "compile=false")[0], "what `auto` is here"
    assert find_level(session.path) == "session"
    assert session.read_status()["state"] == "completed"
    results = session.results.read_bytes()
    session.results.unlink()
    done = lab("report", "session", cwd=checkout, env={"PYTHONPATH": str(checkout)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert session.results.read_bytes() == results
    table = dvc(checkout, "exp", "show", "--only-changed", "--md")
    assert "ppo_pendulum" in table and "0.002" in table
