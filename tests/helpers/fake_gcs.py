"""A bucket that is a folder here: gs:// paths without a network.

It stands in for gcsfs, below etils.epath, and behaves as an object store where
that differs from a disk: there are no folders but the parts of names, nothing
can be appended, and a file appears when it is closed. TensorStore has a client
of its own, which is given the folder.
"""

import io
import pathlib
import shutil

import fsspec
import tensorstore as ts
from orbax.checkpoint._src.path import gcs_utils


class Store(fsspec.AbstractFileSystem):
  """Objects as files below `root`, with the bucket as the first folder."""

  protocol = ("gs", "gcs")
  root = pathlib.Path()

  def _at(self, path: str) -> pathlib.Path:
    return self.root / self._strip_protocol(path)

  def info(self, path, **kwargs):
    del kwargs
    at, name = self._at(path), self._strip_protocol(path).rstrip("/")
    if at.is_file():
      size = at.stat().st_size
      return {"name": name, "size": size, "type": "file"}
    if at.is_dir() and any(p.is_file() for p in at.rglob("*")):
      return {"name": name, "size": 0, "type": "directory"}
    raise FileNotFoundError(name)

  def ls(self, path, detail=True, **kwargs):
    own = self.info(path)
    found = [own]
    if own["type"] == "directory":
      children = sorted(self._at(path).iterdir())
      names = [f"{own['name']}/{child.name}" for child in children]
      found = [self.info(name) for name in names if self.exists(name)]
    return found if detail else [entry["name"] for entry in found]

  def _open(self, path, mode="rb", **kwargs):
    if mode == "rb":
      self.info(path)
      return self._at(path).open("rb")
    if mode == "wb":
      return _Upload(self._at(path))
    raise NotImplementedError(f"an object store has no mode {mode!r}")

  def cp_file(self, path1, path2, **kwargs):
    target = self._at(path2)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(self._at(path1), target)

  def rm_file(self, path):
    if self._at(path).is_file():
      self._at(path).unlink()

  def mkdir(self, path, **kwargs):
    """There are none."""

  def makedirs(self, path, exist_ok=False):
    """Nor these."""


class _Upload(io.BytesIO):
  """Bytes that become an object when they are closed."""

  def __init__(self, path: pathlib.Path):
    super().__init__()
    self.path = path

  def close(self):
    if not self.closed:
      self.path.parent.mkdir(parents=True, exist_ok=True)
      self.path.write_bytes(self.getvalue())
    super().close()


def use(monkeypatch, root: pathlib.Path) -> pathlib.Path:
  """Makes gs://bucket a folder; returns it."""
  monkeypatch.setattr(Store, "root", root)
  for name in Store.protocol:
    fsspec.register_implementation(name, Store, clobber=True)
  Store.clear_instance_cache()

  def kvstore(path):
    where = root / path.removeprefix("gs://")
    return {"driver": "file", "path": str(where) + "/" * path.endswith("/")}

  monkeypatch.setattr(gcs_utils, "get_kvstore_for_gcs", kvstore)
  monkeypatch.setattr(
    gcs_utils, "is_hierarchical_namespace_enabled", lambda path: False
  )
  opened = ts.KvStore.open

  def open_here(spec, *args, **kwargs):
    if isinstance(spec, str) and spec.startswith("gs://"):
      spec = kvstore(spec)
    return opened(spec, *args, **kwargs)

  monkeypatch.setattr(ts.KvStore, "open", staticmethod(open_here))
  bucket = root / "bucket"
  bucket.mkdir()
  return bucket
