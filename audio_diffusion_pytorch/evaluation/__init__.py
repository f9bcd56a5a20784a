"""Scores of transfers, and their reports."""
