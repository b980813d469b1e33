"""Closing environments, which some do badly: they raise, end the process, or never return."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from lab.env import notices

CLOSE_SECONDS = 5.0  # that an environment may take to close

hanging: set[str] = set()  # names of environments that did not return from it, and so are not closed any more


def close(name: str, *closers: Callable[[], Any], seconds: float = CLOSE_SECONDS) -> None:
    """Close environments; what goes wrong is noted, as it changes no result.

    Args:
        name: what notices call them.
        closers: closes one of them each.
        seconds: that it may take.
    """
    if name in hanging:
        return
    problems: list[str] = []
    thread = threading.Thread(target=_close, args=(closers, problems), daemon=True, name=f"closing {name}")
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        hanging.add(name)
        problems.append(f"did not return within {seconds:g} seconds, and is not called again")
    for problem in problems[:1]:
        notices.add(f"close() of {name} {problem}.")


def _close(closers: Iterable[Callable[[], Any]], problems: list[str]) -> None:
    for closer in closers:
        try:
            closer()
        except BaseException as error:
            text = " ".join(str(error).split())
            problems.append(f"raised {type(error).__name__}{f': {text}' if text else ''}".rstrip("."))
