"""Billing's use cases, one function each: load, decide, save, announce, commit."""
