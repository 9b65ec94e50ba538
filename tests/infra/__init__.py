"""What integration and end-to-end tests stand on: PostgreSQL, NATS, and the system's own processes.

It owns starting and ending them. Where a Docker daemon answers they come from testcontainers, elsewhere from the
embedded wheels; the run says which. It knows no product behaviour.
"""
