"""Which failures pass by themselves. Apart from `kit.database`, so that a process without one need not load it."""

from __future__ import annotations

from services.kit import errors

_STATES = frozenset({"55P03", "25006"})  # lock not available; read-only, as a failover leaves it
_CLASSES = frozenset({"08", "40", "53", "57"})  # connection, rollback, resources, operator


def is_transient(error: BaseException) -> bool:
    """True when the same work may succeed in a moment.

    That is: connection lost or refused, pool exhausted, deadlock, serialization failure, server starting or stopping,
    or another service that says so. A value that does not fit its column is not (asyncpg calls that InterfaceError).
    """
    if isinstance(error, errors.TollwayError):
        return isinstance(error, (errors.Unavailable, errors.DeadlineExceeded, errors.Aborted))
    if isinstance(error, OSError):  # TimeoutError and ConnectionError are OSErrors
        return True
    if type(error).__module__.startswith("sqlalchemy"):
        from sqlalchemy.exc import DBAPIError
        from sqlalchemy.exc import TimeoutError as PoolTimeoutError

        if isinstance(error, PoolTimeoutError) or (isinstance(error, DBAPIError) and error.connection_invalidated):
            return True
    # While connecting, asyncpg's own errors arrive bare. SQLSTATE: PostgreSQL's manual, appendix A.
    state = getattr(getattr(error, "orig", error), "sqlstate", None) or ""
    return state[:2] in _CLASSES or state in _STATES
