"""Keeps the parts of a local installation running: starts them in order, restarts what dies, stops them in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from local import ports
from local.children import describe_exit, die_with_parent
from local.parts import READY_WITHIN_S, Part, log_path
from local.readiness import Check
from local.state import State

WINDOW_S = 60.0
STOP_WITHIN_S = 12.0  # a service drains for ten
_LOG_LIMIT = 16 * 1024 * 1024
_EX_CONFIG = 78  # sysexits.h: the process says that a setting is wrong, so trying again is no use


class Fatal(Exception):
    """Nothing more can be done; the message is for the person who started us."""


@dataclass
class Running:
    """One part and what became of it."""

    part: Part
    process: asyncio.subprocess.Process | None = None
    state: str = "waiting"
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    deaths: deque[float] = field(default_factory=deque)
    restarts: int = 0
    log_from: int = 0


class Supervisor:
    """`start` the parts, `watch` until something fatal happens, `stop`. `say` tells a person, one line at a time."""

    def __init__(
        self,
        parts: Sequence[Part],
        environment: Mapping[str, str],
        state: State,
        *,
        max_deaths: int = 5,
        longest_delay_s: float = 5.0,
    ) -> None:
        self._running = {part.name: Running(part) for part in parts}
        self._environment = dict(environment)
        self._state = state
        self._max_deaths = max_deaths
        self._longest_delay_s = longest_delay_s
        self._began = time.monotonic()
        self._everything_ready = False
        self._keepers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Returns when every part is ready. Raises Fatal when that cannot be."""
        await self._check_ports()
        self._keepers = [asyncio.create_task(self._keep(one)) for one in self._running.values()]
        everything = asyncio.create_task(self._all_ready())
        watching = asyncio.create_task(self.watch())
        try:
            await asyncio.wait({everything, watching}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                await watching
        finally:
            everything.cancel()
            watching.cancel()
            await asyncio.gather(everything, watching, return_exceptions=True)
        self._everything_ready = True
        self._publish()

    async def _all_ready(self) -> None:
        for one in self._running.values():
            await one.ready.wait()

    async def watch(self) -> None:
        """Runs until a part cannot be kept alive; then raises Fatal."""
        pending = set(self._keepers)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for keeper in done:
                keeper.result()
        await asyncio.Event().wait()  # only one-shots and outside servers: nothing can die

    async def stop(self) -> None:
        """Stops every part, users before what they use; returns when no process is left."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(self._stop(one) for one in self._running.values()))
        self._state.forget_run()

    def kill(self) -> None:
        """Ends every process at once."""
        for one in self._running.values():
            if one.process is not None and one.process.returncode is None:
                one.process.kill()

    # One part's life.

    async def _keep(self, one: Running) -> None:
        part = one.part
        for need in part.needs:
            await self._running[need].ready.wait()
        while True:
            began = time.monotonic()
            try:
                line = await asyncio.to_thread(part.command)
            except (OSError, RuntimeError) as error:
                raise Fatal(f"{part.name} cannot start: {error}") from error
            if not line and part.ready is not None:
                await self._outside(one, part.ready, began)
                return
            process = one.process = await self._spawn(one, line)
            self._set(one, "starting")
            if part.ready is not None:
                await self._until_ready(one, process, part.ready, began)
            code = await process.wait()
            one.ready.clear()
            if part.ready is None and code == 0:
                self._set(one, "done")
                self._say_ready(one, began)
                one.ready.set()
                return
            await self._after_death(one, code)

    async def _spawn(self, one: Running, line: list[str]) -> asyncio.subprocess.Process:
        path = log_path(self._state, one.part)
        if path.exists() and path.stat().st_size > _LOG_LIMIT:
            path.replace(path.with_suffix(".log.1"))
        with path.open("ab") as output:
            one.log_from = output.tell()
            try:
                return await asyncio.create_subprocess_exec(
                    *line,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=self._environment,
                    # Ctrl-C in the terminal is for us; children are stopped in order.
                    process_group=0,
                    preexec_fn=die_with_parent(one.part.orphan_signal),
                )
            except OSError as error:
                raise Fatal(f"{one.part.name} cannot start: {error}") from error

    async def _until_ready(self, one: Running, process: asyncio.subprocess.Process, check: Check, began: float) -> None:
        """Returns when the part is ready or has died."""
        part = one.part
        patience = began + 10
        while process.returncode is None:
            if await self._answers(one, check) and process.returncode is None:
                self._set(one, "ready")
                self._say_ready(one, began)
                one.ready.set()
                return
            now = time.monotonic()
            if now - began > READY_WITHIN_S:
                raise Fatal(f"{part.name} is not ready after {READY_WITHIN_S:.0f} s. {self._last_words(one, lines=8)}")
            if now > patience:
                patience += 10
                self.say(
                    f"  still waiting for {part.name} ({now - began:.0f} s); its log: {log_path(self._state, part)}"
                )
            await asyncio.sleep(0.04)

    async def _outside(self, one: Running, check: Check, began: float) -> None:
        """Something that somebody else runs: it has to answer once, soon."""
        while not await self._answers(one, check):
            if time.monotonic() - began > 15:
                raise Fatal(f"{one.part.name}: nothing answers at {one.part.address}")
            await asyncio.sleep(0.1)
        self._set(one, "outside")
        self._say_ready(one, began)
        one.ready.set()

    async def _answers(self, one: Running, check: Check) -> bool:
        try:
            return await check()
        except Exception as error:  # it answered, and waiting will not change what it said
            raise Fatal(f"{one.part.name} at {one.part.address} refuses: {error}") from error

    async def _after_death(self, one: Running, code: int) -> None:
        name, now = one.part.name, time.monotonic()
        reason = describe_exit(code)
        words = self._last_words(one, lines=8)
        if code == _EX_CONFIG:
            raise Fatal(f"{name} refuses its settings. {words}")
        one.deaths.append(now)
        while one.deaths[0] < now - WINDOW_S:
            one.deaths.popleft()
        if len(one.deaths) >= self._max_deaths:
            raise Fatal(f"{name} died {len(one.deaths)} times within {WINDOW_S:.0f} s, last: {reason}. {words}")
        delay = min(0.1 * 2 ** (len(one.deaths) - 1), self._longest_delay_s)
        one.restarts += 1
        self._set(one, "restarting")
        self.say(f"  {name} died ({reason}); starting it again in {delay:.1f} s. {self._last_words(one, lines=3)}")
        await asyncio.sleep(delay)

    async def _stop(self, one: Running) -> None:
        name = one.part.name
        users = [other for other in self._running.values() if name in (*other.part.needs, *other.part.stops_before)]
        for user in users:
            await user.stopped.wait()
        process = one.process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(one.part.stop_signal)
            try:
                async with asyncio.timeout(STOP_WITHIN_S):
                    await process.wait()
            except TimeoutError:
                self.say(f"  {name} did not stop within {STOP_WITHIN_S:.0f} s: killed")
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        one.state = "stopped"
        one.stopped.set()

    # What people and tests see.

    def say(self, line: str) -> None:
        with contextlib.suppress(OSError):  # nobody reads us any more: no reason to stop
            print(line, flush=True)

    def _say_ready(self, one: Running, began: float) -> None:
        took = time.monotonic() - began
        word = {"done": "done", "outside": "answers"}.get(one.state, "ready")
        again = f" again, restart {one.restarts}" if one.restarts else ""
        self.say(f"  {one.part.name:<9} {word}{again} after {took:4.1f} s  {one.part.address}")

    def _last_words(self, one: Running, *, lines: int) -> str:
        path = log_path(self._state, one.part)
        with path.open("rb") as log:
            log.seek(one.log_from)
            said = [line for line in log.read()[-20_000:].decode(errors="replace").splitlines() if line.strip()]
        if not said:
            return "It said nothing."
        return f"Its last words ({path}):\n" + "\n".join(f"    | {line[:300]}" for line in said[-lines:])

    def _set(self, one: Running, state: str) -> None:
        one.state = state
        self._publish()

    def _publish(self) -> None:
        facts: dict[str, Any] = {"supervisor": os.getpid(), "ready": self._everything_ready, "parts": {}}
        for name, one in self._running.items():
            alive = one.process is not None and one.process.returncode is None
            facts["parts"][name] = {
                "state": one.state,
                "pid": one.process.pid if alive and one.process is not None else None,
                "port": next(iter(one.part.ports.values()), None),
                "url": one.part.address,
                "restarts": one.restarts,
                "log": str(log_path(self._state, one.part)),
            }
        self._state.write_run(facts)

    async def _check_ports(self) -> None:
        # Children of a supervisor that was killed die with it, but not in the same instant.
        deadline = time.monotonic() + (5.0 if self._state.crashed_before() else 0.0)
        while taken := [
            f"port {port} ({one.part.name}) is taken; set {variable} to another"
            for one in self._running.values()
            for variable, port in one.part.ports.items()
            if not ports.is_free(port)
        ]:
            if time.monotonic() >= deadline:
                raise Fatal("\n".join(taken))
            await asyncio.sleep(0.05)


def stop_signals() -> tuple[signal.Signals, ...]:
    """The signals that mean: stop cleanly. A closed terminal is one, unless we were started under nohup."""
    asked = (signal.SIGINT, signal.SIGTERM)
    return asked if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else (*asked, signal.SIGHUP)
