"""How a folder of weights is opened: an export, or what `convert` wrote.

Both hold config.json and params.safetensors; an export says in config.json how
it is laid out and what its files hash to, which is checked.
"""

from typing import Any

import jax

import magvit_jax
from magvit_jax import registry
from magvit_jax.checkpoints import checkpointer, checksum
from magvit_jax.files import paths, weight_file, workdirs
from magvit_jax.types import PyTree

PARAMS = "params.safetensors"
LAYOUT = (
  1  # of config.json and of what programs take; goes up if either changes
)


def weights(folder: paths.Name, abstract: PyTree, step: int | None) -> PyTree:
  """The averaged weights that a folder holds, as `abstract` nests them.

  Args:
    folder: a workdir, an export, or what `convert` wrote.
    abstract: tree of ShapeDtypeStructs.
    step: which checkpoint; None is the newest whole one, or what there is.

  Raises:
    OSError: no such checkpoint or file, or none that is whole.
    ValueError: an export of another layout or step, damaged weights, or those
      of another network; the first three arrays that differ are listed.
  """
  if not is_folder(folder):
    return checkpointer.load_params(folder, abstract, item="ema", step=step)
  about = document(folder)
  if step not in (None, about.get("step")):
    raise ValueError(
      f"{folder} holds the weights of step {about.get('step')}, not of {step}; "
      "give the workdir of the run for others"
    )
  check_file(folder, PARAMS)
  path = paths.as_path(folder) / PARAMS
  arrays, _ = weight_file.read(path)
  params = weight_file.fit(arrays, abstract, f"the weights in {path}")
  return jax.tree.map(jax.numpy.asarray, params)


def config(folder: paths.Name) -> dict[str, Any]:
  """The resolved config of a workdir, or what such a folder has of it.

  Raises:
    FileNotFoundError: the folder holds neither.
    ValueError: config.json is not JSON, or of a layout of another version.
  """
  about = document if is_folder(folder) else workdirs.read_config
  return registry.plain(about(folder)["config"])


def is_folder(folder: paths.Name) -> bool:
  """Whether a folder holds its weights as one file, and no checkpoints."""
  return (paths.as_path(folder) / PARAMS).is_file()


def document(folder: paths.Name) -> dict[str, Any]:
  """All of config.json of such a folder; errors as those of `config`."""
  about = workdirs.read_config(folder)
  layout = about.get("layout", LAYOUT)
  if layout != LAYOUT:
    raise ValueError(
      f"{folder} is an export of layout {layout}, written by magvit_jax "
      f"{about.get('magvit_jax')}; magvit_jax {magvit_jax.__version__} reads "
      f"layout {LAYOUT}: install that version, or export it again"
    )
  return about


def check_file(folder: paths.Name, name: str) -> None:
  """Compares a file of an export with its hash in config.json.

  Raises:
    FileNotFoundError: it is missing.
    ValueError: it has another hash.
  """
  path = paths.as_path(folder) / name
  if not path.is_file():
    raise FileNotFoundError(
      f"{path} is missing; copy the export again with all of its files"
    )
  noted = document(folder).get("files", {}).get(name)
  found = checksum.file_sha256(path)
  if noted is not None and noted["sha256"] != found:
    raise ValueError(
      f"{path} is cut off or altered: it has {path.stat().st_size} bytes and "
      f"the sha256 {found[:12]}…, and config.json says {noted['bytes']} and "
      f"{noted['sha256'][:12]}…; copy it again"
    )
