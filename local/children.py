"""Child processes that cannot outlive us: the kernel ends them when the parent dies, even by kill -9."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(signum: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """A `preexec_fn` after which the child gets `signum` when the thread that started it ends.

    Start children from the main thread: the kernel watches the thread, not the process. Elsewhere than on Linux
    it does nothing.
    """
    parent = os.getpid()

    def preexec() -> None:
        if _libc is None:
            return
        _libc.prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
        if os.getppid() != parent:  # the parent died between fork and prctl: no signal will come
            os._exit(1)

    return preexec


def describe_exit(returncode: int) -> str:
    """`exit code 3` or `killed by SIGKILL`, from a Popen or asyncio return code (negative = signal)."""
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"
