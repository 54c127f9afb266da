"""Data: video files to batches. Files that define `Source` are sources.

A source is a dataclass built with `split` ('train' or 'eval') and the fields
of its config. It has

  files: tuple[str, ...]   what the examples come from; metrics average per file
  labels: tuple[str, ...]  names of the classes; ('',) where there are none
  shape                    (t, h, w, 3) of every clip
  on_corrupt: str          'replace' or 'raise': what the pipeline does with a
                           clip that raises OSError
  __len__()                number of clips: eval is a fixed list, train the
                           length of an epoch
  clip(i, rng) -> dict     'video' uint8 [t h w 3], 'label' int, 'file' int
                           (index into files), 'name' str; OSError if it cannot
                           be read. rng is a numpy Generator; eval ignores it
  ids_shape                only of sources of tokens: (T, H, W, f) of 'ids'
                           int32, which their clips hold in place of 'video'
  conditions               only of those: names of arrays like 'ids', one for
                           each task whose condition clips are stored
  split_report() -> dict   file name to {'train': frames, 'eval': frames}, or
                           what else tells a reader how the data were split

A source can be pickled, and `clip` can be called by several threads at once.
"""
