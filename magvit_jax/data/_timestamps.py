"""Presentation times of the frames of a video, and its frame rate."""

from fractions import Fraction

import numpy as np


def container_rate(container, stream) -> Fraction:
  """The rate that the header states."""
  if container.format.name == "avi" and stream.time_base:
    return 1 / stream.time_base  # the others are guessed from the codec
  return stream.average_rate or stream.guessed_rate or Fraction(25)


def mean_rate(stamps: np.ndarray, base: Fraction, stated: Fraction) -> Fraction:
  """`stated` if the frames keep it up to rounding, else their mean rate."""
  steps = len(stamps) - 1
  if not steps:
    return stated
  span = int(stamps[-1] - stamps[0]) * base
  return stated if abs(steps / stated - span) <= 2 * base else steps / span


def packet_stamps(container, stream, first: int | None) -> np.ndarray | None:
  """Presentation times of the frames [t], rising; None if packets lack them.

  Args:
    container: open, at its start.
    stream: of the video.
    first: time of the first frame that the decoder gives, if it has one.
  """
  if first is None:
    return None
  codec = stream.codec_context
  if container.format.name == "avi" and not codec.codec.intra_only:
    return None  # its times follow the order of decoding
  if codec.name == "mpeg4":
    return None  # packets may hold two frames (packed B-frames), or none
  stamps = _indexed(container, stream)
  # The presentation times of a cut file have gaps that its index has not.
  if stamps is None or stamps[0] != first:
    packets = (p for p in container.demux(stream) if p.size)
    stamps = [p.pts for p in packets if not p.is_discard and _shows(codec, p)]
  if not len(stamps) or any(stamp is None for stamp in stamps):
    return None
  stamps = np.sort(np.asarray(stamps, np.int64))
  return stamps if np.all(np.diff(stamps) > 0) else None


def _shows(codec, packet) -> bool:
  """False for a packet that only holds a hidden reference frame."""
  # RFC 6386, 9.1: bit 4 of a VP8 frame is show_frame.
  return codec.name != "vp8" or bool(bytes(packet)[0] >> 4 & 1)


def _indexed(container, stream) -> np.ndarray | None:
  """Timestamps from the index of an mp4 of constant rate, else None.

  The index holds decoding times; they are a shift away from the times of
  presentation where their steps are equal and no frame is edited out.
  """
  entries = stream.index_entries
  uniform = "mp4" in container.format.name and len(entries) == stream.frames
  if not uniform or len(entries) < 2 or stream.start_time is None:
    return None
  stamps = np.array([entry.timestamp for entry in entries], np.int64)
  if len(set(np.diff(stamps).tolist())) > 1:
    return None
  if any(entry.is_discard for entry in entries):
    return None
  return stamps - stamps[0] + stream.start_time
