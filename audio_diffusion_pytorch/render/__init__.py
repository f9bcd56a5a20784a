"""Synthetic training data: scores, and players that perform them."""
