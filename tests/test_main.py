"""The command line."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lab.analysis import analyze_session
from tests.helpers import ALGORITHMS, ROOT, lab, occupy, run_each, train

TRACE = """
import sys
sys.argv = ["lab", *sys.argv[1:]]
try:
    from lab.__main__ import main
    main()
except SystemExit:
    pass
print("torch" in sys.modules)
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["algo.lrr=1"], ["+algo.lrr=1"], ["algo=ppo", "algo.batch_size=7"], ["env.id=Nothing-v0"]]
)
def test_help_and_mistakes_do_not_import_torch(arguments: list[str], tmp_path: Path) -> None:
    extra = [] if "--help" in arguments else [f"hydra.run.dir={tmp_path}/run"]
    done = subprocess.run(
        [sys.executable, "-c", TRACE, *arguments, *extra], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.splitlines()[-1] == "False", done.stderr


def test_help_and_mistakes_take_less_than_importing_torch() -> None:
    def seconds(*command: str) -> float:
        best = float("inf")
        for _ in range(2):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, *command], capture_output=True, cwd=ROOT, check=False)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return best

    # Measured against something in the same run: machines are noisy, and importing torch takes more than a second.
    most = seconds("-c", "import torch")
    assert seconds("-m", "lab", "--help") < most
    assert seconds("-m", "lab", "algo.lrr=1") < most


def test_help_shows_groups_and_commands() -> None:
    done = lab("--help")
    assert done.returncode == 0
    for word in (
        "python -m lab algo=a2c env=cartpole",
        f"algo: {', '.join(ALGORITHMS)}",
        "enjoy DIR",
        "net: gru, impala, lstm, mlp, module, multi, nature",
        "mode: dev",
    ):
        assert word in done.stdout


def test_a_stack_from_the_command_line(tmp_path: Path) -> None:
    output = tmp_path / "ä 'b' [c]=d, e"
    quoted = str(output).replace("'", "\\'")
    arguments = ("algo=ppo", "algo.horizon=32", "frames=2000", "seed=[2,5]", "eval.episodes=2", "log.every=500")
    done = lab(*arguments, f"hydra.run.dir='{quoted}'")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in output.iterdir()) == ["card.md", "seed-2", "seed-5", "trial.json", "trial.png"]
    for seed in (2, 5):
        folder = output / f"seed-{seed}"
        left = {path.name.split(".out.")[0] for path in folder.iterdir()}
        assert left - {"uncommitted.patch"} == {
        ".lock",
            ".hydra", "checkpoint", "episodes.csv", "events", "metrics.csv", "provenance.json", "session.json",
            "session.log", "session.png", "spec.yaml", "status.json", "timing.csv",
        }  # fmt: skip
        assert yaml.safe_load((folder / "spec.yaml").read_text())["seed"] == seed
        assert yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())["seed"] == seed
        assert f"seed={seed}" in yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text())
        assert json.loads((folder / "session.json").read_text())["frames"] == 2048
    for word in ("ppo_cartpole seed 5", "completed", "python -m lab enjoy", "tensorboard --logdir"):
        assert word in done.stdout
    assert "code=here" not in done.stdout, "nothing of the working directory is imported"
    assert "\x1b" not in done.stdout, "plain lines where the output is no terminal"
    more = lab("resume", str(output), "seed=2,5,7", "plan=true")
    assert "3 Sessions: 1 to run, 2 completed." in more.stdout, more.stderr


def test_mistakes_of_a_single_job_are_sentences(tmp_path: Path) -> None:
    sentences = {
        "objective.metric=typo": "objective.metric must be one of best, ",
        "objective.direction=up": "objective.direction must be one of maximize, minimize.",
        "parallel=0": "parallel must be a whole number, 1 or more or null.",
        "detach=true": "detach is for a sweep, and this is a single job: add -m to the command.",
        # What does not fit at all is told before numbers that do not fit.
        "algo=td3 frames=500": "algo=td3 supports bounded Box actions only, and those of env.id=CartPole-v1 are",
        "algo=dqn env=pendulum algo.memory.size=1": "algo=dqn supports Discrete actions only",
        "algo=sac frames=500": "algo.learning_starts must be less than frames (500).",
        "net=nature": "net=nature needs images",
        "algo=ppo net=gru net._target_=lab.net.mlp.MLP": " net=mlp chooses this network and its keys.",
    }
    done = run_each(tmp_path, *(line.split() for line in sentences))
    for (status, _, error), sentence in zip(done, sentences.values(), strict=True):
        assert status == 2 and sentence in error, error
    assert not (tmp_path / "outputs").exists()


def test_a_session_takes_the_next_free_directory(tmp_path: Path) -> None:
    occupy(tmp_path / "outputs" / "a2c_cartpole")
    arguments = ("mode=dev", "frames=500", "log.tensorboard=false")
    done = lab(*arguments, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
    (spec,) = (tmp_path / "outputs").glob("*/*/*/spec.yaml")
    assert spec.parent.name.endswith("-2"), done.stderr
    hydra = yaml.safe_load((spec.parent / ".hydra" / "hydra.yaml").read_text())["hydra"]
    assert hydra["runtime"]["output_dir"] == str(spec.parent)
    before = sorted((tmp_path / "outputs").rglob("*"))
    assert lab("algo.gamma=2", cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}).returncode == 2
    assert sorted((tmp_path / "outputs").rglob("*")) == before, "a mistake leaves no directory"


def test_a_session_is_never_written_over(tmp_path: Path) -> None:
    arguments = ("mode=dev", "frames=500", "log.tensorboard=false", f"hydra.run.dir={tmp_path}/run")
    first = lab(*arguments)
    assert "mode=dev: all checks passed in 2 learning steps: each moved all parameters" in first.stdout, first.stderr
    assert "  python -m lab frames=500 log.tensorboard=false\n" in first.stdout, "the next command"
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    again = lab(*arguments, "seed=3")
    assert again.returncode == 2
    assert "already holds a Session (completed at frame 512)" in again.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_refused_config_leaves_what_was_there(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    assert lab("frames=-1", f"hydra.run.dir={mine}").returncode == 2
    assert mine.is_dir()
    (mine / "notes").write_text("mine")
    assert lab("frames=-1", f"hydra.run.dir={mine}").returncode == 2
    assert [path.name for path in mine.iterdir()] == ["notes"]
    assert lab("frames=-1", f"hydra.run.dir={tmp_path}/a/b/c").returncode == 2
    assert not (tmp_path / "a").exists()


def test_a_report_is_made_again(tmp_path: Path) -> None:
    session = train(tmp_path, "frames=500")[0]
    analyze_session(session)
    run = session.path
    written = (run / "session.json").read_bytes(), (run / "session.png").read_bytes()
    for path in (run / "session.json", run / "session.png"):
        path.unlink()
    done = lab("report", str(run))
    assert done.returncode == 0, done.stderr
    assert ((run / "session.json").read_bytes(), (run / "session.png").read_bytes()) == written
    assert lab("report", str(tmp_path / "nothing")).returncode == 2


def test_a_failed_session_is_told_in_a_sentence(tmp_path: Path) -> None:
    arguments = ("env=gymnasium", "env.id=tests.envs:Raises-v0", "name=raises", "frames=50_000")
    done = lab(*arguments, f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr + done.stdout
    assert "Failed: RuntimeError: the environment broke" in done.stdout
    assert "session.log" in done.stdout


def test_a_directory_that_cannot_be_written() -> None:
    done = lab("hydra.run.dir=/proc/nowhere")
    assert done.returncode == 2
    assert "/proc/nowhere cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["enjy", "x"], "Did you mean 'enjoy'"),
        (["env=cartpol"], "Did you mean 'cartpole'"),
        (["env=gymnasium"], "env.id is missing"),
        (["env.kwargs.color=1"], "+env.kwargs.color=VALUE"),
        (["algo=[a"], "algo=[a"),
        (["frames=0"], "frames must be a whole number, 1 or more"),
        (["tuned=foo"], "tuned=foo does not exist"),
        (["algo=null"], "algo=null is not allowed"),
        (["lr=1"], "Did you mean 'algo.lr'"),
        (["--config-dir", "cofn", "algo=a2c"], "/cofn: --config-dir must name one with config groups"),
        (["seed=0,1"], "seed=[0,1]"),
        (["env=FrozenLake-v1"], "env=gymnasium env.id=FrozenLake-v1"),
        (["env=gymnasium", "env.id=phys2d/CartPole-v1"], "pip install jax"),
        (["algo.horizon=9999999999999"], "not enough memory"),
        (["net=module"], "net._target_ is missing"),
        (["total_timesteps=1000"], "Stable-Baselines3's total_timesteps is frames here"),
        (["algo=sac", "env=pendulum", "algo.ent_coef=0"], "is algo.temperature here"),
        (["+algo.n_steps=5"], "is algo.horizon here"),
        (["-m", "search.n_trials=5"], "Add search=a2c; options are a2c,"),
        (["-m", "search=ppo", "seed=0"], "It is searched by search=ppo, and algo=a2c is trained"),
        (["-m", "algo=my_algo"], "--config-dir=FOLDER"),
    ],
)
def test_mistakes(arguments: list[str], sentence: str) -> None:
    done = lab(*arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr


def test_a_mistake_leaves_an_empty_working_directory(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    done = lab("net=module", cwd=folder, env={"PWD": str(folder), "PYTHONPATH": str(ROOT)})
    assert done.returncode == 2
    assert not list(folder.iterdir())


@pytest.mark.parametrize("command", ["status", "rerun"])
def test_a_directory_of_runs_names_the_newest_below_it(command: str, tmp_path: Path) -> None:
    days = [tmp_path / f"outputs/a2c_cartpole/2026-01-0{day}/10-00-00" for day in (1, 3, 2)]
    for day in days:
        day.mkdir(parents=True)
        (day / "status.json").write_text("{}")
    for folder in (tmp_path / "outputs", tmp_path / "outputs/a2c_cartpole"):
        done = lab(command, str(folder))
        assert done.returncode == 2
        assert f"The newest below it: {days[1]} or {days[2]}." in done.stderr


@pytest.mark.parametrize("sweep", [(), ("-m", "seed=0", "plan=true")])
def test_an_id_of_another_environment_than_the_option_is_noted(sweep: tuple[str, ...], tmp_path: Path) -> None:
    env = {"PYTHONPATH": str(ROOT)}
    small = ("frames=100", "eval.every=0", "log.tensorboard=false", *sweep)
    done = lab("algo=ppo", "env.id=Pendulum-v1", *small, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    note = "Note: env.id=Pendulum-v1 is trained with what env=cartpole says of CartPole-v1"
    assert done.stderr.count(note) == 1
    assert "Write env=pendulum or env=gymnasium env.id=Pendulum-v1" in done.stderr
    if sweep:
        done = lab("env=gymnasium", "env.id=Pendulum-v1", *small, cwd=tmp_path, env=env)
        assert not done.stderr


def copy_source(folder: Path) -> None:
    """Copy what an installation is made from."""
    for name in ("lab", "conf"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)


def test_a_clone_called_lab_that_hides_the_package_is_named(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    copy_source(tmp_path / "lab")
    build = f"from setuptools import build_meta; print(build_meta.build_editable({str(site)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=tmp_path / "lab", capture_output=True, text=True, check=True
    )
    shutil.unpack_archive(site / done.stdout.splitlines()[-1], site, "zip")
    before = set(tmp_path.iterdir())
    run = (
        f"import site, runpy; site.addsitedir({str(site)!r});"
        "runpy.run_module('lab', run_name='__main__', alter_sys=True)"
    )
    for arguments in ((), ("algo=a2c", "env=cartpole"), ("-m", "seed=0,1"), ("status", ".")):
        command = [sys.executable, "-c", run, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True)
        assert done.returncode == 2
        assert "The folder ./lab hides the package lab here: run it in another directory, as `cd lab`." in done.stderr
        assert "Traceback" not in done.stderr
        assert set(tmp_path.iterdir()) == before


def test_an_installed_package_carries_its_config(tmp_path: Path) -> None:
    source, site = tmp_path / "source", tmp_path / "site"
    copy_source(source)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(source)]
    subprocess.run(install, check=True, capture_output=True)
    shown = subprocess.run(
        [sys.executable, "-m", "lab", "env=pendulum", "--cfg", "job"],
        env={"PYTHONPATH": str(site)}, cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "Pendulum-v1" in shown.stdout
