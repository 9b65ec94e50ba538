"""Containers or embedded binaries: decided once per run, and said in pytest's header and summary.

Environment: TOLLWAY_TEST_POSTGRES_IMAGE (postgres:18-alpine), TOLLWAY_TEST_NATS_IMAGE (nats:2.12-alpine),
TOLLWAY_TEST_INFRA=embedded to not even ask Docker, REQUIRE_DOCKER=1 to make falling back an error.
"""

from __future__ import annotations

import importlib
import os
import socket
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

POSTGRES_IMAGE = os.environ.get("TOLLWAY_TEST_POSTGRES_IMAGE") or "postgres:18-alpine"
NATS_IMAGE = os.environ.get("TOLLWAY_TEST_NATS_IMAGE") or "nats:2.12-alpine"

# Everything that tests start in Docker carries it, so that what a killed run left can be removed by it.
LABEL = "org.tollway.tests"


@dataclass(frozen=True)
class Choice:
    containers: bool
    reason: str

    def __str__(self) -> str:
        if self.containers:
            return f"containers {POSTGRES_IMAGE} and {NATS_IMAGE} ({self.reason})"
        return f"embedded binaries, no containers ({self.reason})"


def required() -> bool:
    return os.environ.get("REQUIRE_DOCKER", "") not in {"", "0"}


@cache
def plan() -> Choice:
    """What the run will try, without pulling anything yet."""
    if os.environ.get("TOLLWAY_TEST_INFRA") == "embedded":
        return Choice(False, "TOLLWAY_TEST_INFRA=embedded")
    try:
        version = _docker_version()
    except Exception as error:
        if required():
            raise pytest.UsageError(f"REQUIRE_DOCKER is set, and Docker does not answer: {error}") from error
        return Choice(False, "no Docker daemon answers")
    return Choice(True, f"Docker {version}")


@cache
def settled() -> Choice:
    """The plan, checked: if the images can neither be found nor pulled, the embedded binaries are used."""
    choice = plan()
    if not choice.containers:
        return choice
    from testcontainers.core.config import testcontainers_config

    client = _docker().from_env()
    try:
        for image in (POSTGRES_IMAGE, NATS_IMAGE):
            if (problem := _unavailable(client, image)) is not None:
                if required():
                    pytest.exit(f"REQUIRE_DOCKER is set, and image {image} cannot be had: {problem}", returncode=4)
                return Choice(False, f"{choice.reason} answers, but image {image} cannot be had")
        if not testcontainers_config.ryuk_disabled and _unavailable(client, testcontainers_config.ryuk_image):
            # Its only work is to clean up after a killed run; `.ci/run` does that by our label.
            testcontainers_config.ryuk_disabled = True
    finally:
        client.close()
    return choice


def _docker_version() -> str:
    host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if host.startswith("unix://"):
        # Asked first by hand: the library leaves its socket open when nobody answers.
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(5)
            probe.connect(host.removeprefix("unix://"))
    client = _docker().from_env(timeout=5)
    try:
        return str(client.version()["Version"])
    finally:
        client.close()


def _docker() -> Any:
    return importlib.import_module("docker")  # untyped; and slow to import, so only when asked for


def _unavailable(client: Any, image: str) -> str | None:
    errors = importlib.import_module("docker.errors")
    try:
        client.images.get(image)
    except errors.ImageNotFound:
        try:
            client.images.pull(image)
        except (errors.APIError, OSError) as error:
            return str(error)
    return None
