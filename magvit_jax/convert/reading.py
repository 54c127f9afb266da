"""Arrays of public files: .pth of torch, safetensors, npz."""

import os
import pathlib
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np

from magvit_jax import pretrained

TORCH = (".pth", ".pt")


def read_all(paths: list[str]) -> dict[str, np.ndarray]:
  """The arrays of several files together.

  Raises:
    ValueError: two files have an array of one name; or as in `read`.
  """
  state: dict[str, np.ndarray] = {}
  for path in paths:
    found = read(path)
    twice = sorted(state.keys() & found.keys())
    if twice:
      raise ValueError(
        f"{path} has {twice[0]!r}, which an earlier --input has too; give each "
        "file once"
      )
    state |= found
  return state


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """The arrays of a file by name.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: no file of arrays alone. A pickle that holds more is refused,
      as loading it would run whatever code it names.
  """
  path = pathlib.Path(path)
  if path.suffix not in TORCH:
    return pretrained.read(path)[0]
  pretrained.check_there(path, "--input")
  torch = _torch(path)
  try:
    state = torch.load(path, map_location="cpu", weights_only=True)
  except pickle.UnpicklingError as error:
    raise ValueError(
      f"{path} holds pickled code or is damaged, and is refused: only files of "
      "tensors are read (weights_only). Save its state_dict() alone, where you "
      "trust it"
    ) from error
  except (EOFError, RuntimeError) as error:
    raise ValueError(
      f"{path} is damaged or no file of torch ({error}); copy it again"
    ) from error
  return _arrays(path, state)


def _arrays(path: pathlib.Path, state: Any) -> dict[str, np.ndarray]:
  if not isinstance(state, Mapping):
    raise ValueError(
      f"{path} holds a {type(state).__name__}; it must be a state_dict, "
      "tensors by name"
    )
  wrong = [name for name, x in state.items() if not hasattr(x, "numpy")]
  if wrong:
    raise ValueError(
      f"{path}: {wrong[0]!r} is no tensor; save the state_dict alone"
    )
  return {name: x.detach().numpy() for name, x in state.items()}


def _torch(path: pathlib.Path) -> Any:
  try:
    import torch
  except ImportError as error:
    raise ValueError(
      f"{path} is read with torch, which is not installed: pip install "
      "'magvit_jax[convert]'"
    ) from error
  return torch
