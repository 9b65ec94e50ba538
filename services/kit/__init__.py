"""Plumbing that two services or more use. It knows no domain and imports no service.

One noun per module: clock, config, database, errors, ids, inbox, migrate, money, outbox, process, rpc, stream,
telemetry, transient, and failpoint, by which tests kill a service at a named place.
"""
