"""Data without recordings: scores, and the instruments that play them."""
