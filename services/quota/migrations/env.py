"""Alembic's entry; the work is services.kit.migrate's."""

from alembic import context

from services.kit.migrate import run_environment

run_environment(context)
