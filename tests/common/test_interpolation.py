"""Interpolations: each Session has the values of its own seed, however it is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from lab.common.interpolation import resolve_but_seed, resolve_by_seed
from lab.errors import LabError
from lab.run.directory import RunDir, SweepDir
from lab.run.files import read_json, read_yaml
from lab.spec import load, read
from lab.training.stack import Stack
from tests.helpers import go_on, lab, result, specs, train

OWN = ("algo=a2c", "env=gymnasium", "env.id=tests.envs:Level-v0", "~tuned", "frames=1000", "algo.horizon=16")
ALIKE = ("+env.kwargs.level=${seed}", "name=level_${seed}")  # can share their steps
UNLIKE = ("+env.kwargs.size=${seed}", "algo.lr=${oc.select:nothing,0.01}")  # cannot, as their spaces differ


def stop() -> None:
    raise KeyboardInterrupt


def test_a_seed_is_that_of_each_session() -> None:
    made = specs(*OWN, *ALIKE, "env.num_envs=${seed}", "seed=[2,4]")
    assert [(spec.name, spec.env.kwargs, spec.env.num_envs) for spec in made] == [
        ("level_2", {"level": 2}, 2),
        ("level_4", {"level": 4}, 4),
    ]
    assert made[1] == specs(*OWN, *ALIKE, "env.num_envs=${seed}", "seed=4")[0]


@pytest.mark.parametrize(
    "written",
    ["${seed}", "${.other}", "${oc.select:seed}", "${oc.select:seed,7}", "${${which}}", "${seed_of_root:}"],
)
def test_a_seed_is_detected_in_any_interpolation(written: str) -> None:
    OmegaConf.register_resolver("seed_of_root", lambda *, _root_: _root_.seed, replace=True)
    config = OmegaConf.create({"seed": [3, 5], "other": "${seed}", "which": "seed", "level": written})
    assert [values["level"] for _, values in resolve_by_seed(config, ["level"], [3, 5])] == [3, 5]


def test_values_without_a_seed_are_resolved_once() -> None:
    first, second = specs("seed=[0,1]")
    assert first.algo is second.algo


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["name=x_${hydra:job.num}"], r"name=x_\$\{hydra:job.num\} is not allowed: .* depends on how a Session is"),
        (["+env.kwargs.a=${hydra:runtime.output_dir}"], r"env.kwargs.a=.* is not allowed"),
        (["frames=${seed}", "seed=[1000,2000]"], "frames is 1000 with seed=1000 and 2000 with seed=2000"),
        (["algo.gamma=${seed}", "seed=[1,2]"], "algo.gamma=2 is not allowed"),
        (["env.num_envs=${seed}", "seed=${env.num_envs}"], "seed"),
        (["name=${nothing}"], "nothing"),
    ],
)
def test_mistakes_are_sentences(overrides: list[str], sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        specs(*overrides)


def test_a_search_space_keeps_what_depends_on_the_seed() -> None:
    params = {"algo.lr": "choice(${seed},0.1)", "algo.gamma": "interval(${low},1)"}
    config = OmegaConf.create({"seed": 0, "low": 0.5, "search": {"params": params}})
    values = resolve_but_seed(config, "search")["params"]
    assert values == {"algo.lr": "choice(${seed},0.1)", "algo.gamma": "interval(0.5,1)"}


@pytest.mark.parametrize(("overrides", "seeds"), [(ALIKE, "0,1"), (UNLIKE, "3,4")])
def test_law_1_with_values_of_the_seed_alone_stacked_and_resumed(
    tmp_path: Path, overrides: tuple[str, ...], seeds: str
) -> None:
    stacked = train(tmp_path / "stack", *OWN, *overrides, f"seed=[{seeds}]")
    made = [load(directory.spec) for directory in stacked]
    resumed = [RunDir(tmp_path / "resumed" / str(spec.seed)) for spec in made]
    assert "interrupted" in go_on(made, resumed, (Stack, "finish_interval", 5, stop))
    left = [index for index, session in enumerate(resumed) if session.read_status()["state"] == "interrupted"]
    assert set(go_on([made[i] for i in left], [resumed[i] for i in left])) == {"completed"}
    for seed, directory, again in zip(seeds.split(","), stacked, resumed, strict=True):
        alone = train(tmp_path / "alone", *OWN, *overrides, f"seed={seed}")[0]
        assert result(directory) == result(alone) == result(again)
        assert read_yaml(directory.spec) == read_yaml(alone.spec) == read_yaml(again.spec)


def test_a_config_read_from_a_dictionary_has_its_own_seed() -> None:
    spec = specs(*OWN)[0].to_dict()
    config = OmegaConf.create({**spec, "name": "x_${seed}", "seed": [8, 9]})
    assert [spec.name for spec in read(config)] == ["x_8", "x_9"]


@pytest.mark.slow
@pytest.mark.law
def test_law_1_with_values_of_the_seed_in_a_sweep_continued_and_run_again(tmp_path: Path) -> None:
    overrides = (*OWN, "log.every=500", "eval.every=500", "eval.episodes=2", "log.tensorboard=false")
    for name, own, seeds, more in (("alike", ALIKE, (0, 1), 2), ("unlike", UNLIKE, (3, 4), 5)):
        folder = tmp_path / f"{name}_${{name}}"
        every = ",".join(map(str, seeds))
        done = lab("-m", *overrides, *own, f"seed={every}", "stack=3", f"hydra.sweep.dir={folder}", timeout=240)
        assert done.returncode == 0, done.stderr
        folder = next(path for path in tmp_path.iterdir() if path.name.startswith(name))
        again = lab("resume", str(folder), f"seed={every},{more}", timeout=240)
        assert again.returncode == 0, again.stderr
        for seed in (*seeds, more):
            alone = tmp_path / f"alone-{name}-{seed}"
            assert lab(*overrides, *own, f"seed={seed}", f"hydra.run.dir={alone}").returncode == 0
            session = RunDir(folder / f"seed-{seed}")
            assert result(session) == result(RunDir(alone))
            assert session.spec.read_text() == RunDir(alone).spec.read_text()
            assert (session.hydra / "overrides.yaml").read_text().count("${seed}") == len(own) - (name == "unlike")
        rerun = lab("rerun", str(folder), f"out={tmp_path / f'rerun-{name}'}", "code=here", timeout=240)
        assert "3 of 3 Sessions are the same to the last bit." in rerun.stdout, rerun.stdout + rerun.stderr
    sweep = read_json(SweepDir(tmp_path / "alike_level_0-1").sweep)
    assert sweep["name"] == "level_0-2"
    card = (tmp_path / "alike_level_0-1" / "card.md").read_text()
    assert "A2C on tests.envs:Level-v0 level=varies with the seed" in card
