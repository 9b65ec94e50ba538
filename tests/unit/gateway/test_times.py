"""Times in bodies: RFC 3339 with a zone, nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from gateway.times import Instant


class Holder(BaseModel):
    model_config = ConfigDict(strict=True)
    at: Instant


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-04-01T00:00:00Z", datetime(2026, 4, 1, tzinfo=UTC)),
        ("2026-04-01t00:00:00z", datetime(2026, 4, 1, tzinfo=UTC)),
        ("2026-04-01T09:00:00+09:00", datetime(2026, 4, 1, tzinfo=UTC)),
        ("2026-04-01T00:00:00.1234567Z", datetime(2026, 4, 1, microsecond=123456, tzinfo=UTC)),
    ],
)
def test_a_time_with_its_zone_is_read_in_utc(text: str, moment: datetime) -> None:
    assert Holder(at=text).at == moment  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    [
        *("", "2026-04-01", "2026-04-01T00:00:00", "20260401T000000Z", "2026-W14-3T00:00:00Z", "2026-13-01T00:00:00Z"),
        *(
            "2026-04-01 00:00:00Z",
            "0001-01-01T00:00:00+01:00",
            "٢٠٢٦-04-01T00:00:00Z",
            " 2026-04-01T00:00:00Z",
            0,
            None,
        ),
    ],
)
def test_anything_else_is_refused_and_not_repeated(value: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        Holder(at=value)
    assert "an RFC 3339 time with its zone is expected" in refused.value.errors()[0]["msg"]
