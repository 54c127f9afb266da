"""Runs, videos and stand-ins that several tests use."""

import pathlib

# Scripts among them start here, as `python -m helpers.mesh_training`.
TESTS = pathlib.Path(__file__).resolve().parent.parent
