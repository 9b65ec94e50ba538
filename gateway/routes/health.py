"""Whether the gateway lives, whether what it needs answers, and its numbers."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from gateway.backend import Services
from gateway.operations import operation
from gateway.problems import RETRY_AFTER_S, Problem

router = APIRouter(tags=["health"])
_FRESH = {"Cache-Control": "no-store"}


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    status: Literal["ready"] = "ready"
    services: dict[str, Literal["ok"]]


@router.get("/healthz", summary="Is the gateway alive", **operation())
async def check_alive(response: Response) -> Alive:
    """Asks nobody: restart the gateway when this fails, not when another service is down."""
    response.headers.update(_FRESH)
    return Alive()


@router.get("/readyz", summary="Can the gateway serve", **operation("not_ready"))
async def check_ready(backend: Services, response: Response) -> Ready:
    """Asks each service; 503 names those that do not answer."""
    health = await backend.health()
    down = [name for name, healthy in health.items() if not healthy]
    if down:
        raise Problem(
            "not_ready",
            f"Not ready: {', '.join(down)}.",
            headers={"Retry-After": str(RETRY_AFTER_S)},
            services={name: "ok" if healthy else "down" for name, healthy in health.items()},
        )
    response.headers.update(_FRESH)
    return Ready(services=dict.fromkeys(health, "ok"))


@router.get("/metrics", include_in_schema=False)
async def metrics() -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST, headers=_FRESH)
