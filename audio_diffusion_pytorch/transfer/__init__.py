"""Recordings through a bridge to files."""
