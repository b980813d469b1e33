"""The Python API: training, agents and results from Python, and what it leaves alone."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import lab
from lab.command.enjoy import main as enjoy
from lab.launch.child import train_arguments
from lab.run.directory import RunDir
from lab.run.files import write_sealed_yaml
from lab.run.tensor_files import seal
from tests import synthetic
from tests.helpers import ROOT, train, wait_for

ROBOT = (
    "env=gymnasium",
    "env.id=tests.envs:Robot-v0",
    "name=robot",
    "+env.kwargs.size=4",
    "net=multi",
    "net.hidden=[7]",
)
RULES = ("env=gymnasium", "env.id=tests.envs:Rules-v0", "name=rules", "env.action_mask=true", "net.hidden=[7,5]")
SMALL = ("algo=ppo", "algo.horizon=16", "algo.batch_size=16", "algo.epochs=1", "frames=300", "env.num_envs=2")
SESSIONS = {
    "cartpole": ("algo=ppo", "frames=1024", "algo.horizon=64", "env.normalize_observations=true"),
    "pendulum": (*SMALL, "env=pendulum", "env.normalize_observations=true"),
    "lake": (*SMALL, "env=gymnasium", "env.id=FrozenLake-v1", "name=lake"),
    "parts": (*SMALL, *ROBOT, "net.image_hidden=[5]", "net.vector_hidden=[3]", "env.normalize_observations=true"),
    "mask": (*SMALL, *RULES, "+env.kwargs.choices=true"),
    "recurrent": (*SMALL, "net=gru", "net.hidden=[7]", "net.size=5"),
}


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDir]:
    folder = tmp_path_factory.mktemp("sessions")
    return {name: train(folder / name, *overrides)[0] for name, overrides in SESSIONS.items()}


def load(sessions: dict[str, RunDir], name: str) -> lab.Agent:
    return lab.load(sessions[name].path, checkpoint="last", code="here")


def observe(agent: lab.Agent, number: int = 5) -> list[Any]:
    """Return observations of an agent's environment, by random actions."""
    env = agent.make_env()
    observations = [env.reset(seed=1)[0]]
    env.action_space.seed(1)
    while len(observations) < number:
        observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        observations.append(env.reset()[0] if terminated or truncated else observation)
    env.close()
    return observations


def join(observations: list[Any]) -> Any:
    if isinstance(observations[0], dict):
        return {key: join([one[key] for one in observations]) for key in observations[0]}
    return np.stack(observations)


def test_importing_lab_is_quick_and_leaves_heavy_packages_out() -> None:
    code = (
        "import lab, sys; dir(lab), lab.LabError; print([n for n in ('torch', 'pandas', 'hydra') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert inspect.isfunction(lab.train), "help(lab.train) shows it"
    with pytest.raises(AttributeError, match="has no attribute 'trial_of'"):
        lab.trial_of  # noqa: B018


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((["algo=ppo"],), ["algo=ppo"]),
        ((["algo=ppo"], [3]), ["algo=ppo", "seed=3"]),
        ((["algo=ppo"], range(3)), ["-m", "algo=ppo", "seed=0,1,2"]),
        ((["algo=ppo", "seed=0,1"],), ["-m", "algo=ppo", "seed=0,1"]),
        ((["algo=ppo", "net.hidden=[3,4]"],), ["algo=ppo", "net.hidden=[3,4]"]),
        ((["algo.lr=1e-3,1e-4"], [7]), ["-m", "algo.lr=1e-3,1e-4", "seed=7"]),
        (
            (["algo.lr=interval(1e-3,1e-4)", "search=command_line"],),
            ["-m", "algo.lr=interval(1e-3,1e-4)", "search=command_line"],
        ),
        ((["search=a2c"], None, "a b"), ["-m", "search=a2c", "hydra.sweep.dir='a b'"]),
        ((["-m", "algo=ppo"], None, Path("out")), ["-m", "algo=ppo", "hydra.sweep.dir='out'"]),
        (([], None, "out"), ["hydra.run.dir='out'"]),
    ],
)
def test_the_command_line_that_is_run(arguments: tuple[Any, ...], line: list[str]) -> None:
    assert train_arguments(*arguments, *[None] * (3 - len(arguments))) == line


@pytest.mark.parametrize(
    ("overrides", "seeds", "sentence"),
    [
        ("algo=ppo", None, r'overrides is a list of texts, as \["algo=ppo"\]'),
        ([1], None, "overrides is a list of texts"),
        ({"algo": "ppo"}, None, "overrides is a list of texts"),
        ([], 2, "seeds=2 is not allowed: seeds is a list of numbers"),
        (["algo=ppo", "--cfg=job"], None, "--cfg=job trains nothing"),
        (["plan=true"], None, "plan=true trains nothing"),
        (["seed=1"], [0, 1], r"seed=1 is not allowed: give seeds=\[0, 1\] alone"),
        ([], [], r"seeds=\[\] is not allowed"),
    ],
)
def test_calls_that_are_mistakes(overrides: Any, seeds: Any, sentence: str) -> None:
    with pytest.raises(lab.LabError, match=sentence):
        lab.train(overrides, seeds)


def test_a_mistake_of_the_command_line_is_raised_with_its_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(lab.LabError, match=r"^algo\.gama cannot be set: algo has no key 'gama'\. Did you mean 'gamma'"):
        lab.train(["algo=ppo", "algo.gama=0.9"])
    assert capfd.readouterr() == ("", ""), "it is raised, and not printed too"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def trained(place: Path) -> tuple[Any, str]:
    """A Trial of two seeds, and what was printed while it was trained."""
    overrides = ["algo=ppo", "frames=1024", "algo.horizon=64", "eval.episodes=2", "log.tensorboard=false"]
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        run = lab.train(overrides, seeds=[0, 1], directory=place / "trial")
    return run, output.getvalue()


def test_a_trial_is_trained_in_a_process_of_its_own(trained: tuple[Any, str], place: Path) -> None:
    (trial, output), threads = trained, torch.get_num_threads()
    assert isinstance(trial, lab.Trial)
    assert lab.Trial(str(trial.path)) == trial, "opened again, by a text"
    assert (trial.path, trial.state, trial.seeds) == (place / "trial", "completed", [0, 1])
    assert [one.seed for one in trial.sessions] == [0, 1]
    means = [one.mean_return for one in trial.sessions]
    assert trial.mean_return == pytest.approx(np.mean([mean for mean in means if mean is not None]))
    assert "Trial: seeds 0 and 1 of 1,024 frames each" in output, "its progress is shown as lines"
    assert repr(trial).startswith(f"Trial {place}/trial: Sessions 2 of 2 completed, mean return ")
    assert torch.get_num_threads() == threads
    command = RunDir(trial.sessions[0].path).provenance.read_text()
    assert "-m lab -m algo=ppo frames=1024" in command, "a command that a user can give again"
    html = trial._repr_html_()
    assert "mean return" in html and "data:image/png;base64," in html
    assert trial._repr_png_() == trial.picture.read_bytes()


def examples(page: str) -> str:
    """Return the code in Python of a page."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("page", [pytest.param("README.md", marks=pytest.mark.slow), "docs/reference/python.md"])
def test_the_examples_of_a_page_run(
    page: str, trained: tuple[Any, str], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").symlink_to(place)
    calls: list[Any] = []
    monkeypatch.setattr("lab.api.train", lambda call, **_: calls.append((call,)) or trained[0])
    names: dict[str, Any] = {}
    exec(examples(page), names)
    ((overrides, *_),) = calls
    assert overrides[:2] == ["algo=ppo", "env=cartpole"] and names["trial"] is trained[0]
    assert len(names["curves"]) and (tmp_path / "policy.onnx").exists()


def test_the_results_are_tables(trained: tuple[Any, str]) -> None:
    results = lab.results(trained[0])
    assert {*results.curves["seed"]} == {0, 1} and "return" in results.curves
    assert results.episodes.groupby("seed")["length"].sum().between(1, 1024).all()
    assert results.sessions["state"].tolist() == ["completed"] * 2
    assert results.trials["return_mean"].tolist() == pytest.approx([trained[0].mean_return])
    assert results.timing["seconds"].sum() > 0
    assert results.sessions["frames_to_solve"].dtype == float, "also where no Session has it"
    session = lab.results(trained[0].sessions[1])
    assert session.curves.equals(results.curves[results.curves["seed"] == 1].reset_index(drop=True))
    with pytest.raises(lab.LabError, match="is not a run directory"):
        lab.results("nowhere")
    with pytest.raises(lab.LabError, match=r"last\.pt is not a run directory, but a file of one: name .*/seed-1\."):
        lab.load(session.path / "checkpoint" / "last.pt")


def test_the_results_of_an_experiment_are_ranked(tmp_path: Path) -> None:
    sweep = synthetic.experiment(tmp_path / "sweep", trials=3, seeds=2, rows=5)
    results = lab.results(sweep.path)
    assert results.trials["rank"].tolist() == [1, 2, 3]
    assert len(results.sessions) == 6 and {*results.curves["trial"]} == {0, 1, 2}


def test_runs_are_found_by_conditions(trained: tuple[Any, str], place: Path) -> None:
    assert lab.find("algo=ppo", "env.id=CartPole-v1", root=place) == [trained[0]]
    assert lab.find("return>1000", root=place) == []
    assert lab.find(root=place, level="session", sort="-return")[-1] == max(
        trained[0].sessions, key=lambda one: one.mean_return
    )
    with pytest.raises(lab.LabError, match="retrun"):
        lab.find("retrun>450", root=place)


def test_the_best_agent_of_a_trial_is_loaded(trained: tuple[Any, str]) -> None:
    best = max(trained[0].sessions, key=lambda one: (one.metrics["eval_best"], one.metrics["return"]))
    assert lab.load(trained[0]).path == best.path
    assert lab.load(trained[0]).spec == best.spec
    with pytest.raises(lab.LabError, match="checkpoint must be one of best, last"):
        lab.load(trained[0], checkpoint="first")  # type: ignore[arg-type]


def test_no_agent_is_the_best_of_several_environments(tmp_path: Path, sessions: dict[str, RunDir]) -> None:
    for seed, name in enumerate(("cartpole", "pendulum")):
        (tmp_path / f"seed-{seed}").symlink_to(sessions[name].path)
    with pytest.raises(lab.LabError, match=r"several environments \(CartPole-v1, Pendulum-v1\), none of which is"):
        lab.load(tmp_path, checkpoint="last")


@pytest.mark.parametrize("name", SESSIONS)
def test_actions_are_those_of_the_environment(sessions: dict[str, RunDir], name: str) -> None:
    agent = load(sessions, name)
    observations, space = observe(agent), agent.action_space
    agent.reset(seed=3)
    for observation in observations:
        assert space.contains(agent.act(observation))
        assert space.contains(agent.act(observation, deterministic=False))


@pytest.mark.parametrize("name", SESSIONS)
def test_a_batch_gives_the_actions_of_its_observations(sessions: dict[str, RunDir], name: str) -> None:
    agent = load(sessions, name)
    observations = observe(agent)
    single = []
    for observation in observations:
        agent.reset()
        single.append(agent.act(observation))
    agent.reset()
    batch = agent.act(join(observations))
    assert batch.dtype == np.asarray(single).dtype
    np.testing.assert_allclose(batch, single, atol=1e-6)


def test_invalid_actions_are_never_taken(sessions: dict[str, RunDir]) -> None:
    agent = load(sessions, "mask")
    for observation in observe(agent, 20):
        masks = np.split(observation["action_mask"], np.cumsum(agent.action_space.nvec)[:-1])  # type: ignore[attr-defined]
        for choice in (agent.act(observation), agent.act(observation, deterministic=False)):
            assert all(mask[index] for mask, index in zip(masks, choice, strict=True))


def test_a_recurrent_agent_remembers_until_it_is_reset(sessions: dict[str, RunDir]) -> None:
    agent = load(sessions, "recurrent")
    policy, observations = agent._policy, observe(agent, 4)
    batch = np.stack(observations[:2])
    agent.act(batch)
    after_one = policy._carry
    agent.act(batch)
    assert after_one is not None and policy._carry is not None and not torch.equal(after_one, policy._carry)
    agent.reset(done=[True, False])
    agent.act(batch)
    torch.testing.assert_close(policy._carry[:, 0], after_one[:, 0])
    with pytest.raises(lab.LabError, match=r"got 1 observations after 2, and the agent is recurrent: call reset\(\)"):
        agent.act(observations[0])
    with pytest.raises(lab.LabError, match="done has 3 values, and act was called with 2"):
        agent.reset(done=[True] * 3)
    agent.reset()
    agent.act(observations[0])


@pytest.mark.parametrize(
    ("name", "observation", "sentence"),
    [
        ("cartpole", np.zeros(3), r"has the shape \(4,\), and a batch of N \(N, 4\): this one has \(3,\)"),
        ("cartpole", np.zeros((0, 4)), r"this one has \(0, 4\)"),
        ("lake", np.zeros((2, 2)), r"has the shape \(\), and a batch of N \(N,\): this one has \(2, 2\)"),
        ("mask", np.zeros(3), r"is no observation of Dict.*: the part \['action_mask'\] is missing in ndarray"),
    ],
)
def test_what_is_no_observation(sessions: dict[str, RunDir], name: str, observation: Any, sentence: str) -> None:
    with pytest.raises(lab.LabError, match=sentence):
        load(sessions, name).act(observation)


@pytest.mark.parametrize(("name", "deterministic"), [("cartpole", True), ("pendulum", False), ("recurrent", True)])
def test_an_evaluation_has_the_numbers_of_enjoy(
    sessions: dict[str, RunDir], name: str, deterministic: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = load(sessions, name)
    enjoy([str(agent.path), "checkpoint=last", "episodes=3", "seed=5", f"deterministic={deterministic}"])
    printed = capsys.readouterr().out
    for _ in range(2):  # it changes nothing that a second one depends on
        evaluation = agent.evaluate(episodes=3, seed=5, deterministic=deterministic)
        assert [float(value) for value in re.findall(r"^episode .*?return +(\S+)", printed, re.MULTILINE)] == (
            evaluation.returns.round(2).tolist()
        )
        assert printed.endswith(f"{evaluation}\n")
    assert evaluation.mean_return == pytest.approx(evaluation.returns.mean())
    with pytest.raises(lab.LabError, match="episodes=0 is not allowed"):
        agent.evaluate(episodes=0)


def test_gymnasium_loop(sessions: dict[str, RunDir]) -> None:
    agent = load(sessions, "cartpole")
    env: gym.Env[Any, Any] = agent.make_env(render_mode="rgb_array")
    observation, _ = env.reset(seed=0)
    assert agent.observation_space.contains(observation)
    env.step(agent.act(observation))
    assert env.render().shape == (400, 600, 3)  # type: ignore[union-attr]
    env.close()


@pytest.mark.law
def test_law_7_a_notebook_shows_texts_and_no_links(sessions: dict[str, RunDir], tmp_path: Path) -> None:
    session = RunDir(tmp_path / "<script>")
    shutil.copytree(sessions["cartpole"].path, session.path)
    (tmp_path / "secret").write_bytes(b"of another user")
    session.plot.symlink_to(tmp_path / "secret")
    shown = lab.Session(session.path)
    assert "<script>" not in shown._repr_html_() and "&lt;script&gt;" in shown._repr_html_()
    assert shown._repr_png_() is None and "data:image" not in shown._repr_html_()


class Malicious:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("ran"),)


ATTACKS = {
    "a pickle": "damaged: it holds something else than tensors and plain data",
    "a tag of YAML": "cannot be read",
    "a network": "cannot be imported",
    "a function of Python": "is part of Python or a program, and importing it may do anything",
    "an environment": "which may be a stranger's",
}


@pytest.mark.law
@pytest.mark.parametrize("attack", ATTACKS)
def test_law_7_loading_runs_nothing_of_a_directory(
    sessions: dict[str, RunDir], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attack: str
) -> None:
    session = RunDir(tmp_path / "stranger")
    shutil.copytree(sessions["cartpole"].path, session.path)
    (session.path / "evil.py").write_text("import pathlib\npathlib.Path('ran').touch()\n")
    spec = session.spec.read_text().rpartition("# checksum")[0]
    if attack == "a pickle":
        content = io.BytesIO()
        torch.save(Malicious(), content)
        session.checkpoint("last").write_bytes(seal(content.getvalue()))
    elif attack == "a tag of YAML":
        write_sealed_yaml(session.spec, f"{spec}\nextra: !!python/object/apply:pathlib.Path.touch [ran]")
    else:
        target = {"a network": "evil.Net", "a function of Python": "os.system"}.get(attack)
        changed = re.sub(r"(\nnet:\n(?:  .*\n)*?  _target_: ).*", rf"\g<1>{target}", spec) if target else spec
        if attack == "an environment":
            changed = re.sub(r"(\nenv:\n(?:  .*\n)*?  id: ).*", r"\g<1>evil:Thing-v0", spec)
        assert changed != spec
        write_sealed_yaml(session.spec, changed)
    monkeypatch.chdir(session.path)
    monkeypatch.syspath_prepend("")
    with pytest.raises(lab.LabError, match=ATTACKS[attack]):
        lab.load(session.path, checkpoint="last")
    assert not Path("ran").exists() and "evil" not in sys.modules


STOPPED = """
import signal
import lab
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests may run where it is ignored
try:
    lab.train(["algo=ppo", "frames=50_000_000", "compile=false", "log.tensorboard=false"], directory="run", show=False)
except KeyboardInterrupt:
    print("raised")
"""


@pytest.mark.slow
@pytest.mark.law
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_session_saves_its_work_when_the_program_is_stopped(tmp_path: Path, number: signal.Signals) -> None:
    program = [sys.executable, "-c", STOPPED]
    process = subprocess.Popen(program, cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True)
    session = RunDir(tmp_path / "run")
    wait_for(lambda: session.metrics.exists() and session.metrics.read_text().count("\n") > 1, process)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=60)
    assert printed == ("raised\n" if number == signal.SIGINT else "")
    wait_for(lambda: session.read_status()["state"] != "running")
    assert session.read_status()["state"] == "interrupted"
    assert session.checkpoint("last").exists()


@pytest.mark.slow
def test_an_experiment_and_a_session_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    quick = ["algo=ppo", "frames=1024", "algo.horizon=64", "eval.every=0", "log.tensorboard=false"]
    experiment = lab.train([*quick, "algo.lr=1e-3,1e-4"], seeds=[0, 1], show=False)
    assert isinstance(experiment, lab.Experiment)
    assert experiment.path.parts[:2] == ("outputs", "ppo_cartpole"), "relative to the working directory"
    assert len(experiment.trials) == 2 and len(experiment.sessions) == 4
    assert experiment.best and experiment.best.hyperparameters.keys() == {"algo.lr"}
    assert experiment.table["rank"].min() == 1 and experiment.mean_return == experiment.best.mean_return
    (tmp_path / "broken.py").write_text(BROKEN)
    broken = ["env=gymnasium", "env.id=broken:Broken-v0", "name=broken", "hydra.run.dir=failed"]
    with pytest.raises(lab.LabError, match=r"No Session of failed completed: RuntimeError: the wheel came off"):
        lab.train([*quick, *broken], show=False)


BROKEN = """
import gymnasium

class Broken(gymnasium.Env):
    observation_space = gymnasium.spaces.Discrete(3)
    action_space = gymnasium.spaces.Discrete(2)
    steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        self.steps += 1
        if self.steps == 60:
            raise RuntimeError("the wheel came off")
        return 1, 1.0, False, False, {}

gymnasium.register("Broken-v0", entry_point=Broken, max_episode_steps=20)
"""
