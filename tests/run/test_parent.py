"""Where the weights of another run are, which Sessions start from."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from lab.errors import LabError
from lab.run import tensor_files
from lab.run.directory import RunDir, TrialDir
from lab.run.files import write_json
from lab.run.parent import digest, find_parent, require_parent

STATE = {"frame": 1, "optimizer_steps": 1, "parameters": {"weight": torch.ones(2)}}


def session(directory: RunDir, best: float, weight: float = 1.0) -> RunDir:
    directory.path.mkdir(parents=True)
    directory.spec.write_text("env: {id: CartPole-v1}\n")
    directory.write_status("completed", 1, 1)
    write_json(directory.results, {"eval_best": best, "return": 0.0})
    tensor_files.write(directory.checkpoint("best"), STATE | {"parameters": {"weight": torch.full((2,), weight)}})
    return directory


def test_the_best_agent_of_a_session_or_a_trial_or_a_file(tmp_path: Path) -> None:
    first, second = (session(TrialDir(tmp_path).session(seed), best, best) for seed, best in ((0, 1.0), (1, 2.0)))
    assert find_parent(str(first.path)) == {
        "file": str(first.checkpoint("best")),
        "weights": digest(first.checkpoint("best")),
    }
    assert find_parent(str(tmp_path))["file"] == str(second.checkpoint("best"))
    assert find_parent(str(first.checkpoint("best"))) == find_parent(str(first.path))
    assert find_parent(str(first.path))["weights"] != find_parent(str(second.path))["weights"]


def test_what_is_no_agent_is_named(tmp_path: Path) -> None:
    trial = TrialDir(tmp_path / "sweep" / "trial-000")
    session(trial.session(0), 1.0)

    def refused(path: Path) -> str:
        with pytest.raises(LabError) as error:
            find_parent(str(path))
        return str(error.value)

    assert find_parent(str(tmp_path / "sweep"))["file"] == str(trial.session(0).checkpoint("best"))
    assert "there is no such directory" in refused(tmp_path / "nowhere")
    trial.session(0).checkpoint("best").unlink()
    assert "none with a best checkpoint" in refused(trial.path)
    assert "has no checkpoint/best.pt" in refused(trial.session(0).path)
    assert "cannot be read: No such file" in refused(trial.session(0).checkpoint("best"))


def test_weights_that_changed_or_moved_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = session(RunDir(tmp_path / "one"), 1.0)
    recorded = find_parent(str(directory.path))
    monkeypatch.chdir(tmp_path)
    assert require_parent({**recorded, "file": "one/checkpoint/best.pt"}) == recorded, "relative, as of an export"
    moved = directory.path.rename(tmp_path / "other")
    with pytest.raises(LabError, match="is not there: if that run has moved, say where it is, as init_from=DIR"):
        require_parent(recorded)
    assert require_parent(recorded, find_parent(str(moved))["file"])["weights"] == recorded["weights"]
    tensor_files.write(RunDir(moved).checkpoint("best"), STATE | {"parameters": {"weight": torch.zeros(2)}})
    with pytest.raises(LabError, match="holds other weights than it did"):
        require_parent(recorded, str(RunDir(moved).checkpoint("best")))


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('it ran')",)


@pytest.mark.law
def test_law_7_a_parent_runs_nothing(tmp_path: Path) -> None:
    directory = session(RunDir(tmp_path / "one"), 1.0)
    directory.spec.write_text("!!python/object/apply:os._exit [1]\n")
    assert find_parent(str(directory.path))["file"]
    for content in (pickle.dumps(Evil()), b"no checkpoint"):
        directory.checkpoint("best").write_bytes(tensor_files.seal(content))
        with pytest.raises(LabError, match="is damaged"):
            find_parent(str(directory.path))
    tensor_files.write(directory.checkpoint("best"), STATE | {"parameters": {"weight": "no tensor"}})
    with pytest.raises(LabError, match="its parameters are no tensors"):
        find_parent(str(directory.path))
