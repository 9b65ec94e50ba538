"""What tollway costs, measured: each module's `measure()` returns numbers and its `main` prints them as a table."""
