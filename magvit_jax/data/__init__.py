"""Data: video files to batches. Files that define `Source` are sources.

A source is built with `split` ('train' or 'eval') and its config, and has

  files: tuple[str, ...]   what the examples come from; metrics average per file
  __len__()                number of clips: eval is a fixed list, train nominal
  clip(i, rng) -> dict     'video' uint8 [t h w 3], 'label' int, 'file' int
                           (index into files), 'name' str; OSError if unreadable
"""
