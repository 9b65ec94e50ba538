"""Pure decisions of billing: no I/O, no wall clock."""
