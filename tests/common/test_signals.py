"""Signals that end training."""

from __future__ import annotations

import signal

import pytest

from lab.common.signals import stop_signals


def test_a_signal_asks_to_stop_and_is_handed_on_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: received.append(number))
    try:
        with stop_signals() as stop:
            assert not stop()
            signal.raise_signal(signal.SIGUSR2)
            assert stop()
            assert received == [], "first everything is written"
        assert received == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_several_signals_are_one_request_but_a_second_ctrl_c_is_another() -> None:
    with stop_signals() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop()
    finally:
        signal.signal(signal.SIGHUP, before)
