"""An agent is only restored for the same spaces, and with the same parameters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lab.command.enjoy import main as enjoy
from lab.command.resume import main as resume
from lab.errors import LabError
from lab.run import tensor_files
from lab.run.directory import RunDir
from lab.run.files import plain, read_json, write_json
from tests.helpers import train

OVERRIDES = ("env=gymnasium", "env.id=tests.rogue_process:Counted-v0", "name=counted", "frames=500", "eval.every=0")


@pytest.fixture
def interrupted(tmp_path: Path) -> RunDir:
    directory = train(tmp_path, *OVERRIDES, "checkpoint.every=200")[0]
    write_json(directory.status, {**read_json(directory.status), "state": "interrupted", "frame": 400})
    return directory


def files(directory: RunDir) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.path.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize(
    ("counted", "sentence"),
    [
        (
            "5,2,1",
            r"has observations Box\(-1.0, 1.0, \(5,\), float32\) now, and the checkpoint at frame .* was written",
        ),
        ("3,4,1", r"has actions Discrete\(4\) now, .* with Discrete\(2\)"),
        ("3,2,9", r"has observations Box\(-1.0, 9.0, \(3,\), float32\) now, .* with Box\(-1.0, 1.0, "),
    ],
)
def test_other_spaces_are_rejected_before_anything_is_written(
    interrupted: RunDir, monkeypatch: pytest.MonkeyPatch, counted: str, sentence: str
) -> None:
    before = files(interrupted)
    monkeypatch.setenv("LAB_TEST_COUNTED", counted)
    with pytest.raises(LabError, match=sentence):
        enjoy([str(interrupted.path), "checkpoint=last"])
    with pytest.raises(LabError, match=sentence):
        resume([str(interrupted.path)])
    assert files(interrupted) == before
    assert not interrupted.lock.is_held()


def test_other_parameters_are_rejected(interrupted: RunDir) -> None:
    for which in ("last", "previous"):
        state = plain(tensor_files.read(interrupted.checkpoint(which)))
        name = next(iter(state["parameters"]))
        state["parameters"][name] = torch.zeros(1)  # which would fill any parameter without a word
        tensor_files.write(interrupted.checkpoint(which), state)
    before = files(interrupted)
    for command, overrides in ((enjoy, ["checkpoint=last"]), (resume, [])):
        with pytest.raises(LabError, match=r"The agent differs from that of .*: .* is \[1\] there and"):
            command([str(interrupted.path), *overrides])
    state["parameters"] = {}
    tensor_files.write(interrupted.checkpoint("last"), state)
    with pytest.raises(LabError, match="is absent there"):
        enjoy([str(interrupted.path), "checkpoint=last"])
    assert set(before) == set(files(interrupted))


def test_another_optimizer_is_rejected(interrupted: RunDir) -> None:
    state = plain(tensor_files.read(interrupted.checkpoint("last")))
    state["learners"] = {}
    tensor_files.write(interrupted.checkpoint("last"), state)
    with pytest.raises(LabError, match=r"The agent differs from that of .*KeyError"):
        resume([str(interrupted.path)])
