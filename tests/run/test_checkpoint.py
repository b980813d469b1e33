"""Checkpoints in two generations: damage is noticed, and the undamaged one is resumed from."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import LabError
from lab.run import checkpoint, tensor_files
from lab.run.checkpoint import group_by_frame, load_generations, roll_back, write_generation
from lab.run.directory import RunDir
from lab.run.files import read_json
from lab.run.tensor_files import seal, unseal
from lab.training.stack import Stack
from tests.helpers import Interruption, go_on, result, specs, weights

OVERRIDES = (
    "algo.horizon=16", "frames=3000", "log.every=300", "log.tensorboard=false", "eval.every=1000",
    "eval.episodes=2", "checkpoint.every=1000", "seed=3",
)  # fmt: skip


def generations(directory: RunDir) -> list[dict[str, Any]]:
    return load_generations(directory)[0]


def train(directory: RunDir, interruption: Interruption | None = None) -> str:
    """Train or resume the Session of these tests in a directory; return how it ended."""
    return go_on(specs(*OVERRIDES), [directory], interruption)[0]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A Session that was not interrupted."""
    directory = RunDir(tmp_path_factory.mktemp("whole"))
    assert train(directory) == "completed"
    return directory


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The same Session, interrupted between two checkpoints, and so with two generations."""
    directory = RunDir(tmp_path_factory.mktemp("part"))
    interruption = (Stack, "collect_and_learn", 21, lambda: signal.raise_signal(signal.SIGTERM))
    assert train(directory, interruption) == "interrupted"
    assert [state["frame"] for state in generations(directory)] == [2688, 2048]
    return directory


@pytest.fixture
def copied(interrupted: RunDir, tmp_path: Path) -> RunDir:
    return RunDir(shutil.copytree(interrupted.path, tmp_path / "copy"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def same(directory: RunDir, uninterrupted: RunDir) -> bool:
    return result(directory) == result(uninterrupted) and weights(directory, "best") == weights(uninterrupted, "best")


def resumed_at(directory: RunDir) -> list[int]:
    return [part["frame"] for part in read_json(directory.provenance).get("resumed", [])]


@pytest.mark.law
@pytest.mark.parametrize("damage", [cut, empty, alter, Path.unlink])
def test_law_1_a_damaged_checkpoint_is_detected_and_the_previous_one_used(
    copied: RunDir, uninterrupted: RunDir, damage: Callable[[Path], None]
) -> None:
    damage(copied.checkpoint("last"))
    assert train(copied) == "completed"
    assert resumed_at(copied) == [2048]
    assert same(copied, uninterrupted)


@pytest.mark.law
def test_law_1_with_both_checkpoints_damaged_a_session_starts_over_and_nothing_is_lost(
    copied: RunDir, uninterrupted: RunDir
) -> None:
    cut(copied.checkpoint("last"))
    alter(copied.checkpoint("previous"))
    before = files(copied.path)
    assert train(copied) == "completed"
    assert resumed_at(copied) == []
    assert same(copied, uninterrupted)
    after = files(copied.path / "replaced-1")
    assert {name: content for name, content in before.items() if name not in (".lock", "status.json")} == {
        name: content for name, content in after.items() if name != "status.json"
    }
    for text in ("\n".join(read_json(copied.status)["warnings"]), copied.log.read_text()):
        assert "last.pt is damaged" in text
        assert "Therefore the Session starts from the beginning." in text
        assert "held before is in replaced-1" in text


def test_a_session_that_was_stopped_before_its_first_checkpoint_says_so_and_starts_over(
    uninterrupted: RunDir, tmp_path: Path
) -> None:
    directory = RunDir(tmp_path / "run")
    assert train(directory, (Stack, "collect_and_learn", 1, again)) == "interrupted"
    assert not directory.checkpoint("last").exists()
    assert train(directory) == "completed"
    assert same(directory, uninterrupted)
    for text in ("\n".join(read_json(directory.status)["warnings"]), directory.log.read_text()):
        assert "The Session has no checkpoint, as it was stopped before the first one" in text
        assert "held before is in replaced-1" in text


def again() -> None:
    """Interrupt a learning step, as a second Ctrl-C does."""
    raise KeyboardInterrupt


@pytest.mark.law
@pytest.mark.parametrize(("which", "frames"), [("last", [2048]), ("previous", [])])
@pytest.mark.parametrize("table", ["episodes", "metrics"])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_law_1_a_checkpoint_whose_rows_are_missing_is_not_used(
    copied: RunDir, uninterrupted: RunDir, table: str, which: str, frames: list[int], damage: str
) -> None:
    size = tensor_files.read(copied.checkpoint(which))["record"]["tables"][table]["size"]
    path = copied.tables[table]
    content = bytearray(path.read_bytes())
    content[size - 2] ^= 1
    path.write_bytes(content if damage == "flipped" else content[: size - 1])
    assert [state["frame"] for state in generations(copied)] == frames
    if table == "episodes":
        assert train(copied) == "completed"
        assert resumed_at(copied) == frames
        assert same(copied, uninterrupted)


@pytest.mark.law
@pytest.mark.parametrize("damage", [cut, alter, Path.unlink])
def test_law_1_a_damaged_table_of_timings_stops_nothing(
    copied: RunDir, uninterrupted: RunDir, damage: Callable[[Path], None]
) -> None:
    damage(copied.timing)
    assert train(copied) == "completed"
    assert resumed_at(copied) == [2688]
    assert same(copied, uninterrupted)
    assert (copied.path / "replaced-1" / "timing.csv").exists() == (damage is not Path.unlink)
    assert copied.timing.read_text().startswith("frame,seconds,")
    assert "timing.csv is damaged" in read_json(copied.status)["warnings"][0]


@pytest.mark.law
def test_law_1_rows_after_the_last_checkpoint_are_removed(copied: RunDir, uninterrupted: RunDir) -> None:
    for path in copied.tables.values():
        with path.open("a") as file:
            file.write("999999,1.0,1.0\n9999")
    copied.checkpoint("best").write_bytes(copied.checkpoint("last").read_bytes())
    assert train(copied) == "completed"
    assert same(copied, uninterrupted)
    frames = [line.split(",")[0] for line in copied.timing.read_text().splitlines()]
    assert frames == [line.split(",")[0] for line in copied.metrics.read_text().splitlines()]


def test_the_checkpoint_resumed_from_survives_until_the_next_is_written(
    copied: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    alter(copied.checkpoint("last"))

    write = tensor_files.write

    def killed(path: Path, state: dict[str, Any]) -> None:
        if path == copied.checkpoint("last"):
            raise KeyboardInterrupt
        write(path, state)

    monkeypatch.setattr(checkpoint, "write", killed)
    assert train(copied) == "interrupted"
    assert [state["frame"] for state in generations(copied)] == [2048]


def write_empty_checkpoint(directory: RunDir, frame: int, content: bytes = b"") -> None:
    size = {"size": len(content), "crc32": zlib.crc32(content)}
    tables = dict.fromkeys(("episodes", "metrics", "timing"), size)
    state: dict[str, Any] = {
        "frame": frame,
        "optimizer_steps": 0,
        "unfinished_interval": None,
        "replay": None,
        "averages": [],
    }
    write_generation(directory, state | {"parameters": {}, "collector": {}, "record": {"tables": tables}})


def test_two_generations_are_kept_newest_first(tmp_path: Path) -> None:
    directory = RunDir(tmp_path)
    for path in directory.tables.values():
        path.write_text("12345")
    assert generations(directory) == []
    for frame in (100, 200, 300):
        write_empty_checkpoint(directory, frame)
    assert [state["frame"] for state in generations(directory)] == [300, 200]
    assert {path.name for path in (tmp_path / "checkpoint").iterdir()} == {"last.pt", "previous.pt"}
    write_empty_checkpoint(directory, 400, b"12345")
    write_empty_checkpoint(directory, 500, b"123456")
    assert [state["frame"] for state in generations(directory)] == [400]
    directory.metrics.unlink()
    assert generations(directory) == []


def test_roll_back_makes_the_checkpoint_resumed_from_the_last_one(tmp_path: Path) -> None:
    directory = RunDir(tmp_path)
    for path in directory.tables.values():
        path.write_text("")
    for frame in (100, 200):
        write_empty_checkpoint(directory, frame)
    last, previous = generations(directory)
    roll_back(directory, last)
    assert [state["frame"] for state in generations(directory)] == [200, 100]
    roll_back(directory, previous)
    assert [state["frame"] for state in generations(directory)] == [100]


def test_a_full_disk_at_a_checkpoint_keeps_the_previous_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = RunDir(tmp_path)
    for path in directory.tables.values():
        path.write_text("")
    write_empty_checkpoint(directory, 100)

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensor_files, "write_atomically", full)
    with pytest.raises(OSError, match="No space"):
        write_empty_checkpoint(directory, 200)
    assert [state["frame"] for state in generations(directory)] == [100]


def state(frame: int, pending: int | None = None) -> dict[str, Any]:
    return {"frame": frame, "unfinished_interval": pending}


def frames_of(stack: list[list[dict[str, Any]]]) -> list[tuple[list[int], list[int] | None]]:
    return [(group, states and [state["frame"] for state in states]) for group, states in group_by_frame(stack)]


def test_a_stack_resumes_from_the_newest_frame_that_all_sessions_have() -> None:
    both, ahead, behind = [state(300), state(200)], [state(400), state(300)], [state(200), state(100)]
    assert frames_of([both, both]) == [([0, 1], [300, 300])]
    assert frames_of([both, ahead]) == [([0, 1], [300, 300])]
    assert frames_of([both, behind]) == [([0, 1], [200, 200])]
    assert frames_of([[state(300)], ahead]) == [([0, 1], [300, 300])]


def test_sessions_without_a_common_frame_resume_in_groups() -> None:
    ahead, behind = [state(400), state(300)], [state(200), state(100)]
    assert frames_of([ahead, behind, ahead]) == [([1], [200]), ([0, 2], [400, 400])]
    assert frames_of([ahead, [], behind, []]) == [([1, 3], None), ([2], [200]), ([0], [400])]
    assert frames_of([[], []]) == [([0, 1], None)]
    assert frames_of([[], ahead]) == [([0], None), ([1], [400])]


def test_a_frame_before_and_after_its_evaluation_is_not_the_same() -> None:
    cut, done = state(200, pending=100), state(200)
    assert group_by_frame([[done, cut], [cut, state(100)]]) == [([0, 1], [cut, cut])]
    assert group_by_frame([[cut], [done]]) == [([0], [cut]), ([1], [done])]
    assert group_by_frame([[done, cut], [done, cut]]) == [([0, 1], [done, done])]


points = st.tuples(st.integers(1, 4), st.booleans()).map(lambda point: state(point[0], 0 if point[1] else None))
histories = st.lists(points, max_size=2, unique_by=repr).map(
    lambda states: sorted(
        states, key=lambda state: (state["frame"], state["unfinished_interval"] is None), reverse=True
    )
)


@given(st.lists(histories, min_size=1, max_size=5))
def test_every_session_resumes_once_from_its_own_state(stack: list[list[dict[str, Any]]]) -> None:
    groups = group_by_frame(stack)
    assert sorted(index for group, _ in groups for index in group) == list(range(len(stack)))
    for group, states in groups:
        assert group
        if states is None:
            assert all(not stack[index] for index in group)
            continue
        assert all(state in stack[index] for index, state in zip(group, states, strict=True))
        assert all(state == states[0] for state in states)
    started = [states for states in stack if states]
    common = [state for state in started[0] if all(state in states for states in started)] if started else []
    if common:
        assert [states for _, states in groups if states] == [[common[0]] * len(started)]


def test_a_session_of_another_spec_is_not_resumed(copied: RunDir) -> None:
    spec = yaml.safe_load(copied.spec.read_text())
    copied.spec.write_text(yaml.safe_dump({**spec, "frames": 4000}))
    with pytest.raises(Exception, match="frames is 4000 there and 3000 here"):
        train(copied)
    assert resumed_at(copied) == []


def test_a_file_that_cannot_be_read_now_does_not_count_as_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = RunDir(tmp_path)
    directory.checkpoint("last").parent.mkdir()
    directory.checkpoint("last").write_bytes(b"whole, perhaps")

    def read_bytes(path: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with pytest.raises(OSError, match="Input/output error"):
        load_generations(directory)


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[1:], lambda b: b"", lambda b: b"X" + b[1:]])
def test_a_checksum_detects_damage(damage) -> None:
    content = seal(b"some content")
    assert unseal(content, Path("x")) == b"some content"
    with pytest.raises(LabError, match="x is damaged"):
        unseal(damage(content), Path("x"))
