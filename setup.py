"""Package definition; pins only where a release is known to break."""

import pathlib

from setuptools import find_packages, setup

EXTRAS = {
  "video": [],
  "report": [],
}
setup(
  name="magvit_jax",
  version="0.1.0",
  packages=find_packages(include=["magvit_jax", "magvit_jax.*"]),
  python_requires=">=3.11",
)
