"""The command line. It speaks REST to the gateway and reads events from NATS; it decides nothing and keeps one file.

Nothing heavy is imported before a command needs it, so that `tollway --help` answers at once.
"""


def version() -> str:
    """This release's, or 0 when it runs from a folder that was never installed."""
    from importlib import metadata

    try:
        return metadata.version("tollway")
    except metadata.PackageNotFoundError:
        return "0"
