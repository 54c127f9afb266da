"""Clips from a folder of videos and images; subfolders are classes.

Every file is resized to `lines` lines. Training draws a random window in time
and space, one per file and epoch; evaluation reads a fixed list of windows.
20 files or more are split between the two by a hash of the file name, fewer
by time: the last `holdout` share of each file is for evaluation.
"""

import concurrent.futures
import dataclasses
import logging
import threading
import weakref
from typing import NamedTuple

import numpy as np
import tqdm

from magvit_jax import messages
from magvit_jax.data import listing, transforms, video_io
from magvit_jax.files import paths

BY_HASH_FROM = 20  # files
_SEED = 20_240_101  # of the fixed list of evaluation clips
_READERS = 8  # threads that look at files when a source is built
_MANY = 100  # files from which that shows a progress bar

# Decoded files, shared by the sources that hold them and freed with the last.
_decoded: weakref.WeakValueDictionary = weakref.WeakValueDictionary()
_locks: dict[tuple, threading.Lock] = {}
_lock = threading.Lock()


class Part(NamedTuple):
  """One file as a split sees it.

  Attributes:
    path: the file.
    label: index of its class.
    total: its number of frames (at `fps`), 0 if it cannot be read.
    begin: first frame of the part.
    end: one past its last frame.
    error: why it cannot be read, or ''.
    bytes: size of the whole file decoded at `lines`.
  """

  path: paths.Path
  label: int
  total: int
  begin: int
  end: int
  error: str
  bytes: int


class Window(NamedTuple):
  """A clip of the evaluation list: which file, first frame, and place 0..1."""

  file: int
  start: int
  top: float
  left: float


@dataclasses.dataclass
class Source:
  """A folder of videos.

  Attributes:
    split: 'train' or 'eval'.
    root: the folder, searched to any depth; its first level of subfolders
      names the classes.
    frames: frames of a clip.
    size: (height, width) of a clip.
    lines: height that files are resized to, aspect kept (more if `size` would
      not fit otherwise).
    stride: frames from one frame of a clip to the next.
    fps: rate that files are resampled to; 0 keeps each file's own.
    holdout: share that is held out for evaluation.
    eval_clips: clips of the evaluation list, spread evenly over the files.
    flip: mirror half of the training clips.
    on_corrupt: 'replace' an unreadable file by the next one, or 'raise'.
    cache_mib: MiB of memory for decoded files, the smallest ones first. Many
      files have one keyframe, so that a clip would cost decoding half a file.
  """

  split: str
  root: str
  frames: int = 9
  size: tuple[int, int] = (64, 64)
  lines: int = 144
  stride: int = 1
  fps: float = 0.0
  holdout: float = 0.2
  eval_clips: int = 48
  flip: bool = False
  on_corrupt: str = "replace"
  cache_mib: int = 1024
  labels: tuple[str, ...] = dataclasses.field(init=False)
  parts: tuple[Part, ...] = dataclasses.field(init=False)
  windows: tuple[Window, ...] = dataclasses.field(init=False, repr=False)

  def __post_init__(self):
    _check(self)
    self._held: dict[int, np.ndarray] = {}
    files = self.list_files()
    self.root = str(files.root)  # a leading ~ is expanded
    self.labels = files.classes
    self.parts = self._long_enough(self._parts(files.labels))
    self.windows = ()
    if self.split == "eval":
      self.parts, self.windows = self._fixed_list()
    self._resident = _smallest(self.parts, self.cache_mib)

  @property
  def files(self) -> tuple[str, ...]:
    """Paths, relative to the root, that clips come from."""
    return tuple(self._name(part.path) for part in self.parts)

  @property
  def shape(self) -> tuple[int, int, int, int]:
    """(t, h, w, 3) of every clip."""
    return (self.frames, *self.size, 3)

  def __len__(self) -> int:
    return len(self.windows if self.split == "eval" else self.parts)

  def clip(self, i: int, rng: np.random.Generator) -> dict:
    """Clip i: see `magvit_jax.data` for the keys."""
    if self.split == "eval":
      file, start, *place = self.windows[i]
    else:
      file, start, place = i, None, None
    part = self.parts[file]
    if part.error:
      raise OSError(part.error)
    if start is None:
      start = int(rng.integers(part.begin, part.end - self.span + 1))
    video = self._read(file, start)
    height, width = video.shape[1:3]
    if place is None:
      top, left = transforms.corner(height, width, self.size, rng)
    else:
      top = int(place[0] * (height - self.size[0] + 1))
      left = int(place[1] * (width - self.size[1] + 1))
    video = transforms.crop(video, top, left, self.size)
    if self.flip and self.split == "train" and rng.random() < 0.5:
      video = video[:, :, ::-1]
    name = self._name(part.path)
    return dict(video=video, label=part.label, file=file, name=name)

  def list_files(self) -> listing.Files:
    """The files under `root` and their classes, for either split."""
    return listing.by_folder(self.root)

  @property
  def span(self) -> int:
    """Frames from the first of a clip to its last, both included."""
    return (self.frames - 1) * self.stride + 1

  def split_report(self) -> dict[str, dict[str, int]]:
    """Frames of each file on either side of the split."""
    report = {}
    for part in self.parts:
      inside = part.end - part.begin
      frames = {self.split: inside, self._other(): part.total - inside}
      report[self._name(part.path)] = dict(sorted(frames.items(), reverse=True))
    return report

  def __getstate__(self):
    """Leaves the decoded files behind: each process decodes its own."""
    return {**self.__dict__, "_held": {}}

  def _name(self, path: paths.Path) -> str:
    return path.relative_to(self.root).as_posix()

  def _other(self) -> str:
    return "train" if self.split == "eval" else "eval"

  def _parts(self, labels: dict[paths.Path, int]) -> list[Part]:
    """Files of this split with their frames; unreadable ones stay listed."""
    found = list(labels)
    by_file = len(found) >= BY_HASH_FROM or all(map(video_io.is_image, found))
    if by_file:
      keys = self._split_keys(found)
      held = listing.held_out(list(keys.values()), self.holdout)
      wanted = self.split == "eval"
      found = [p for p in found if (keys[p] in held) == wanted]

    def look(path):
      label = labels[path]
      try:
        total, size = self._measure(path)
      except OSError as error:
        return Part(path, label, 0, 0, 0, str(error), 0)
      begin, end = 0, total
      if not by_file:
        cut = int(total * (1 - self.holdout) + 1e-6)
        begin, end = (cut, total) if self.split == "eval" else (0, cut)
      return Part(path, label, total, begin, end, "", size)

    quiet = None if len(found) >= _MANY else True  # None: if on a terminal
    with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
      looks = pool.map(look, found)
      bar = tqdm.tqdm(
        looks, f"looking at {self.split} files", len(found), disable=quiet
      )
      return list(bar)

  def _split_keys(self, found: list[paths.Path]) -> dict[paths.Path, str]:
    """The text by whose hash each file is on a side of the split.

    Its name where every file has one of its own, so that a file stays on its
    side when it is moved; else its path below the root.
    """
    names = {path: path.name for path in found}
    if len(set(names.values())) == len(found):
      return names
    return {path: self._name(path) for path in found}

  def _measure(self, path) -> tuple[int, int]:
    """(frames at the source's rate, bytes when decoded)."""
    info = video_io.probe(path)
    total = video_io.count_frames(path, self.fps or None)
    height, width = video_io.fit(info.height, info.width, self.lines, self.size)
    return total, total * height * width * 3

  def _long_enough(self, parts: list[Part]) -> tuple[Part, ...]:
    """Leaves out files too short for a window, and says which."""
    bad = [part for part in parts if part.error]
    for part in bad:
      _unreadable(self, part)
    short = [p for p in parts if not p.error and p.end - p.begin < self.span]
    kept = [part for part in parts if part not in short]
    if len(kept) == len(bad):
      raise ValueError(self._nothing_left(parts, short, bad))
    if short:
      logging.warning(
        "%s: %d of %d files are left out of %s: a clip spans %d frames and "
        "they have fewer: %s",
        self.root,
        len(short),
        len(parts),
        self.split,
        self.span,
        messages.some(
          f"{self._name(p.path)} ({p.end - p.begin})" for p in short
        ),
      )
    return tuple(kept)

  def _nothing_left(self, parts, short, bad) -> str:
    found = [f"{self._name(p.path)} ({p.end - p.begin})" for p in short]
    found += [f"{self._name(p.path)} (unreadable)" for p in bad]
    return (
      f"{self.root}: no file is long enough for {self.split}: a clip of "
      f"frames={self.frames} at stride={self.stride} spans {self.span} frames,"
      f" but the {self.split} parts (holdout={self.holdout}) of its files "
      f"({len(parts)}) have {messages.some(found) or 'none'}; use longer or "
      "more videos, fewer frames, a smaller stride or another holdout"
    )

  def _fixed_list(self) -> tuple[tuple[Part, ...], tuple[Window, ...]]:
    """Files that take part in evaluation, and its windows."""
    parts = [part for part in self.parts if not part.error]
    if self.eval_clips < len(parts):
      picks = np.linspace(0, len(parts) - 1, self.eval_clips).round()
      parts = [parts[int(i)] for i in picks]
    counts = [
      len(range(f, self.eval_clips, len(parts))) for f in range(len(parts))
    ]
    windows = []
    for f, (part, count) in enumerate(zip(parts, counts, strict=True)):
      windows += self._spread(f, part, count)
    return tuple(parts), tuple(windows)

  def _spread(self, file: int, part: Part, count: int) -> list[Window]:
    """`count` windows of a file, one in each of as many equal stretches."""
    rng = np.random.default_rng(
      (_SEED, int(listing.unit_hash(part.path.name) * 2**53))
    )
    room = part.end - part.begin - self.span + 1
    draws = rng.random((count, 3))
    starts = part.begin + (np.arange(count) + draws[:, 0]) / count * room
    return [
      Window(file, int(start), float(top), float(left))
      for start, (_, top, left) in zip(starts, draws, strict=True)
    ]

  def _read(self, file: int, start: int) -> np.ndarray:
    """uint8 [frames h w 3] at `lines`, from memory or from the file."""
    part = self.parts[file]
    fps = self.fps or None
    if file not in self._resident:
      return video_io.read_clip(
        part.path,
        start,
        self.frames,
        self.stride,
        fps,
        lines=self.lines,
        least=self.size,
      )
    if file not in self._held:
      self._held[file] = _whole(part.path, self.lines, fps, self.size)
    whole = self._held[file]
    picked = whole[start : start + self.span : self.stride]
    if len(picked) < self.frames:
      raise OSError(f"{part.path}: has {len(whole)} frames, not {part.total}")
    return picked


def _check(source: Source) -> None:
  """Raises a ValueError that names the argument that is out of range."""
  rules = {
    "split": (source.split in ("train", "eval"), "is 'train' or 'eval'"),
    "on_corrupt": (
      source.on_corrupt in ("replace", "raise"),
      "is 'replace' or 'raise'",
    ),
    "holdout": (0 < source.holdout < 1, "lies between 0 and 1"),
    "frames": (source.frames >= 1, "is at least 1"),
    "stride": (source.stride >= 1, "is at least 1"),
    "lines": (source.lines >= 1, "is at least 1"),
    "size": (
      len(source.size) == 2 and min(source.size) >= 1,
      "is (height, width)",
    ),
    "eval_clips": (source.eval_clips >= 1, "is at least 1"),
    "fps": (source.fps >= 0, "is 0 (each file's own) or above"),
  }
  for name, (holds, rule) in rules.items():
    if not holds:
      value = getattr(source, name)
      raise ValueError(f"data.{name} is {value!r}, but it {rule}; change it")


def _unreadable(source: Source, part: Part) -> None:
  if source.on_corrupt == "raise":
    raise OSError(f"{part.error} (data.on_corrupt is 'raise')")
  logging.warning("unreadable, its clips will be replaced: %s", part.error)


def _smallest(parts, mib: int) -> frozenset[int]:
  """Indices of the files that fit into memory together, smallest first."""
  order = sorted(range(len(parts)), key=lambda i: (parts[i].bytes, i))
  sums = np.cumsum([parts[i].bytes for i in order])
  fits = int(np.searchsorted(sums, mib * 2**20, side="right"))
  return frozenset(order[:fits])


def _whole(path, lines, fps, least) -> np.ndarray:
  """A decoded file, decoded once however many sources and threads ask."""
  key = (path, *paths.stamp(path), lines, fps, least)
  with _lock:
    own = _locks.setdefault(key, threading.Lock())
  with own:
    video = _decoded.get(key)
    if video is None:
      video = video_io.read_all(path, lines, fps, least=least)
      _decoded[key] = video
    return video
