"""All of Hydra's override grammar on the command line: a Session, a grid, a search, --cfg and plan=true."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.__main__ import run

GRID, SEARCH = ("-m", "plan=true"), ("-m", "search=command_line", "search.n_trials=3", "plan=true")
STEP_LR = "algo.optimizer.lr_schedule=torch.optim.lr_scheduler.StepLR"
KWARGS = "algo.optimizer.lr_schedule_kwargs"


@dataclass
class Done:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Done]:
    """Run the command line in this process, where everything is imported."""

    def command(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["lab", *arguments])
        monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-m", "lab", *arguments])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        status = run()
        return Done(status, *capsys.readouterr())

    monkeypatch.chdir(tmp_path)
    return command


@pytest.mark.parametrize(
    ("overrides", "package", "printed"),
    [
        (["name='it\\'s, a \"b\"'"], "name", "it's, a \"b\""),
        (['name="x, y"'], "name", "x, y"),
        ([r"name=a\,b\=c\:d\ e"], "name", "a,b=c:d e"),
        (["name='${algo.name}-x'"], "name", "a2c-x"),
        (["name=${oc.env:NO_SUCH_VARIABLE,b}"], "name", "b"),
        (["checkpoint.minutes=null", "+checkpoint.x=1"], "checkpoint", "every: 20000\nminutes: null\nx: 1"),
        (["net.hidden=[8,8]"], "net.hidden", "- 8\n- 8"),
        (["net.hidden.0=8", "net.hidden[1]=9"], "net.hidden", "- 8\n- 9"),
        (["algo[gamma]=0.5"], "algo.gamma", "0.5"),
        (["net={hidden:[8],activation:relu}"], "net.hidden", "- 8"),
        (["algo={gamma:0.5}", "algo=ppo"], "algo.gamma", "0.5"),
        ([f"{KWARGS}={{step_size:10}}"], KWARGS, "step_size: 10"),
        ([f"{KWARGS}={{a:1}}", f"{KWARGS}={{b:2}}"], KWARGS, "a: 1\nb: 2"),
        (["env.kwargs={g:9.0}", "+env.kwargs.h=1", "++env.kwargs.g=8"], "env.kwargs", "g: 8\nh: 1"),
        (["+env.kwargs={a:{b:[1,x]}}"], "env.kwargs", "a:\n  b:\n  - 1\n  - x"),
        (["env.kwargs={}"], "env.kwargs", "{}"),
        (["hydra.job.env_set={A:1}"], "name", "a2c_cartpole"),
        (["algo.gamma=0.5", "algo.gamma=0.6"], "algo.gamma", "0.6"),
        (["~tuned"], "algo.gamma", "0.99"),
        (["~env.kwargs", "~algo.gamma=0.99", "~tuned"], "env.num_envs", "8"),
        (["algo.gamma=float(1)"], "algo.gamma", "1.0"),
        (["frames=int(1e5)"], "frames", "100000"),
        (["name=str(1)", "frames=int('7')"], "name", "1"),
        (["+env.kwargs.a=[int(1.5),str(2),bool(1)]"], "env.kwargs.a", "- 1\n- '2'\n- true"),
        (["+env.kwargs.a=json_str({b:1})"], "env.kwargs", "a: '{\"b\": 1}'"),
        (["net.hidden=extend_list(32)"], "net.hidden", "- 64\n- 64\n- 32"),
        (["net.hidden=sort([3,2])"], "net.hidden", "- 2\n- 3"),
        (["net.hidden=sort([2,3],reverse=true)"], "net.hidden", "- 3\n- 2"),
        (["net.hidden=shuffle([3,3])"], "net.hidden", "- 3\n- 3"),
        (["env=gymnasium", "env.id=ALE/Pong-v5"], "name", "a2c_ALE-Pong-v5"),
        (["env=gymnasium", "env.id='some.module:Env-v0'"], "name", "a2c_some.module-Env-v0"),
        (["+env@other=acrobot"], "other.id", "Acrobot-v1"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*deprecated:UserWarning")
def test_a_config_is_composed_as_by_hydra(
    lab: Callable[..., Done], overrides: list[str], package: str, printed: str
) -> None:
    done = lab(*overrides, "--cfg", "job", "--resolve", "--package", package)
    assert done.status == 0, done.err
    assert done.out.removeprefix(f"# @package {package}\n").strip() == printed


MORE_GRIDS = [
    ("algo.gamma=choice(0.5,0.6)", ["0.5", "0.6"]),
    ("algo=choice(ppo)", ["ppo"]),
    ("algo.horizon=range(8,32,8)", ["8", "16", "24"]),
    ("algo.gamma=range(0.1,0.3,0.1)", ["0.1", "0.2"]),
    ("algo.horizon=int(range(8.0,9.0))", ["8"]),
    ("algo.gamma=float(choice('0','1'))", ["0.0", "1.0"]),
    ("algo.gamma=tag(log,choice(0.5,0.6))", ["0.5", "0.6"]),
    ("algo=sort(ppo,a2c)", ["a2c", "ppo"]),
    ("algo=glob(d*)", ["ddqn_per", "dqn"]),
    ("algo=shuffle(ppo,ppo)", ["ppo"]),
    ("algo.sil={gradient_steps:0},{gradient_steps:2}", ["{gradient_steps:0}", "{gradient_steps:2}"]),
    ("++eval={every:0},{every:100}", ["{every:0}", "{every:100}"]),
    (r"name='a, b',c\,d", ["a, b", "c,d"]),
    ("checkpoint.minutes=null,3", ["null", "3.0"]),
    ("algo.gamma=${algo.value_coef},0.25", ["0.5", "0.25"]),
    ("net.hidden.0=8,9", ["8", "9"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("override", "values"),
    [
        ("algo.gamma=0.5,0.6", ["0.5", "0.6"]),
        ("algo.horizon=sort(range(8,32,8),reverse=true)", ["24", "16", "8"]),
        ("algo=glob([d*,p*],exclude=[*_per,pqn])", ["dqn", "ppo"]),
        ("net.hidden=[8],[8,8]", ["[8]", "[8,8]"]),
        ("env.kwargs={g:1.0},{g:2.0}", ["{g:1.0}", "{g:2.0}"]),
        ("name=json_str({a:1}),x", ["'{\"a\": 1}'", "x"]),
        *(pytest.param(*row, marks=pytest.mark.slow) for row in MORE_GRIDS),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*deprecated:UserWarning")
def test_a_grid_has_the_values_that_hydra_sweeps(lab: Callable[..., Done], override: str, values: list[str]) -> None:
    fixed = ["~tuned", "env=pendulum"] if override.startswith("env.kwargs") else ["~tuned"]
    done = lab(*GRID, *fixed, override)
    assert done.status == 0, done.err
    key = re.escape(override.partition("=")[0].lstrip("+"))
    assert re.findall(rf"trial-\d+ .*{key}=(.*?) *$", done.out, re.MULTILINE) == values


@pytest.mark.parametrize(
    "space",
    [
        {
            "algo.gamma=interval(0.5,0.9)": "from 0.5 to 0.9",
            "algo.horizon=tag(log,int(interval(8,32)))": "from 8 to 32, whole numbers, on a logarithmic scale",
            "algo.value_coef=float(choice('0.1',1))": "one of 0.1, 1.0",
            "algo.gae_lambda=shuffle(0.5,0.6)": "one of 0.5, 0.6",
            "algo.policy_gain=sort(2,1)": "one of 1, 2",
            "env.num_envs=shuffle(range(2,8,2))": "from 2 to 6, whole numbers, in steps of 2",
            "algo.entropy_coef=range(0.1,0.3,0.1)": "from 0.1 to 0.2, in steps of 0.1",
            "net.hidden=[8],[8,8]": "one of [8], [8,8]",
            "checkpoint.minutes=null,3": "one of null, 3",
            "name='a, b',c": "one of a, b, c",
        },
        {"algo=glob(d*)": "one of ddqn_per, dqn"},
        {f"{KWARGS}={{step_size:10}},{{step_size:20}}": "one of {step_size:10}, {step_size:20}", STEP_LR: ""},
        {f"search.params={{{KWARGS}:'choice({{step_size:1}})'}}": f"{KWARGS}  one of {{step_size:1}}", STEP_LR: ""},
    ],
)
def test_a_search_takes_the_same(lab: Callable[..., Done], space: dict[str, str]) -> None:
    done = lab(*SEARCH, *space)
    assert done.status == 0, done.err
    for override, text in space.items():
        key = override.partition("=")[0]
        assert text in next((line for line in done.out.splitlines() if key in line), done.out)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ("algo.gamma=[1", "algo.gamma=[1 cannot be parsed: its brackets do not close. The shell splits at spaces"),
        ("env.wrappers={name:X}", "a list, as 'env.wrappers=[...]'. Write 'env.wrappers=[{name:X}]'."),
        ("env.kwargs=[a]", "env.kwargs must be a group of keys, as 'env.kwargs={key: value}'."),
        ("env.wrappers.0.stack=2", "has no item 0 to change. Write the whole list, as 'env.wrappers=[...]'."),
        ("algo=ppo env=pong env.wrappers.0.noop_max=2", "To add it, write +env.wrappers.0.noop_max=VALUE."),
        ("algo.gamma=foo(1)", "algo.gamma=foo(1) cannot be parsed: Unknown function 'foo' Available: bool,"),
        ("algo.gamma==1", "algo.gamma==1 cannot be parsed"),
        ("algo.gamma=1,2", "algo.gamma=1,2 has several values: this is a single job, and a sweep needs -m. A list"),
        ("seed=1,2", "A stack of seeds is written seed=[0,1]"),
        ("algo=glob(d*)", "algo=glob(d*) has several values: this is a single job, and a sweep needs -m."),
        ("algo.gamma=interval(0,1)", "a sweep needs -m."),
        ("-m algo.gamma=interval(0,1)", "algo.gamma=interval(0,1) is a range without steps: a grid needs values"),
        ("-m algo=glob(x*)", "algo=glob(x*) gives algo no value to sweep"),
        ("-m algo.gamma=str(range(1,3))", "Range can only be cast to int or float"),
        ("-m name=,b", "name=,b cannot be parsed: extraneous input ','."),
        ("-m net.hidden=extend_list(3),[4]", "extend_list(...) cannot be swept. Write whole lists."),
        ("-m +search.params.algo=choice(sac,td3)", "To search a key, write algo=... itself."),
        ("-m env=gymnasium,cartpole", "With env=gymnasium: env.id is missing: it must be set, as in env.id=VALUE."),
        ("hydra.mode=MULTIRUN algo=a2c,ppo --cfg job", "Error: algo=a2c,ppo has several values"),
        ("-m algo.gamma=1,2 --cfg job", "Only one of --run, --multirun, --cfg"),
        ("-m hydra/launcher=local,slurm", "Sweeping over Hydra's configuration is not supported"),
        ("algo=null", "algo=null is not allowed: algo takes the name of an option"),
        ("tuned=null", "tuned=null is not allowed: tuned takes the name of an option, and ~tuned leaves it out"),
        ("algo=", "algo= does not exist. Options are: a2c"),
        ("~algo", "A Session needs one algo and one env"),
        ("algo=[a2c,ppo]", "A Session needs one algo and one env"),
        ("++algo=ppo", "force-add of config groups is not supported: '++algo=ppo'"),
        ("+tuned=ppo_cartpole", "+tuned=... is not possible: tuned is chosen already"),
        ("env@other=acrobot", "env@other cannot be set: the config has no group env at 'other'"),
        ("+env@other=acrobot", "other cannot be set: the spec has no key 'other'"),
        ("~algo.gama", "~algo.gama is not possible. algo.gama cannot be set: algo has no key 'gama'."),
        ("~algo.gamma=0.5", "The value of 'algo.gamma' is 0.99 and not 0.5"),
        ("~algo.gamma ~tuned", "algo.gamma is missing"),
        ("algo/gamma=1", "algo/gamma cannot be set"),
        ("+algo.gamma=1", "Could not append to config. An item is already at 'algo.gamma'."),
        ("algo.optimizer={lrr:1}", "algo.optimizer.lrr cannot be set"),
        ("algo.optimizers={lr:1}", "algo has no key 'optimizers'. Did you mean 'optimizer'?"),
        ("env.kwargs.g=1", "To add it, write +env.kwargs.g=VALUE"),
        ("algo.gamma=extend_list(1)", "Could not append to config list. The existing value of 'algo.gamma'"),
        ("algo.gamma=${nowhere}", "algo.gamma: Interpolation key 'nowhere' not found"),
        ("-m hydra/sweeper=optuna", "hydra/sweeper=optuna is not possible: Sessions over seeds need hydra/sweeper=lab"),
        ("hydra/sweeper=basic", "hydra/sweeper=basic is not possible"),
        ("-m hydra.sweeper.n_trials=3", "hydra.sweeper.n_trials cannot be set: here it is search.n_trials."),
        ("-m +hydra.sweeper.params.algo.lr=1", "here it is search.params"),
        ("-m hydra.sweeper.sampler.seeed=3", "hydra.sweeper.sampler has no key 'seeed'. Did you mean 'seed'?"),
        ("-m hydra.launcher.slot=2", "hydra.launcher has no key 'slot'. Did you mean 'slots'? Its keys are: slots,"),
        ("-m hydra.launcher.slotz=2", "Did you mean 'slots'?"),
        ("-m +hydra.launcher.slot=2", "hydra.launcher has no key 'slot'. Did you mean 'slots'?"),
        ("-m hydra.launcher={slot:2}", "hydra.launcher has no key 'slot'. Did you mean 'slots'?"),
        ("-m hydra.launcher.n_jobs=2", "hydra.launcher.n_jobs cannot be set: here it is hydra.launcher.slots."),
        ("-m hydra.launcher.partition=a", "It is a key that hydra/launcher=slurm has: hydra.launcher.partition."),
        ("-m hydra/launcher=slurm hydra.launcher.partitio=a", "Did you mean 'partition'?"),
        ("-m hydra/launcher=slurm +hydra.launcher.partitio=a", "Did you mean 'partition'?"),
        ("-m hydra/launcher=slurm +hydra.launcher.slurm_time=3", "hydra.launcher has no key 'slurm_time'"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*deprecated:UserWarning")
def test_the_rest_is_refused_by_name(lab: Callable[..., Done], overrides: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "here").touch()
    done = lab(*overrides.split())
    assert done.status == 2, done.out
    assert sentence in done.err
    assert done.err.startswith("Error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["here"], "nothing was written"


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ("algo=sac,td3 env=pendulum algo.gradient_steps=1", "sac-td3_pendulum"),
        ("net=gru,lstm net.size=32", "a2c_cartpole"),
        ("env=gymnasium env.id=CartPole-v1,Acrobot-v1", "a2c_CartPole-v1-Acrobot-v1"),
        ("algo=a2c,ppo env=cartpole", "a2c-ppo_cartpole"),
        ("algo=a2c,ppo env=cartpole,acrobot", "a2c-ppo_cartpole-acrobot"),
        pytest.param("algo=a2c,ppo name=mine", "mine", marks=pytest.mark.slow),
        ("name=mine,yours", "mine-yours"),
        ("algo.gamma=0.5,0.9 name=x_${algo.gamma}_${seed} seed=0,1", "x_0.5-0.9_0-1"),
        ("search=command_line algo=a2c,ppo algo.gamma=interval(0.5,0.9)", "a2c-ppo_cartpole"),
        pytest.param("algo=glob([a*,d*,p*,r*])", "a2c-ddqn_per-dqn-ppo-and-3-more_cartpole", marks=pytest.mark.slow),
    ],
)
def test_a_sweep_is_checked_at_its_own_choices_and_named_by_them(
    lab: Callable[..., Done], overrides: str, name: str
) -> None:
    done = lab("-m", *overrides.split(), "plan=true")
    assert done.status == 0, done.err
    assert done.out.startswith(f"{name}: ")
    assert f"in outputs/{name}/" in done.out


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ("net=mlp,gru net.size=32", "With net=mlp: net.size cannot be set: net has no key 'size'."),
        ("net=gru,mlp net.size=32", "With net=mlp: net.size cannot be set: net has no key 'size'."),
        ("algo=ppo,a2c env=cartpole,acrobot algo.clip_range=0.1,0.2", "With algo=a2c env=cartpole: algo.clip_range"),
        ("search=command_line net=gru,mlp net.size=32", "With net=mlp: net.size cannot be set"),
    ],
)
def test_a_choice_that_lacks_a_key_is_named(lab: Callable[..., Done], overrides: str, sentence: str) -> None:
    done = lab("-m", *overrides.split(), "plan=true")
    assert done.status == 2, done.out
    assert sentence in done.err


def test_a_search_space_of_ones_own_may_choose_algorithms(lab: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "two.yaml").write_text("params: {algo: 'choice(sac,td3)', algo.gamma: 'interval(0.9,1)'}")
    sweep = ("-m", "--config-dir", str(tmp_path), "search=two", "env=pendulum", "plan=true")
    done = lab(*sweep, "algo.gradient_steps=1")
    assert done.status == 0, done.err
    assert done.out.startswith("sac-td3_pendulum: ")
    assert "With algo=sac: algo.clip_range cannot be set" in lab(*sweep, "algo.clip_range=0.1").err
    assert lab(*sweep, "algo=td3", "algo.gradient_steps=1").out.startswith("td3_pendulum: ")


def test_help_needs_no_config(lab: Callable[..., Done]) -> None:
    assert "algo: a2c, crossq" in lab("-m", "algo=a2c,ppo", "algo.lrr=1", "--help").out


def test_points_that_are_no_grid_are_listed(lab: Callable[..., Done]) -> None:
    listed = "points=[['algo=ppo','algo.lr=1e-2'],['algo=a2c','net=gru'],[]]"
    done = lab("-m", "plan=true", "env=cartpole", "algo.gamma=0.9,0.99", listed, "seed=100..101")
    assert done.status == 0, done.err
    assert "ppo-a2c_cartpole: 6 Trials of 2 Sessions (seeds 100 and 101)" in done.out
    rows = [line.split("to run")[1].strip() for line in done.out.splitlines() if line.startswith("trial-")]
    assert rows[0] == "algo=ppo, algo.lr=0.01, net=mlp, algo.gamma=0.9"
    assert rows[5] == "algo=a2c, algo.lr=0.003, net=mlp, algo.gamma=0.99", "what a point leaves out is as in the config"


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["points=[a]"], "points=[a] is not allowed: points must be a list"),
        (["points=[['algo.lr=1,2']]"], "algo.lr=1,2 cannot be in points=[...]: a point sets one value for each"),
        (["points=[['seed=1']]"], "seed=1 cannot be in points=[...]"),
        (["points=[['algo.lr=1']]", "algo.lr=2"], "algo.lr=2 and a point of points=[...] both set algo.lr"),
        (["points=[['algo.lr=1']]", "search=a2c"], "points=[...] and search=... exclude each other"),
        (["points=[['algo.lrr=1']]"], "algo.lrr cannot be set"),
        (["seed=3..1"], "seeds must be one or more"),
    ],
)
def test_mistakes_in_points_and_seeds_are_sentences(
    lab: Callable[..., Done], overrides: list[str], problem: str
) -> None:
    done = lab("-m", "plan=true", *overrides)
    assert done.status == 2 and problem in done.err, done.err


def test_a_sampler_and_a_pruner_are_one_word(lab: Callable[..., Done]) -> None:
    done = lab("-m", "plan=true", "search=a2c", "sampler=random", "pruner=median")
    assert "Search space (sampler random, pruner median after each of 10 parts" in done.out, done.err
