"""Arrays of public files: of torch, of Flax, safetensors, npz.

None of them is run: pickles are read as tensors alone (weights_only), and the
msgpack of Flax has no code to begin with.
"""

import os
import pathlib
import pickle
import re
from collections.abc import Mapping
from typing import Any

import flax.serialization
import numpy as np

from magvit_jax import messages, tree_utils
from magvit_jax.convert import torchscript
from magvit_jax.files import paths, weight_file

TORCH = (".pth", ".pt", ".ckpt", ".bin")
FLAX = ".msgpack"
FLAX_NAME = re.compile(r"checkpoint_\d+")  # what flax.training writes


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
  path = paths.as_path(path)
  if path.suffix in TORCH:
    return _read_torch(path)
  if path.suffix == torchscript.SUFFIX:
    return torchscript.read(path)
  if path.suffix == FLAX or FLAX_NAME.fullmatch(path.name):
    return _read_flax(path)
  return weight_file.read(path)[0]


def _read_flax(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Arrays by the names of their dicts, joined by '/'; others are left out."""
  weight_file.check_there(path, "--input")
  try:
    tree = flax.serialization.msgpack_restore(path.read_bytes())
  except (ValueError, TypeError) as error:
    raise ValueError(
      f"{path} is damaged or no checkpoint of Flax ({error}); copy it again"
    ) from error
  leaves = tree_utils.named(tree).items()
  return {name: x for name, x in leaves if isinstance(x, np.ndarray)}


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
  weight_file.check_there(path, "--input")
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
  return arrays(path, state)


def arrays(path: pathlib.Path, state: Any) -> dict[str, np.ndarray]:
  if not isinstance(state, Mapping):
    raise ValueError(
      f"{path} holds a {type(state).__name__}; it must be a state_dict, "
      "tensors by name"
    )
  # Lightning keeps it beside its counters.
  state = state.get("state_dict", state)
  wrong = [name for name, x in state.items() if not hasattr(x, "numpy")]
  if wrong:
    raise ValueError(
      f"{path}: {wrong[0]!r} is no tensor; save the state_dict alone"
    )
  return {name: _numpy(x.detach()) for name, x in state.items()}


def _numpy(tensor: Any) -> np.ndarray:
  """numpy has no bfloat16 of its own."""
  half = str(tensor.dtype) == "torch.bfloat16"
  return (tensor.float() if half else tensor).numpy()


def _torch(path: pathlib.Path) -> Any:
  try:
    import torch
  except ImportError as error:
    raise ValueError(
      f"{path} is read with torch, which is not installed: "
      f"{messages.install_extra('convert')}"
    ) from error
  return torch
