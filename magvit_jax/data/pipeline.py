"""Batches from sources, by random access over Grain.

Batch s is a pure function of (seed, s): the global index i = s * batch + row
gives the epoch's permutation and the random numbers of its clip. The position
in the data is therefore the step, and any number of processes, each with its
rows, reads the same stream.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import grain
import grain.experimental
import numpy as np

from magvit_jax.data import transforms

HOST_ONLY = ("skipped", "bad")  # what the loop tells its user
MAX_REPLACED = 8  # unreadable items in a row
LOADER = {"threads": 2, "prefetch": 4}
_ENDLESS = 2**40  # items
# index_shuffle draws from 2**16 places until one lies below the length, which
# takes long for a few files: below this, an epoch's permutation is kept.
_SHORT = 1024


@dataclasses.dataclass(frozen=True)
class Stream:
  """The training examples of one process, as a random-access source.

  Item k is row k % n of batch `first` + k // n, where n counts this process's
  rows. An unreadable item is replaced by the next index of the stream.

  Attributes:
    source: see `magvit_jax.data`.
    seed: of the stream.
    batch: rows of a global batch.
    first: the batch that item 0 belongs to.
    rows: which rows of a batch are this process's.
  """

  source: Any
  seed: int
  batch: int
  first: int
  rows: range

  def __len__(self) -> int:
    return _ENDLESS

  def __getitem__(self, k: int) -> dict[str, Any]:
    step, row = divmod(k, len(self.rows))
    index = (self.first + step) * self.batch + self.rows[row]
    bad = []
    for tries in range(MAX_REPLACED + 1):
      item = permuted(index + tries, len(self.source), self.seed)
      # The number of tries keeps a replacement from being a copy of the
      # clip that stands next in the stream.
      key = (self.seed, index, tries) if tries else (self.seed, index)
      try:
        clip = self.source.clip(item, np.random.default_rng(key))
      except OSError as error:
        if self.source.on_corrupt == "raise":
          raise
        bad.append(str(error))
        continue
      return _example(clip, bad)
    raise OSError(
      f"{len(bad)} clips in a row cannot be read, the last because of: "
      f"{bad[-1]}; remove the damaged files from the data"
    )


@dataclasses.dataclass(frozen=True)
class FixedList:
  """The evaluation clips of one process, padded to whole batches.

  Attributes:
    source: see `magvit_jax.data`.
    batch: rows of a global batch.
    rows: which rows of a batch are this process's.
  """

  source: Any
  batch: int
  rows: range

  def __len__(self) -> int:
    batches = -(-len(self.source) // self.batch)
    return batches * len(self.rows)

  def __getitem__(self, k: int) -> dict[str, Any]:
    step, row = divmod(k, len(self.rows))
    index = step * self.batch + self.rows[row]
    return {**self._row(index), "index": np.int32(index)}

  def _row(self, index: int) -> dict[str, Any]:
    if index >= len(self.source):
      return self._blank([])
    try:
      clip = self.source.clip(index, np.random.default_rng((0, index)))
    except OSError as error:
      if self.source.on_corrupt == "raise":
        raise
      return self._blank([str(error)])
    return _example(clip, [])

  def _blank(self, bad: list[str]) -> dict[str, Any]:
    """A row that does not count."""
    clip = {**blank(self.source), "label": 0, "file": 0}
    return {**_example(clip, bad), "valid": np.bool_(False)}


def train_batches(
  source: Any,
  *,
  seed: int,
  batch: int,
  start: int = 0,
  rows: slice | None = None,
  loader: Mapping[str, int] | None = None,
) -> grain.DatasetIterator:
  """Endless training batches, from batch `start` on.

  Args:
    source: a source of split 'train'.
    seed: of the stream.
    batch: rows of a global batch.
    start: number of the first batch, which is the step.
    rows: rows of the global batch that are wanted; None for all.
    loader: {'threads', 'prefetch'}: threads that read (0 reads in the caller)
      and batches they may be ahead.

  Returns:
    An iterator, whose `close` stops the threads that read ahead
    (`contextlib.closing`), of dicts: 'video' float32 [b t h w 3] in [-1, 1] (or
    'ids' int32 [b T H W f], where the source holds tokens, with those of its
    condition clips), 'label' and 'file'
    int32 [b], 'valid' bool [b], 'skipped' int32 [b] (unreadable clips that were
    replaced), and 'bad', a list with the name of and reason for each, for the
    caller to tell.

  Raises:
    ValueError: no rows are asked for.
    OSError: while iterating: 9 clips in a row cannot be read, or one with
      on_corrupt='raise'.
    ValueError: while iterating: a clip whose pixels are not uint8.
  """
  rows = _rows(batch, rows)
  return _batches(Stream(source, seed, batch, start, rows), loader)


def eval_batches(
  source: Any,
  *,
  batch: int,
  rows: slice | None = None,
  loader: Mapping[str, int] | None = None,
) -> grain.DatasetIterator:
  """The fixed list of a source, each clip once; see `train_batches`.

  The last batch is padded; 'valid' is False in padded rows and in those
  whose clip cannot be read. 'index' int32 [b] is the place in the list.
  """
  rows = _rows(batch, rows)
  return _batches(FixedList(source, batch, rows), loader)


def arrays(batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """What of a batch goes to the devices: all but 'skipped' and 'bad'."""
  return {k: v for k, v in batch.items() if k not in HOST_ONLY}


def permuted(index: int, length: int, seed: int) -> int:
  """Item at `index` of an endless stream, shuffled anew in each epoch."""
  epoch, place = divmod(index, length)
  if length < _SHORT:
    return int(_order(length, seed, epoch)[place])
  mixed = np.random.SeedSequence((seed, epoch)).generate_state(1)[0]
  return grain.experimental.index_shuffle(
    place, max_index=length - 1, seed=int(mixed), rounds=4
  )


@functools.lru_cache(maxsize=64)
def _order(length: int, seed: int, epoch: int) -> np.ndarray:
  return np.random.default_rng((seed, epoch)).permutation(length)


def _rows(batch: int, rows: slice | None) -> range:
  own = range(batch)[slice(None) if rows is None else rows]
  if not own:
    raise ValueError(
      f"a batch of {batch} has no rows {rows}; ask for at least one"
    )
  return own


def _batches(
  items: Stream | FixedList, loader: Mapping[str, int] | None
) -> grain.DatasetIterator:
  settings = {**LOADER, **(loader or {})}
  options = grain.ReadOptions(
    num_threads=settings["threads"],
    prefetch_buffer_size=settings["prefetch"],
  )
  data = grain.MapDataset.source(items)
  data = data.batch(len(items.rows), drop_remainder=True, batch_fn=_stack)
  return iter(data.to_iter_dataset(options))


def blank(source: Any) -> dict[str, np.ndarray]:
  """What a clip of `source` holds, all zeros: 'video', or 'ids' and alike."""
  if hasattr(source, "ids_shape"):
    names = ("ids", *source.conditions)
    return {name: np.zeros(source.ids_shape, np.int32) for name in names}
  return {"video": np.zeros(source.shape, np.uint8)}


def _example(clip: dict[str, Any], bad: list[str]) -> dict[str, Any]:
  _check_pixels(clip)
  return dict(
    **{k: v for k, v in clip.items() if isinstance(v, np.ndarray)},
    label=np.int32(clip["label"]),
    file=np.int32(clip["file"]),
    valid=np.bool_(True),
    skipped=np.int32(len(bad)),
    bad=bad,
  )


def _check_pixels(clip: dict[str, Any]) -> None:
  """ValueError for pixels that are not uint8, which alone cannot be NaN."""
  kind = getattr(clip.get("video"), "dtype", np.uint8)
  if kind != np.uint8:
    raise ValueError(
      f"data: 'video' of the clip {clip.get('name')!r} is {kind}; a source "
      "gives uint8 [t h w 3]: use data.transforms.to_uint8 on pixels in [-1, 1]"
    )


def _stack(examples: list[dict[str, Any]]) -> dict[str, Any]:
  batch = {
    key: np.stack([example[key] for example in examples])
    for key in examples[0]
    if key != "bad"
  }
  if "video" in batch:
    batch["video"] = transforms.to_float(batch["video"])
  batch["bad"] = [reason for example in examples for reason in example["bad"]]
  return batch
