from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from lab.algo.a2c import A2C
from lab.algo.algorithm import stack
from lab.errors import LabError
from lab.run.files import write_text
from lab.spec import COMPILED_FROM, Tuning, load, read, require_same_spec
from lab.training.agent import Agent
from tests.helpers import specs


def test_a_list_of_seeds_is_a_stack() -> None:
    assert [spec.seed for spec in specs("seed=[3,1,2]")] == [3, 1, 2]
    assert [spec.seed for spec in specs("seed=7")] == [7]


def test_a_spec_read_back_is_the_same(tmp_path: Path) -> None:
    spec = specs("algo=ppo", "env=pendulum", "algo.target_kl=0.02", "seed=4")[0]
    write_text(tmp_path / "spec.yaml", yaml.safe_dump(spec.to_dict(), sort_keys=False))
    assert load(tmp_path / "spec.yaml") == spec


def test_numbers_are_what_they_are_declared() -> None:
    spec = specs("algo.lr=1", "algo=ppo", "algo.clip_range_vf=1")[0]
    assert isinstance(spec.algo.optimizer.lr, float)
    assert isinstance(spec.algo.clip_range_vf, float)
    assert specs("frames=1e4")[0].frames == 10_000
    assert specs("name=2024")[0].name == "2024"


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("seed=x", "whole number or a list"),
        ("seed=[0,0]", "twice"),
        ("seed=[]", "list of one or more"),
        ("seed=-1", "a whole number, 0 or more"),
        ("frames=0", "1 or more"),
        ("frames=true", "a whole number"),
        ("frames=1.5", "a whole number"),
        ("algo.lr=inf", "a finite number"),
        ("algo.lr=nan", "a finite number"),
        ("env.kwargs=null", "a group of keys and values"),
        ("env.reference.solved=x", "a number or null"),
        ("net.hidden=64", "a list, in which each is a whole number"),
        ("threads=0", "1 or more"),
        ("device=gpu", "auto, cpu, cuda or cuda:N"),
        ("name=../x", "name of a directory"),
        ("algo.lr=null", "a number"),
        ("compile=maybe", "compile must be true or false or .*auto"),
        ("algo.lr=[1]", "a number"),
        ("algo.optimizer.lr_schedule=lin", "Did you mean 'linear'"),
        ("algo.optimizer.name=adm", "Did you mean 'adam'"),
        ("+algo.optimizer.beta3=1", "algo.optimizer has no key"),
        ("+foo=1", "has no key 'foo'"),
        ("net.hidden=[0]", "each is a whole number, 1 or more"),
        ("net._target_=lab.net.mlp.Nothing", "cannot be imported"),
        ("net._target_=lab.algo.ppo.PPO", "extends Net"),
        ("env.num_envs=0", "1 or more"),
        ("env.vectorization_mode=parallel", "one of async, auto, native, sync"),
        ("+env.kwargs.render_mode=human", "set elsewhere"),
        ("~algo.gamma", "algo.gamma is missing"),
        ("eval.every=-1", "a whole number, 0 or more"),
        ("mode=dev mode=train log.every=0", "a whole number, 1 or more"),
        ("algo=ppo algo.batch_size=1000", "Use 512 or 1024"),
        ("algo=ppo algo.clip_range=0", "above 0"),
        ("algo.advantage=n_step algo.n_step=50", "algo.horizon"),
        ("algo=dqn frames=1000", "less than frames"),
        ("algo=pqn net.norm=layer", "algo.norm takes its place"),
        ("algo=crossq algo.norm=none net=gru", "learns from single steps"),
        ("algo.entropy_schedule=exponential algo.entropy_final=0.1", "algo.entropy_coef=0.0 .* above 0"),
    ],
)
def test_mistakes_are_sentences(word: str, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        specs(*word.split())


def test_files_that_are_not_specs(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"no spec\.yaml"):
        load(tmp_path / "spec.yaml")
    (tmp_path / "spec.yaml").write_text("a: [1")
    with pytest.raises(LabError, match=r"spec.yaml cannot be read: while parsing"):
        load(tmp_path / "spec.yaml")
    (tmp_path / "spec.yaml").write_text("seed: 1")
    with pytest.raises(LabError, match="frames is missing"):
        load(tmp_path / "spec.yaml")


def test_an_interpolation_that_leads_nowhere() -> None:
    with pytest.raises(LabError, match="nothing"):
        read(OmegaConf.create({"seed": 1, "name": "${nothing}"}))


def test_a_stack_has_vectors_of_numbers_and_one_of_everything_else() -> None:
    first = specs("algo=ppo")[0].algo
    second = dataclasses.replace(first, gamma=0.5)
    stacked = stack([first, second], "cpu", "algo")
    assert stacked.gamma.flatten().tolist() == pytest.approx([first.gamma, 0.5])
    assert stacked.optimizer.eps.shape == (2, 1)
    assert stacked.horizon == first.horizon
    with pytest.raises(LabError, match=r"algo.horizon differs between Sessions of one stack"):
        stack([first, dataclasses.replace(first, horizon=7)], "cpu", "algo")


def test_a_stack_keeps_to_one_thread() -> None:
    with pytest.raises(LabError, match="threads=2 is not allowed for a stack of 2"):
        Agent(specs("seed=[0,1]", "threads=2"), None, "cpu")


@pytest.mark.parametrize(
    ("overrides", "reason"),
    {
        "mode=dev": "with mode=dev, which checks every step",
        "net=module net._target_=tests.modules.Torso +net.width=9": "with net._target_=tests.modules.Torso",
        "algo.optimizer.name=torch.optim.Adamax": "with algo.optimizer.name=torch.optim.Adamax",
        "algo=reinforce": "with algo=reinforce, which learns from varying numbers of steps",
    }.items(),
)
def test_what_cannot_be_compiled(overrides: str, reason: str) -> None:
    chosen = (*overrides.split(), "~tuned", "frames=10_000_000")
    with pytest.raises(LabError, match=f"^compile=true is not allowed: compile must be auto or false {reason}"):
        specs(*chosen, "compile=true")
    spec = specs(*chosen)[0]
    spec.resolve_compile()
    assert spec.compile is False, "auto"


@pytest.mark.parametrize(
    ("overrides", "steps_per_frame"),
    {
        "algo=a2c algo.horizon=5 env.num_envs=2": 1 / 10,
        "algo=ppo algo.horizon=8 env.num_envs=2 algo.batch_size=8 algo.epochs=4": 4 / 8,
        "algo=sarsa algo.horizon=8 env.num_envs=2 algo.batch_size=null algo.epochs=1": 1 / 16,
        "algo=pqn algo.horizon=8 env.num_envs=2 algo.batch_size=4 algo.epochs=3": 3 / 4,
        "algo=dqn algo.horizon=4 env.num_envs=2 algo.gradient_steps=2 algo.learning_starts=0": 2 / 8,
    }.items(),
)
def test_auto_compiles_where_it_saves_time(
    overrides: str, steps_per_frame: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def compiles(compiler: str | None, frames: int, *more: str) -> bool | str:
        monkeypatch.setattr("lab.spec.find_compiler", lambda: compiler)
        spec = specs(*overrides.split(), "~tuned", f"frames={frames}", *more)[0]
        spec.resolve_compile()
        return spec.compile

    enough = round(COMPILED_FROM / steps_per_frame)
    assert compiles("g++", enough) is True
    assert compiles("g++", enough - 16) is False
    assert compiles("g++", enough, "compile=false") is False
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("lab.errors._warned", set())
    assert compiles(None, enough) is False
    assert compiles(None, enough) is False
    assert capsys.readouterr().err == (
        "Note: No C++ compiler was found, so learning steps are not compiled (compile=false).\n"
    )


def test_auto_leaves_recurrent_networks_as_they_are() -> None:
    spec = specs("algo=a2c", "~tuned", "net=gru", "frames=10_000_000")[0]
    spec.resolve_compile()
    assert spec.compile is False


@dataclasses.dataclass
class Own(A2C):
    """An algorithm outside of lab."""


def test_auto_leaves_algorithms_of_others_as_they_are() -> None:
    spec = specs("algo=a2c", "~tuned", "frames=10_000_000")[0]
    spec.algo = Own(**vars(spec.algo))
    spec.resolve_compile()
    assert spec.compile is False


def test_specs_from_before_the_key_are_not_compiled(tmp_path: Path) -> None:
    plain = specs("algo=a2c", "frames=10_000_000")[0].to_dict()
    del plain["compile"]
    write_text(tmp_path / "spec.yaml", yaml.safe_dump(plain, sort_keys=False))
    assert load(tmp_path / "spec.yaml").compile is False


def test_a_spec_of_before_a_key_was_there_is_the_same(tmp_path: Path) -> None:
    (spec,) = specs()
    recorded = spec.to_dict()
    for key in ("wrappers", "metrics", "scale_images"):
        del recorded["env"][key]
    changed = replace(spec, env=replace(spec.env, scale_images=True))
    require_same_spec(recorded, changed, tmp_path, "")
    with pytest.raises(LabError, match=r"env.metrics is \[\] there and \[a\] here"):
        require_same_spec(recorded, replace(changed, env=replace(changed.env, metrics=["a"])), tmp_path, "")


def test_the_note_on_how_settings_were_found_may_change(tmp_path: Path) -> None:
    (spec,) = specs("algo=a2c", "env=cartpole")
    older = {key: value for key, value in spec.to_dict().items() if key != "tuning"}
    require_same_spec(older, replace(spec, tuning=Tuning("a search", [1000])), tmp_path, "")
    with pytest.raises(LabError, match="seed is 0 there and 1 here"):
        require_same_spec(older, replace(spec, seed=1), tmp_path, "")
