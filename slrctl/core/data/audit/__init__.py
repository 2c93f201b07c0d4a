"""Leaks between the splits of a set, which flatter a score (`docs/audit.md`)."""
