"""Batch jobs: hand out independent jobs to the workers of an engine."""
