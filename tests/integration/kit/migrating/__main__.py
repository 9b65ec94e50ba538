"""Migrates the database of DSN as a service does when it starts."""

import asyncio
import os
from pathlib import Path

from services.kit import migrate, telemetry
from services.kit.database import create_engine


async def main() -> None:
    engine = create_engine(os.environ["DSN"])
    await migrate.upgrade(engine, Path(__file__).parent)
    await engine.dispose()


telemetry.configure_logs("migrating")
asyncio.run(main())
