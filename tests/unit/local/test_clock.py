"""Where time may not be moved."""

from __future__ import annotations

import httpx
import pytest

from local.clock import Clock, Refused, application


def test_outside_local_mode_there_is_no_clock_to_move() -> None:
    with pytest.raises(Refused, match="local mode only"):
        Clock({})


def client(env: dict[str, str]) -> httpx.AsyncClient:
    served = httpx.ASGITransport(application(Clock({"TOLLWAY_LOCAL": "1", **env}), 12113))
    return httpx.AsyncClient(transport=served, base_url="http://127.0.0.1:12113")


@pytest.mark.parametrize(
    "env",
    [
        {"STRIPE_API_KEY": "sk_test_x"},
        {"STRIPE_API_KEY": "sk_test_x", "STRIPE_API_BASE": "http://127.0.0.1:1"},
        {"STRIPE_API_BASE": "http://127.0.0.1:1", "TOLLWAY_CLOCK_FILE": "/x"},
    ],
)
async def test_with_the_real_stripe_it_refuses(env: dict[str, str]) -> None:
    async with client(env) as clock:
        assert "real Stripe" in (await clock.post("/advance", json={"seconds": 1})).json()["error"]
        answer = await clock.get("/")
        assert (answer.status_code, "real Stripe" in answer.json()["error"]) == (409, True)


@pytest.mark.parametrize("body", [{}, [], {"seconds": -1}, {"seconds": True}, {"seconds": 1.5}, {"seconds": 1, "a": 2}])
async def test_what_is_no_length_of_time_is_refused(body: object) -> None:
    async with client({}) as clock:
        assert (await clock.post("/advance", json=body)).status_code == 422
