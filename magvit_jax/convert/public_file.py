"""Files that their makers publish. Nothing is ever downloaded here."""

import os
from collections.abc import Mapping
from typing import NamedTuple

from magvit_jax.checkpoints import checksum
from magvit_jax.files import paths

UNKNOWN = "not known"  # the sha256 of a file of which none was seen


class PublicFile(NamedTuple):
  """A file that its makers publish.

  Attributes:
    url: where it is.
    sha256: hexadecimal, or as much of its beginning as is known, or UNKNOWN.
    holds: what it is.
  """

  url: str
  sha256: str
  holds: str


def checksum_text(
  path: str | os.PathLike[str], files: Mapping[str, PublicFile]
) -> str:
  """One line on whether a file is the public one of its name."""
  path = paths.as_path(path)
  found = checksum.file_sha256(path)
  public = files.get(path.name)
  if public is None:
    return f"{path}: sha256 {found}; no public file has this name"
  if public.sha256 == UNKNOWN:
    return f"{path}: sha256 {found}; the published one is not known"
  if found.startswith(public.sha256):
    return f"{path}: sha256 {found}, as published"
  return (
    f"{path}: sha256 {found}, but the published file has {public.sha256}…; "
    f"it is at {public.url}"
  )
