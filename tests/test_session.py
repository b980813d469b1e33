"""Sessions: the files they write, and how they end if something fails."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from lab import session
from lab.env.vector import probe
from lab.errors import LabError
from lab.run.code.repository import Repository
from lab.run.code.snapshot import CodeSnapshot
from lab.run.directory import RunDir
from lab.run.files import read_json, write_json
from lab.run.provenance import Provenance
from lab.run.table import Table
from lab.run.tensor_files import read as read_checkpoint
from lab.session import train as train_stack
from lab.training import record
from lab.training.agent import Agent, find_device
from lab.training.evaluate import Evaluation
from lab.training.metrics import Averages
from lab.training.stack import Stack
from lab.training.tags import TAGS, tag
from tests.helpers import ROOT, lab, result, specs, train, train_specs

SLOW = (pytest.mark.slow, pytest.mark.law)

CODE = CodeSnapshot(Repository("lab", ROOT), (), {})
HERE = Provenance({"start": "now", "command": "none", "host": "here", "device": "cpu", "stack": [0], "git": {}}, CODE)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_files_of_a_session(tmp_path: Path) -> None:
    directory = train(tmp_path, "algo=ppo", "algo.horizon=32", "frames=2048", "log.tensorboard=true", "seed=3")[0]
    assert yaml.safe_load(directory.spec.read_text())["seed"] == 3
    assert directory.read_status()["state"] == "completed"
    facts = json.loads(directory.provenance.read_text())
    assert facts["end"] >= facts["start"]
    episodes, metrics, timing = map(rows, (directory.episodes, directory.metrics, directory.timing))
    assert [row["frame"] for row in metrics] == [row["frame"] for row in timing]
    assert metrics[-1]["frame"] == "2048"
    assert int(metrics[-1]["optimizer_steps"]) == 2048 // 256 * 10
    assert int(metrics[-1]["episodes"]) == len(episodes)
    last = [float(row["return"]) for row in episodes[-100:]]
    assert float(metrics[-1]["return"]) == pytest.approx(sum(last) / len(last))
    for name in ("policy_loss", "value_loss", "entropy_loss", "entropy", "approx_kl", "clip_fraction",
                 "explained_variance", "grad_norm", "learning_rate", "eval_return"):  # fmt: skip
        assert metrics[-1][name] != "", name
    for which in ("last", "best"):
        assert read_checkpoint(directory.checkpoint(which))["frame"] <= 2048
    assert "completed at frame 2048" in directory.log.read_text()


def test_frames_and_lengths_of_episodes_leave_no_gap(tmp_path: Path) -> None:
    directory = train(tmp_path, "env.num_envs=1", "frames=1000", "eval.every=0")[0]
    previous = 0
    for row in rows(directory.episodes):
        # One environment: an episode ends its length after the last one, and a reset takes a step of its own.
        assert int(row["frame"]) == previous + float(row["length"]) + (previous > 0)
        assert float(row["return"]) == float(row["length"])
        previous = int(row["frame"])


def test_tensorboard_holds_curves_histograms_and_hyperparameters(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    overrides = ("algo=ppo", "algo.horizon=32", "frames=1024", "log.tensorboard=true", "log.histograms=1")
    directory = train(tmp_path, *overrides)[0]
    events = EventAccumulator(str(directory.path), size_guidance={"histograms": 0}).Reload()
    tags = events.Tags()
    columns = set(rows(directory.metrics)[0]) - {"frame"}
    assert sorted(tags["scalars"]) == sorted(map(tag, [*columns, "frames_per_second"])), "each value is written once"
    assert {"rollout/ep_rew_mean", "eval/mean_reward", "train/approx_kl", "time/fps"} <= set(tags["scalars"])
    scalars = [event.value for event in events.Scalars("rollout/ep_rew_mean")]
    assert scalars == pytest.approx([float(row["return"]) for row in rows(directory.metrics)])
    for kind in ("weight", "bias", "gradient"):
        assert any(name.startswith(f"values/{kind}/") for name in tags["histograms"]), kind
    assert min(tags["histograms"]) > max(tags["scalars"]), "TensorBoard shows scalars first"
    actions = events.Histograms("values/action/0")[-1].histogram_value
    assert actions.num == 32 * 8
    assert actions.max <= 1
    plugin = events.SummaryMetadata("_hparams_/session_start_info").plugin_data
    assert b"algo.optimizer.lr" in plugin.content
    reference = (ROOT / "docs/reference/run-directory.md").read_text()
    assert all(f"| `{column}` | `{name}` |" in reference for column, name in TAGS.items())


def test_nan_in_a_loss_fails_the_session_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    chosen = ("env=gymnasium", "env.id=tests.envs:NotANumber-v0", "name=nan", "eval.every=0", "frames=50_000")
    directory = train(tmp_path, *chosen, "checkpoint.every=40")[0]
    status = directory.read_status()
    assert status["state"] == "failed"
    assert "NaN" in status["error"]
    state = read_checkpoint(directory.checkpoint("last"))
    assert 0 < state["frame"] < status["frame"]
    assert all(torch.isfinite(value).all() for value in state["parameters"].values())


def test_a_full_disk_fails_the_session_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Table.flush

    def flush(self: Table) -> None:
        if directory.metrics.exists() and directory.metrics.stat().st_size > 300:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(self)

    made = specs("frames=20_000", "log.every=500", "log.tensorboard=false", "eval.every=0")
    directory = RunDir(tmp_path / "0-seed-0")
    monkeypatch.setattr(record.Table, "flush", flush)
    train_specs(tmp_path, made)
    status = directory.read_status()
    assert status["state"] == "failed"
    assert "No space left on device" in status["error"]
    assert "Free some space" in status["error"]
    assert len(rows(directory.metrics)) >= 1
    assert status["lost"], "a full disk is not the fault of the Session"


@pytest.mark.parametrize(
    ("number", "vectorize"),
    [
        (signal.SIGINT, "async"),
        pytest.param(signal.SIGTERM, "auto", marks=SLOW),
        pytest.param(signal.SIGINT, "auto", marks=SLOW),
        pytest.param(signal.SIGTERM, "async", marks=SLOW),
    ],
)
def test_an_interrupted_session_has_everything_written(tmp_path: Path, number: signal.Signals, vectorize: str) -> None:
    output = tmp_path / "run"
    overrides = ["frames=10_000_000", "log.every=500", f"hydra.run.dir={output}", f"env.vectorization_mode={vectorize}"]
    command = [sys.executable, "-m", "lab", *overrides, "env.num_envs=2"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    directory = RunDir(output)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (directory.metrics.exists() and len(rows(directory.metrics)) > 2):
        time.sleep(0.1)
    alone = (number, vectorize) == (signal.SIGTERM, "auto")
    process.send_signal(number) if alone else os.killpg(process.pid, number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert "interrupted" in stdout
    status = directory.read_status()
    assert status["state"] == "interrupted"
    assert read_checkpoint(directory.checkpoint("last"))["frame"] == status["frame"]
    assert int(rows(directory.episodes)[-1]["frame"]) <= status["frame"]
    assert directory.results.exists()
    assert directory.plot.exists()


def test_dev_mode_detects_a_parameter_that_does_not_learn(tmp_path: Path) -> None:
    directory = train(tmp_path, "mode=dev", "algo.value_coef=0")[0]
    status = directory.read_status()
    assert status["state"] == "failed"
    assert "left network.trunks.value.0.weight unchanged" in status["error"]


def test_a_session_that_never_finishes_an_episode(tmp_path: Path) -> None:
    directory = train(tmp_path, "env=mountaincar", "frames=200", "eval.every=0")[0]
    assert directory.read_status()["state"] == "completed"
    assert rows(directory.metrics)[-1]["return"] == ""


def test_episodes_that_never_end_are_warned_of_and_can_be_cut(tmp_path: Path) -> None:
    chosen = ("env=gymnasium", "env.id=tests.envs:Endless-v0", "env.num_envs=1", "frames=1200", "eval.every=0")
    short = (*chosen, "algo.horizon=50", "log.tensorboard=false")
    done = lab(*short, f"hydra.run.dir={tmp_path}/endless")
    warning = (
        "No episode of env.id=tests.envs:Endless-v0 ended within 1,000 steps, so there is no return. It has no time"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"Warning: {warning} limit: set env.max_episode_steps") == 2, "early, and with the results"
    assert done.stdout.index(warning) < done.stdout.index("100%")
    assert warning in RunDir(tmp_path / "endless").log.read_text()
    cut = lab(*short, "env.max_episode_steps=20", "eval.every=1200", f"hydra.run.dir={tmp_path}/cut")
    directory = RunDir(tmp_path / "cut")
    assert cut.returncode == 0 and "Warning" not in cut.stdout
    assert {row["length"] for row in rows(directory.episodes)} == {"20"}
    assert rows(directory.metrics)[-1]["eval_length"] == "20.0"
    assert "length     20" in lab("enjoy", str(directory.path), "episodes=1", "code=here").stdout


def test_a_session_that_is_too_short_for_an_episode_says_so(tmp_path: Path) -> None:
    directory = train(tmp_path, "env=mountaincar", "frames=200", "eval.every=0")[0]
    assert "Its episodes are cut after 200 steps: train for more" in directory.read_status()["warnings"][0]


def test_an_evaluation_of_episodes_without_an_end_is_cut(tmp_path: Path) -> None:
    chosen = ("env=gymnasium", "env.id=tests.envs:Endless-v0", "name=endless", "frames=400", "eval.every=400")
    directory = train(tmp_path, *chosen, "eval.max_steps=30")[0]
    assert directory.read_status()["state"] == "completed"
    assert rows(directory.metrics)[-1]["eval_return"] == "30.0"


def test_an_evaluation_counts_the_first_episode_alone(tmp_path: Path) -> None:
    made = specs("env=gymnasium", "env.id=tests.envs:Brittle-v0", "name=brittle", "eval.episodes=5")
    agent = Agent(made, probe(made[0].env), torch.device("cpu"))
    evaluation = Evaluation(agent, {0: made[0].env}, made[0].eval)
    while evaluation.running:
        evaluation.step()
    returns, lengths = evaluation.episodes[0]
    assert returns.tolist() == lengths.tolist()


def test_steps_not_taken_are_not_counted(tmp_path: Path) -> None:
    chosen = ("algo=ppo", "algo.horizon=128", "frames=1024", "algo.target_kl=1e-9", "log.every=1024")
    directory = train(tmp_path, *chosen)[0]
    # The first epoch ends over the limit, at its second minibatch.
    assert rows(directory.metrics)[-1]["optimizer_steps"] == str(1024 // 256)
    assert read_checkpoint(directory.checkpoint("last"))["optimizer_steps"] == 1024 // 256


def test_a_second_interrupt_leaves_the_checkpoint_from_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = specs("algo=ppo", "algo.horizon=32", "frames=4096", "checkpoint.every=512", "log.tensorboard=false")
    directory = RunDir(tmp_path)
    stack = Stack(made, [directory], probe(made[0].env))
    step, calls = stack.agent.algorithm.step, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) > 25:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(stack.agent.algorithm, "step", interrupted)
    assert [record.state for record in stack.train(HERE)] == ["interrupted"]
    assert read_checkpoint(directory.checkpoint("last"))["frame"] == 512
    assert directory.read_status()["state"] == "interrupted"


def test_a_session_whose_last_evaluation_was_cut_is_not_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = specs("frames=400", "eval.every=400", "log.tensorboard=false")
    step = Evaluation.step

    def interrupted(self: Evaluation) -> None:
        signal.raise_signal(signal.SIGINT)
        step(self)

    monkeypatch.setattr(Evaluation, "step", interrupted)
    records = train_stack(made, [RunDir(tmp_path)], probe(made[0].env), show=False)
    assert [record.state for record in records] == ["interrupted"]


def test_directories_are_acquired_all_or_none(tmp_path: Path) -> None:
    made = specs("frames=300", "log.tensorboard=false", "eval.every=0", "seed=[0,1]")
    train_specs(tmp_path, made[1:])
    (tmp_path / "0-seed-1").rename(tmp_path / "1-seed-1")
    with pytest.raises(LabError, match="already holds a Session"):
        train_specs(tmp_path, made)
    assert not (tmp_path / "0-seed-0" / "status.json").exists()


def test_averages_are_over_the_calls_that_gave_a_metric() -> None:
    averages = Averages()
    averages.add({"steps": torch.tensor([1.0, 4.0]), "a": torch.tensor([1.0, 2.0])})
    averages.add({"steps": torch.tensor([0.0, 4.0]), "a": torch.tensor([3.0, 4.0]), "b": torch.tensor([5.0, 6.0])})
    assert averages.pop() == {"a": [1.0, 3.0], "b": [None, 6.0]}
    assert averages.pop() == {}


def test_a_missing_device() -> None:
    assert find_device("cpu").type == "cpu"
    assert find_device("auto").type in ("cpu", "cuda")
    with pytest.raises(LabError, match="device=cuda:99 is not there"):
        find_device("cuda:99")


@pytest.mark.gpu
@pytest.mark.parametrize("env", ["cartpole", "pendulum"])
def test_training_on_a_gpu(tmp_path: Path, env: str) -> None:
    directory = train(tmp_path, "algo=ppo", f"env={env}", "~tuned", "frames=3000", "device=cuda", "seed=[0,1]")[0]
    assert directory.read_status()["state"] == "completed"


def test_a_session_asked_to_stop_ends_pruned_and_the_others_continue(tmp_path: Path) -> None:
    overrides = ("frames=3000", "algo.horizon=16", "eval.every=0", "log.every=500", "log.tensorboard=false")
    alone = train_specs(tmp_path / "alone", specs(*overrides, "seed=1"))[0]
    made = specs(*overrides, "seed=[0,1]")
    directories = [RunDir(tmp_path / f"seed-{seed}") for seed in (0, 1)]
    stack = Stack(made, directories, probe(made[0].env))
    learn = stack.agent.algorithm.learn

    def asked(*arguments, **options):
        if stack.frame >= 1500 and not directories[0].stop.exists():
            directories[0].ask_to_stop("pruned", "pruned at rung 5 of 10")
        return learn(*arguments, **options)

    stack.agent.algorithm.learn = asked
    records = stack.train(HERE, show=False)
    assert [record.state for record in records] == ["pruned", "completed"]
    status = directories[0].read_status()
    assert (status["state"], status["error"]) == ("pruned", "pruned at rung 5 of 10")
    assert 1500 <= status["frame"] < 2500
    assert directories[0].checkpoint("last").exists()
    assert directories[0].checkpoint("best").exists()
    assert int(directories[0].metrics.read_text().splitlines()[-1].split(",")[0]) == status["frame"]
    assert result(directories[1]) == result(alone), "as alone"


def test_a_request_to_stop_a_session_that_never_saw_it_is_forgotten(tmp_path: Path) -> None:
    made = specs("frames=300", "log.tensorboard=false", "eval.every=0")
    directory = train_specs(tmp_path, made)[0]
    for path in directory.path.iterdir():
        if path.is_file() and path != directory.status:
            path.unlink()
    shutil.rmtree(directory.checkpoint("last").parent)
    write_json(directory.status, {**read_json(directory.status), "state": "interrupted", "frame": 0})
    directory.ask_to_stop("interrupted", "the sweep was stopped")
    train_specs(tmp_path, made)
    assert directory.read_status()["state"] == "completed"
    assert not directory.stop.exists()


def test_an_interrupted_session_of_another_spec_is_kept(tmp_path: Path) -> None:
    made = specs("frames=300", "log.tensorboard=false", "eval.every=0")
    directory = train_specs(tmp_path, made)[0]
    write_json(directory.status, {**read_json(directory.status), "state": "interrupted"})
    before = directory.episodes.read_text()
    with pytest.raises(LabError, match=r"holds a Session of another spec: frames is 300 there and 400 here"):
        train_specs(tmp_path, specs("frames=400", "log.tensorboard=false", "eval.every=0"))
    assert directory.episodes.read_text() == before
    train_specs(tmp_path, made)
    assert directory.read_status()["state"] == "completed"


def test_unknown_code_and_other_code_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory,) = train(tmp_path, "frames=200", "algo.horizon=100", "eval.every=0")
    facts = read_json(directory.provenance)
    code = CodeSnapshot(Repository("lab", ROOT, note="git is not installed"), (), facts["code"])
    session.print_code_warnings(code, [directory])
    assert capsys.readouterr().err == "Warning: The code of lab has no git SHA: git is not installed.\n"
    write_json(directory.provenance, {**facts, "code": {"lab": "another", "mine": "x"}})
    session.print_code_warnings(code, [directory])
    assert f"Warning: {directory.path} resumes with other code than it started with: lab." in capsys.readouterr().err
    provenance = Provenance({**facts, "restore": "pickle"}, code)
    state = {"best": 0, "episodes": 0, "rows": 0, "row_frame": 0, "window": []}
    state["tables"] = read_json(directory.status)["tables"]
    record.Record(specs()[0], directory, provenance, (), 200, state).finish("interrupted", 200)
    log = directory.log.read_text()
    assert "WARNING The code of lab has no git SHA: git is not installed." in log
    assert "WARNING the code of lab is not what this Session was started with: see provenance.json" in log
    (resumed,) = read_json(directory.provenance)["resumed"]
    assert resumed["code"] == facts["code"]
