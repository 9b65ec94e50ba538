"""Alembic's entry; everything is in the kit."""

from alembic import context

from services.kit.migrate import run_environment

run_environment(context)
