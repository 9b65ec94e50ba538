"""Clocks, money, ids, failpoints, and what counts as transient."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from services.kit import errors
from services.kit.clock import BusinessClock, WallClock
from services.kit.ids import new_id
from services.kit.money import THREE_DECIMAL, ZERO_DECIMAL, decimals, format_money
from services.kit.outbox import MAX_EVENT_BYTES, Envelope
from services.kit.process import cancel_until_done
from services.kit.transient import is_transient
from tollway.billing.v1.events_pb2 import TierChanged


def move(clock_file: Path, seconds: str) -> None:
    """As local mode does it: replaced, never written in place."""
    fresh = clock_file.with_suffix(".new")
    fresh.write_text(seconds)
    fresh.replace(clock_file)


def away(clock: BusinessClock) -> int:
    return round((clock.now() - datetime.now(UTC)).total_seconds())


def test_business_time_follows_the_file_and_wall_time_does_not(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    clock = BusinessClock(file)
    assert away(clock) == 0
    move(file, "3600")
    assert away(clock) == 3600
    move(file, "90000")
    assert away(clock) == 90_000
    assert abs(WallClock().now() - datetime.now(UTC)) < timedelta(seconds=1)
    assert clock.now().utcoffset() == timedelta(0)


@given(st.lists(st.integers(min_value=-(10**9), max_value=10**9), max_size=8))
def test_business_time_never_runs_backwards(offsets: list[int]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clock"
        clock = BusinessClock(file)
        seen = clock.now()
        for offset in offsets:
            move(file, str(offset))
            assert clock.now() >= seen
            seen = clock.now()
        file.unlink(missing_ok=True)
        assert clock.now() >= seen


def test_business_time_without_a_file_is_wall_time() -> None:
    assert away(BusinessClock()) == 0


CURRENCIES = sorted(ZERO_DECIMAL | THREE_DECIMAL | {"usd", "eur", "gbp", "chf", "isk", "huf"})


@given(
    amount=st.integers(min_value=-(10**12), max_value=10**12),
    currency=st.sampled_from(CURRENCIES),
    locale=st.sampled_from(["en_US", "de_DE", "fr_FR", "ja_JP", "en_IN"]),
)
def test_money_as_text_has_every_minor_unit_and_no_more(amount: int, currency: str, locale: str) -> None:
    text = format_money(amount, currency, locale)
    assert re.sub(r"\D", "", text) == str(abs(amount)).zfill(decimals(currency) + 1)
    assert (re.search(r"[-−(]", text) is not None) == (amount < 0)
    assert Decimal(re.sub(r"\D", "", text)) == abs(amount)


@pytest.mark.parametrize(
    ("amount", "currency", "locale", "text"),
    [
        (2900, "usd", "en_US", "$29.00"),
        (123456789, "usd", "en_US", "$1,234,567.89"),
        (500, "jpy", "en_US", "¥500"),
        (500, "JPY", "de_DE", "500\xa0¥"),
        (12345, "kwd", "en_US", "KWD12.345"),
        (-1, "eur", "de_DE", "-0,01\xa0€"),
        (0, "usd", "en_US", "$0.00"),
    ],
)
def test_money_reads_as_people_write_it(amount: int, currency: str, locale: str, text: str) -> None:
    assert format_money(amount, currency, locale).replace("KWD\xa0", "KWD") == text


def test_ids_sort_by_the_order_of_their_making() -> None:
    ids = [new_id("evt") for _ in range(20_000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"evt_[0-9a-f]{32}", made) for made in ids)


def test_a_failpoint_kills_once_after_the_passes_it_lets_by(tmp_path: Path) -> None:
    program = (
        "from services.kit.failpoint import failpoint\n"
        "for n in range(4):\n    failpoint('other'); failpoint('here'); print(n, flush=True)"
    )

    def run() -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "TOLLWAY_FAILPOINTS": str(tmp_path)}
        return subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
        )

    (tmp_path / "here").write_text("2")
    killed = run()
    assert killed.returncode == -signal.SIGKILL
    assert killed.stdout == "0\n1\n"
    assert run().stdout == "0\n1\n2\n3\n"


def _from_database(orig: Exception, *, invalidated: bool = False) -> DBAPIError:
    return DBAPIError("SELECT 1", {}, orig, connection_invalidated=invalidated)


def _with_state(state: str) -> Exception:
    error = Exception("from asyncpg")
    error.sqlstate = state  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        TimeoutError(),
        asyncpg.CannotConnectNowError(),
        asyncpg.TooManyConnectionsError(),
        _from_database(_with_state("40P01")),
        _from_database(_with_state("40001")),
        _from_database(_with_state("57P01")),
        _from_database(_with_state("55P03")),
        _from_database(Exception("connection is closed"), invalidated=True),
        PoolTimeoutError(),
        errors.Unavailable("billing is away"),
    ],
)
def test_what_passes_by_itself_is_transient(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError(),
        KeyError("x"),
        asyncio.CancelledError(),
        asyncpg.InvalidPasswordError(),
        asyncpg.InvalidCatalogNameError(),
        _from_database(_with_state("23505")),
        _from_database(_with_state("42P01")),
        _from_database(asyncpg.DataError("value out of int64 range")),
        errors.NotFound("no such account"),
    ],
)
def test_what_would_fail_again_is_not_transient(error: BaseException) -> None:
    assert not is_transient(error)


@pytest.mark.parametrize("account_id", ["", "a.b", "a b", "*", ">", "acct_1\r\nx: y", "ü", "a" * 129])
def test_an_account_id_that_breaks_a_subject_is_refused(account_id: str) -> None:
    with pytest.raises(ValueError, match="cannot be part of a subject"):
        Envelope.of(TierChanged(), account_id)


def test_an_event_that_no_stream_would_take_is_refused() -> None:
    with pytest.raises(ValueError, match="bytes"):
        Envelope.of(TierChanged(tier="x" * (MAX_EVENT_BYTES + 1)), "acct_1")


def test_an_event_is_a_cloud_event() -> None:
    envelope = Envelope.of(TierChanged(account_id="acct_1", version=3), "acct_1")
    headers = envelope.headers()
    assert envelope.subject == "tollway.billing.TierChanged.acct_1"
    assert headers.pop("ce-id") == headers.pop("Nats-Msg-Id") == envelope.id
    assert datetime.fromisoformat(headers.pop("ce-time")) == envelope.create_time
    assert headers == {
        "ce-specversion": "1.0",
        "ce-source": "/tollway/billing",
        "ce-type": "tollway.billing.v1.TierChanged",
        "ce-subject": "acct_1",
        "ce-datacontenttype": "application/protobuf",
    }


async def test_a_loop_that_swallows_a_cancellation_is_stopped_all_the_same() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed == 3:
                    raise

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)  # it has begun to wait
    await cancel_until_done([task], patience_s=0.01)
    assert task.cancelled()
    assert swallowed == 3
