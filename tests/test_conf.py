"""conf/: every file composes and every line says what it means."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark.random_returns import random_returns
from lab.sweep_spec import SWEEP_KEYS
from tests.helpers import ALGORITHMS, ATARI, CONF, ENVIRONMENTS, MUJOCO, OTHER_ATARI, lab, serves, specs, train

FILES = sorted(path.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml"))
PAIRS = [(algo, env) for algo in ALGORITHMS for env in ENVIRONMENTS if serves(algo, env)]
USUAL = [
    (algo, env)
    for algo, env in PAIRS
    if env in ("cartpole", "pendulum") or (algo == "ppo" and env not in (*OTHER_ATARI, *MUJOCO[1:]))
]


@pytest.mark.parametrize("file", FILES)
def test_every_key_has_a_comment_in_its_file_or_in_the_one_that_it_inherits(file: str) -> None:
    explained = inherited_keys(CONF / file)
    body = (CONF / file).read_text().split("\nhydra:")[0]
    for line in body.splitlines():
        opens_a_group = line.rstrip().endswith(":")
        known = line.split(":")[0].strip() in explained
        assert not line.strip() or opens_a_group or known or "# " in line, f"{file}: {line}"


def inherited_keys(path: Path) -> set[str]:
    """Return the keys with a comment in the files that a file inherits; none if it inherits no file."""
    keys = set[str]()
    for name in re.findall(r"^defaults: \[(\w+), _self_\b", path.read_text(), re.MULTILINE):
        parent = path.with_name(f"{name}.yaml")
        keys |= {"defaults", *re.findall(r"^ *(\w+):.*# ", parent.read_text(), re.MULTILINE), *inherited_keys(parent)}
    return keys


def usually_composed(algo: str, env: str) -> bool:
    """Whether a pair is composed by default: each algorithm and environment; those with settings are tested below."""
    return env in ("pendulum", "pong", "gymnasium") or algo == "ppo"


@pytest.mark.parametrize(
    ("algo", "env"),
    [
        pytest.param(*pair, marks=[] if usually_composed(*pair) else pytest.mark.slow)
        for pair in product(ALGORITHMS, [*ENVIRONMENTS, "gymnasium"])
    ],
)
def test_every_pair_composes(algo: str, env: str) -> None:
    overrides = ["env.id=CartPole-v1"] if env == "gymnasium" else []
    overrides += ["algo.norm=none"] if algo == "pqn" and env in ATARI else []
    spec = specs(f"algo={algo}", f"env={env}", *overrides)[0]
    assert spec.algo.name == algo


@pytest.mark.parametrize(
    ("algo", "env"),
    [*USUAL, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in PAIRS if pair not in USUAL)],
)
def test_every_pair_trains_a_few_steps_in_dev_mode(tmp_path: Path, algo: str, env: str) -> None:
    overrides = ["algo.horizon=16"]
    if hasattr(specs(f"algo={algo}")[0].algo, "batch_size"):
        overrides.append("algo.batch_size=16")
    if hasattr(specs(f"algo={algo}")[0].algo, "learning_starts"):
        overrides.append("algo.learning_starts=128")
    directory = train(tmp_path, f"algo={algo}", f"env={env}", *overrides, "mode=dev", "frames=300", "eval.every=0")[0]
    assert directory.read_status()["error"] is None
    assert directory.read_status()["state"] == "completed"


def set_in(values: Any, spec: Any) -> bool:
    """Say whether a spec has values, of which groups may hold some keys alone."""
    if isinstance(values, dict):
        return all(key in spec and set_in(value, spec[key]) for key, value in values.items())
    return bool(values == spec)


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return the values of one config, in which those of another take the place of its own."""
    groups = {key: merge(below[key], value) for key, value in above.items() if isinstance(below.get(key), dict)}
    return below | above | groups


def tuned_settings(name: str) -> dict[str, Any]:
    """Return the settings of a file of conf/tuned and of those that it inherits, for net=mlp."""
    settings = yaml.safe_load((CONF / "tuned" / f"{name}.yaml").read_text())
    for parent in settings.pop("defaults", []):
        if isinstance(parent, dict):
            network = parent["optional net"].replace("${net}", "mlp")
            settings["net"] = yaml.safe_load((CONF / "tuned" / "net" / f"{network}.yaml").read_text())
        elif parent != "_self_":
            settings = merge(tuned_settings(parent), settings)
    return settings


TUNED = [file.stem for file in sorted((CONF / "tuned").glob("*.yaml"))]
INHERITED = {
    parent
    for file in (CONF / "tuned").glob("*.yaml")
    for parent in re.findall(r"^defaults: \[(\w+), _self_\b", file.read_text(), re.M)
}  # shared settings, which are no pair's own


@pytest.mark.parametrize("name", [name for name in TUNED if name not in INHERITED])
def test_tuned_files_are_picked_up_by_themselves(name: str) -> None:
    algo, env = next(pair for pair in PAIRS if "_".join(pair) == name)
    tuned = tuned_settings(name)
    if lr := tuned.setdefault("algo", {}).pop("lr", None):
        tuned["algo"].setdefault("optimizer", {})["lr"] = lr
    spec = specs(f"algo={algo}", f"env={env}")[0].to_dict()
    plain = specs(f"algo={algo}", f"env={env}", "~tuned")[0].to_dict()
    assert spec != plain
    assert set_in(tuned, spec)


@pytest.mark.parametrize("net", ["gru", "nature", "module"])
def test_tuned_settings_of_a_network_are_left_out_with_another(net: str) -> None:
    chosen = (f"net={net}", *(("net._target_=tests.modules.Lazy",) if net == "module" else ()))
    tuned, plain = (specs("algo=a2c", "env=cartpole", *chosen, *more)[0] for more in ((), ("~tuned",)))
    assert tuned.net == plain.net
    assert tuned.algo != plain.algo
    assert specs("algo=a2c", "env=cartpole")[0].net.to_dict()["activation"] == "tanh"


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_random_returns_are_known_to_half_a_percent(env: str) -> None:
    conf = yaml.safe_load((CONF / "env" / f"{env}.yaml").read_text())
    reference = conf["reference"]
    assert reference["id"] == conf["id"]
    if env in ATARI:  # 200 episodes, or published: whole games take long
        assert (reference["random_return_error"] or 0.0) <= 0.1 * max(abs(reference["random_return"]), 1)
    elif reference["solved"] is None:  # environments without a usual value
        assert reference["random_return_error"] <= 0.005 * max(abs(reference["random_return"]), 100)
    else:
        assert reference["random_return_error"] <= 0.005 * (reference["solved"] - reference["random_return"])


@pytest.mark.parametrize(("env", "episodes"), [("cartpole", 1000), ("pendulum", 50), ("mountaincar_continuous", 10)])
def test_random_returns_are_as_measured(env: str, episodes: int) -> None:
    conf = yaml.safe_load((CONF / "env" / f"{env}.yaml").read_text())
    returns = random_returns(conf["id"], conf.get("kwargs", {}), episodes)
    assert returns.mean() == pytest.approx(conf["reference"]["random_return"], abs=4 * returns.std() / episodes**0.5)


def test_the_spec_can_be_shown() -> None:
    done = lab("algo=ppo", "env=pendulum", "--cfg", "job", "--resolve")
    assert done.returncode == 0
    shown = yaml.safe_load(done.stdout)
    keys = ["seed", "frames", "name", "mode", "device", "threads", "compile", "algo", "env", "net", "eval"]
    keys += ["log", "checkpoint", "stop_at", "init_from", "extended_from", "tuning"]
    assert set(shown) == {*keys, "provenance", *SWEEP_KEYS} - {"search"}
    assert shown["algo"]["gamma"] == 0.95
    assert shown["name"] == "ppo_pendulum"
