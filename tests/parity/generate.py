"""Regenerates tests/golden/quantizers/*.npz from vector-quantize-pytorch.

  pip install '.[parity]' && python tests/parity/generate.py [NAME …]

A file of this folder may have CASES: a name to a function that returns arrays
by name: weights and inputs, and what the peer makes of them. The ordinary tests
read the files and need no torch. Files without are programs of their own.
"""

import importlib
import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).parent
GOLDEN = HERE.parent / "golden" / "quantizers"


def main(wanted: list[str]) -> int:
  """Writes the wanted cases, or all."""
  import torch

  sys.path.insert(0, str(HERE))
  torch.set_num_threads(1)
  GOLDEN.mkdir(parents=True, exist_ok=True)
  for path in sorted(HERE.glob("*.py")):
    if path.stem == "generate":
      continue
    cases = getattr(importlib.import_module(path.stem), "CASES", {})
    for name, case in cases.items():
      if wanted and name not in wanted:
        continue
      torch.manual_seed(0)
      arrays = {k: np.asarray(v) for k, v in case().items()}
      np.savez_compressed(GOLDEN / f"{name}.npz", **arrays)
      size = (GOLDEN / f"{name}.npz").stat().st_size
      print(f"{name}: {', '.join(arrays)} ({size} bytes)")
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
