"""A service's migrations in small, and a program that applies them: `python -m tests.integration.kit.migrating`."""
