"""Quota's tests stand on its migrated database."""

from __future__ import annotations

import pytest


@pytest.fixture
def database(quota_database: str) -> str:
    """Fresh, with quota's tables."""
    return quota_database
