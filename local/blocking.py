"""Async work called from plain functions."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end in a thread and a loop of its own, whether or not this thread has one running.

    `asyncio.run` would take away the loop that a test runner has set for this thread.
    """
    outcome: list[T] = []
    problem: list[BaseException] = []

    def body() -> None:
        try:
            outcome.append(asyncio.run(work))
        except BaseException as error:
            problem.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if problem:
        raise problem[0]
    return outcome[0]
