"""What the launcher for Ray does without Ray; what needs one is in tests/ray."""

from __future__ import annotations

import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import psutil
import pytest
from omegaconf import OmegaConf

from lab.errors import LabError
from lab.launch import ray, ray_job
from lab.launch.ray import RayLauncher, count_jobs
from lab.trial import Job
from tests.helpers import CONF, ROOT, lab, wait_for

OPTIONS = OmegaConf.merge({"threads": 1}, OmegaConf.load(CONF / "hydra" / "launcher" / "ray.yaml"))
SWEEP = ("-m", "algo=a2c", "env=cartpole", "seed=0,1", "hydra/launcher=ray")


def launcher(**changed: Any) -> RayLauncher:
    options = {key: value for key, value in OPTIONS.items() if key not in ("threads", "_target_")}
    return RayLauncher(**{**options, **changed})


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_law_6_without_ray_a_sentence_says_how_to_install_it(tmp_path: Path) -> None:
    done = lab(*SWEEP, f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert done.returncode == 2
    assert "hydra/launcher=ray needs Ray, which is not installed: " in done.stderr
    assert "[ray]'" in done.stderr
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"slots": 0}, "hydra.launcher.slots=0 is not allowed"),
        ({"max_retries": -1}, "hydra.launcher.max_retries=-1 is not allowed"),
        ({"mem_gb": 0}, "hydra.launcher.mem_gb=0 is not allowed"),
        ({"num_cpus": 0}, "hydra.launcher.num_cpus=0 is not allowed"),
        ({"num_gpus": 1.5}, "hydra.launcher.num_gpus must be 0, or a number above 0, whole if it is above 1"),
        ({"address": "ray://head:10001"}, r"hydra.launcher.address=ray://head:10001 is not allowed"),
        ({"resources": {"a100": "one"}}, "hydra.launcher.resources.a100=one is not allowed"),
        ({"resources": {"CPU": 1}}, "hydra.launcher.resources.CPU cannot be set: hydra.launcher.num_cpus says"),
        ({"resources": None}, "hydra.launcher.resources=null is not allowed"),
        ({"env_vars": None}, "hydra.launcher.env_vars=null is not allowed"),
        ({"env_vars": {"A": None}}, "hydra.launcher.env_vars.A=null is not allowed"),
        ({"slots": "abc"}, "hydra.launcher.slots=abc is not allowed"),
        ({"slots": 1.5}, "hydra.launcher.slots=1.5 is not allowed"),
        ({"mem_gb": "abc"}, "hydra.launcher.mem_gb=abc is not allowed"),
        ({"max_retries": 1.5}, "hydra.launcher.max_retries=1.5 is not allowed"),
    ],
)
def test_law_6_options_that_cannot_work_are_refused(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        launcher(**changed)


def test_law_6_what_no_node_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 4.0, "memory": 2.0**30}}, {"Alive": False, "Resources": {"GPU": 8.0}}]
    monkeypatch.setattr(ray, "connect", lambda address: SimpleNamespace(nodes=lambda: nodes))
    asked = launcher(num_gpus=8, mem_gb=0.5)
    with pytest.raises(LabError) as error:
        asked.setup(hydra_context=None, task_function=None, config=OmegaConf.create())
    assert str(error.value) == (
        "No node of Ray can hold a job: it asks for hydra.launcher.num_cpus=1 (at most 4 on a node),"
        " hydra.launcher.num_gpus=8 (at most 0 on a node), hydra.launcher.mem_gb=0.5 (at most 1 on a node)."
    )


def test_law_6_a_gpu_that_is_not_asked_for_is_refused() -> None:
    with pytest.raises(LabError, match=r"device=cuda needs hydra.launcher.num_gpus above 0"):
        launcher().setup(hydra_context=None, task_function=None, config=OmegaConf.create({"device": "cuda"}))


@pytest.mark.parametrize("swept", [True, False])
def test_law_6_a_gpu_by_its_number_is_refused_as_a_job_sees_others(swept: bool) -> None:
    asked = launcher(num_gpus=1)
    with pytest.raises(LabError, match=r"device=cuda:1 is not allowed: device must be auto, cpu or cuda: a job sees"):
        if swept:
            asked.start([Job(["device=cuda:1"], {})], 0)
        else:
            asked.setup(hydra_context=None, task_function=None, config=OmegaConf.create({"device": "cuda:1"}))


def test_which_ray_it_is_is_said_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    joined = SimpleNamespace(
        nodes=lambda: [{"Alive": True, "Resources": {"CPU": 4.0}}],
        get_runtime_context=lambda: SimpleNamespace(gcs_address="10.0.0.1:6379"),
        remote=lambda function: SimpleNamespace(options=lambda **options: None),
    )
    monkeypatch.setattr(ray, "connect", lambda address: joined)
    launcher().setup(hydra_context=None, task_function=None, config=OmegaConf.create())
    assert capsys.readouterr().out == "Ray at 10.0.0.1:6379: 1 node, 4 jobs at the same time\n"


@pytest.mark.parametrize(
    ("cause", "said"), [("RayError", "Ray lost its worker 4 times"), ("OSError", "could not be started")]
)
def test_what_ray_wraps_in_an_error_of_the_task_may_be_the_loss_of_its_worker(
    cause: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class RayError(Exception):
        pass

    class RayTaskError(RayError):
        def __init__(self) -> None:
            self.cause = {"RayError": RayError, "OSError": OSError}[cause]("the node is gone")

    def get(task: object) -> None:
        raise RayTaskError

    errors = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError, TaskCancelledError=KeyError)
    monkeypatch.setitem(sys.modules, "ray.exceptions", errors)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(exceptions=errors))
    monkeypatch.setattr(RayLauncher, "pickle_job", lambda *_: b"")
    asked = launcher()
    asked.config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    asked._ray, asked._task = SimpleNamespace(get=get), SimpleNamespace(remote=lambda *_: None)
    error = str(asked._run(Job([], {}), 0)._return_value)
    assert said in error and "the node is gone" in error


def test_law_6_an_address_where_nobody_listens_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    with pytest.raises(LabError, match=r"hydra.launcher.address=127.0.0.1:1 leads to no Ray: .*Connection refused"):
        ray.connect("127.0.0.1:1")


def test_a_node_holds_as_many_jobs_as_the_scarcest_resource_allows() -> None:
    assert count_jobs({"CPU": 2, "GPU": 0, "memory": 0}, {"CPU": 7.0}) == 3
    assert count_jobs({"CPU": 1, "GPU": 0.1, "memory": 0}, {"CPU": 64.0, "GPU": 1.0}) == 10
    assert count_jobs({"CPU": 1, "a100": 1}, {"CPU": 64.0}) == 0


class Calls:
    """Calls a function when it is unpickled, as a job does when its process reads it."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> Any:
        return exec, (self.code,)


def test_a_job_ends_when_its_worker_is_killed_and_saves_its_work(tmp_path: Path) -> None:
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    code = f"""
import os, time
from pathlib import Path
Path({str(begun)!r}).write_text(str(os.getpid()))
try:
    time.sleep(1000)
finally:
    Path({str(ended)!r}).touch()
"""
    (tmp_path / "payload").write_bytes(cloudpickle.dumps(Calls(code)))
    arguments = f"Path({str(tmp_path / 'payload')!r}).read_bytes(), {{}}, {str(ROOT)!r}, {str(tmp_path / '1.log')!r}"
    script = f"from pathlib import Path\nfrom lab.launch.ray_job import run_in_process\nrun_in_process({arguments})"
    worker = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    wait_for(lambda: begun.exists() and begun.read_text(), worker)
    job = psutil.Process(int(begun.read_text()))
    guard = job.parent()
    worker.kill()
    worker.wait()
    wait_for(lambda: not job.is_running() and not guard.is_running())
    assert ended.exists()


def test_a_job_without_a_result_says_how_it_ended(tmp_path: Path) -> None:
    code = "import os, signal; print('soon', flush=True); os.kill(os.getpid(), signal.SIGSEGV)"
    log = tmp_path / "jobs" / "1.log"
    started = time.monotonic()
    answer = ray_job.run_in_process(cloudpickle.dumps(Calls(code)), {}, str(ROOT), str(log))
    assert answer == (b"", -11)
    assert log.read_text().startswith("soon\n")
    assert time.monotonic() - started < ray_job.PATIENCE
