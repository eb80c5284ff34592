"""Billing's use cases: load, decide, save. One module for each subject."""
