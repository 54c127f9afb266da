"""Files of a run that grow, or that only programs with local names can write.

An object store can neither append nor be opened by TensorBoard's and XLA's
writers. So of a gs:// folder such files lie in a temporary folder here, and
are uploaded whole each time; of a local folder they are what they are.
"""

import pathlib
import shutil
import tempfile
import time

from magvit_jax.files import paths


class UploadError(RuntimeError):
  """Files could not be brought to the store: no wrong input, so try again."""


class Spool:
  """A folder to write into, which stands for `target`.

  Attributes:
    target: where the files belong.
    local: where they are written: `target` itself, unless that is remote.
  """

  def __init__(self, target: paths.Name):
    self.target = paths.as_path(target)
    self.remote = paths.is_remote(self.target)
    self.local = (
      pathlib.Path(tempfile.mkdtemp(prefix="magvit_jax_"))
      if self.remote
      else self.target
    )
    self._sent: dict[pathlib.Path, tuple[int, int]] = {}
    self._last = time.monotonic()

  def upload(self, least: float = 0.0) -> None:
    """Brings what has changed to where it belongs.

    Args:
      least: seconds since the last time, before which this does nothing.

    Raises:
      UploadError: the store did not take it; the files stay in `local`.
    """
    if not self.remote or time.monotonic() - self._last < least:
      return
    self._last = time.monotonic()
    try:
      for file in sorted(self.local.rglob("*")):
        if file.is_file() and self._sent.get(file) != paths.stamp(file):
          mark = paths.stamp(file)
          name = file.relative_to(self.local).as_posix()
          paths.upload(file, self.target / name)
          self._sent[file] = mark
    # What a client of a store raises is its own affair.
    except Exception as error:
      raise UploadError(
        f"{self.target} did not take files ({error}); they lie in {self.local}."
        " Checkpoints are untouched: run the same command again"
      ) from error

  def close(self) -> None:
    """Uploads a last time; the temporary folder is deleted if that worked."""
    self.upload()
    if self.remote:
      shutil.rmtree(self.local, ignore_errors=True)
