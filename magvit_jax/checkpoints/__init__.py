"""Checkpoints: saved, verified, restored, and started from."""
