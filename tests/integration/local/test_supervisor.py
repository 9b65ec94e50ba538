"""The supervisor over small stand-in parts: real processes that listen, die and refuse as they are told."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from local import ports, readiness
from local.parts import Part
from local.state import State
from local.supervisor import Fatal, Supervisor

# Listens on its port; notes when it started and when it was asked to stop; `folder/NAME.order` tells it to end.
_SERVER = """
import http.server, os, pathlib, signal, sys, time
name, port, folder = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
def note(what):
    with open(folder / "notes", "a") as notes:
        notes.write(f"{name} {what}\\n")
def stop(*_):
    note("stopped")
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
note("started")
print("a line in the log", flush=True)
order = folder / (name + ".order")
if order.exists():
    print("it said: no", flush=True)
    os._exit(int(order.read_text()))
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", port), Answer).serve_forever()
"""


class Bench:
    """A folder, a state, and parts in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = State(folder / "state")
        self.state.hold()
        self.supervisor: Supervisor | None = None

    def server(self, name: str, *, needs: tuple[str, ...] = (), stops_before: tuple[str, ...] = ()) -> Part:
        port = ports.reserve()
        return Part(
            name,
            lambda: [sys.executable, "-c", _SERVER, name, str(port), str(self.folder)],
            ready=readiness.http(port, "/"),
            needs=needs,
            stops_before=stops_before,
            ports={f"{name.upper()}_PORT": port},
        )

    def supervise(self, *parts: Part, max_deaths: int = 5, longest_delay_s: float = 5.0) -> Supervisor:
        self.supervisor = Supervisor(
            parts, os.environ, self.state, max_deaths=max_deaths, longest_delay_s=longest_delay_s
        )
        return self.supervisor

    def order(self, name: str, code: int) -> None:
        (self.folder / f"{name}.order").write_text(str(code))

    def notes(self) -> list[str]:
        return (self.folder / "notes").read_text().splitlines()

    def facts(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.state.folder / "run.json").read_text())["parts"][name]
        return found


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    if bench.supervisor is not None:
        await bench.supervisor.stop()
    bench.state.release()


async def _until(condition: Callable[[], bool], within: float = 20.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


async def test_a_part_starts_after_what_it_needs_and_stops_before_it(bench: Bench) -> None:
    supervisor = bench.supervise(
        bench.server("api", stops_before=("service",)),
        bench.server("service", needs=("store",)),
        bench.server("store"),
    )
    await supervisor.start()
    assert bench.notes().index("store started") < bench.notes().index("service started")
    await supervisor.stop()
    assert [note for note in bench.notes() if "stopped" in note] == [
        "api stopped",
        "service stopped",
        "store stopped",
    ]
    assert not (bench.state.folder / "run.json").exists()


async def test_a_killed_part_comes_back_and_the_line_says_why(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    supervisor = bench.supervise(bench.server("one"), bench.server("two"))
    await supervisor.start()
    watching = asyncio.create_task(supervisor.watch())
    first, other = bench.facts("one")["pid"], bench.facts("two")["pid"]
    os.kill(first, signal.SIGKILL)
    await _until(lambda: bench.facts("one")["state"] == "ready" and bench.facts("one")["restarts"] == 1)
    assert bench.facts("one")["pid"] != first
    assert bench.facts("two")["pid"] == other
    said = capsys.readouterr().out
    assert "one died (killed by SIGKILL); starting it again in 0.1 s" in said
    assert "a line in the log" in said
    assert "one       ready again, restart 1" in said
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_a_part_that_keeps_dying_ends_the_run_with_its_last_words(bench: Bench) -> None:
    supervisor = bench.supervise(bench.server("good"), bench.server("bad"), max_deaths=3)
    bench.order("bad", 3)
    with pytest.raises(Fatal, match=r"(?s)bad died 3 times within 60 s, last: exit code 3\..*it said: no"):
        await supervisor.start()
    good = bench.facts("good")["pid"]
    await supervisor.stop()
    assert not psutil.pid_exists(good)


async def test_the_pause_before_a_restart_grows_up_to_the_longest(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor = bench.supervise(bench.server("bad"), max_deaths=5, longest_delay_s=0.3)
    bench.order("bad", 3)
    with pytest.raises(Fatal):
        await supervisor.start()
    assert re.findall(r"starting it again in (\S+) s", capsys.readouterr().out) == ["0.1", "0.2", "0.3", "0.3"]


async def test_a_part_that_refuses_its_settings_is_not_tried_again(bench: Bench) -> None:
    supervisor = bench.supervise(bench.server("bad"))
    bench.order("bad", 78)
    with pytest.raises(Fatal, match=r"(?s)bad refuses its settings\..*it said: no"):
        await supervisor.start()
    assert bench.notes() == ["bad started"]


async def test_a_taken_port_is_named_with_the_variable_that_moves_it(bench: Bench) -> None:
    part = bench.server("api")
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", part.ports["API_PORT"]))
        squatter.listen()
        supervisor = bench.supervise(bench.server("store"), part)
        with pytest.raises(Fatal, match=rf"^port {part.ports['API_PORT']} \(api\) is taken; set API_PORT"):
            await supervisor.start()
    assert not (bench.folder / "notes").exists()


async def test_a_one_shot_is_run_once_and_those_that_need_it_wait(bench: Bench) -> None:
    once = Part("once", lambda: [sys.executable, "-c", f"open(r'{bench.folder / 'notes'}','a').write('once ran\\n')"])
    supervisor = bench.supervise(bench.server("after", needs=("once",)), once)
    await supervisor.start()
    assert bench.notes() == ["once ran", "after started"]
    assert bench.facts("once")["state"] == "done"


async def test_a_program_that_is_missing_is_named(bench: Bench) -> None:
    supervisor = bench.supervise(Part("ghost", lambda: ["/nowhere/ghost"], ready=readiness.http(1, "/")))
    with pytest.raises(Fatal, match=r"ghost cannot start: .*No such file"):
        await supervisor.start()


async def test_a_part_that_ignores_sigterm_is_killed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.supervisor.STOP_WITHIN_S", 0.3)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    log = bench.state.logs / "deaf.log"

    async def is_deaf() -> bool:
        return log.exists() and "deaf" in log.read_text()

    supervisor = bench.supervise(Part("deaf", lambda: [sys.executable, "-c", deaf], ready=is_deaf))
    await supervisor.start()
    pid = bench.facts("deaf")["pid"]
    await supervisor.stop()
    assert not psutil.pid_exists(pid)
