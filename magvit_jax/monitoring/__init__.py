"""Watching a run: metrics, time, incidents, stalls, disk space, traces."""
