"""Cohorts made messy on purpose, what was planted in them, and how plan and ingest compare with it."""
