"""Checkpoints, and versions as they are published."""
