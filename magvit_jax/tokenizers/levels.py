"""What the convolutional backbones share: levels joined by strided steps."""

Strides = tuple[int, int, int]


def total_stride(patch: Strides, strides: tuple[Strides, ...]) -> Strides:
  """Pixels per token in time, height and width."""
  total = patch
  for stride in strides:
    total = tuple(a * b for a, b in zip(total, stride, strict=True))
  return total


def check_levels(
  name: str, multipliers: tuple[int, ...], strides: tuple[Strides, ...]
) -> None:
  """ValueError unless there is one stride between each two levels."""
  if len(strides) != len(multipliers) - 1:
    raise ValueError(
      f"{name}: {len(multipliers)} multipliers need {len(multipliers) - 1} "
      f"strides between their levels, and there are {len(strides)}: {strides}"
    )


def check_frame(name: str, h: int, w: int, stride: Strides) -> None:
  """ValueError for a frame that the spatial strides do not divide."""
  _, sh, sw = stride
  if h % sh or w % sw:
    raise ValueError(
      f"{name}: a frame of {h}x{w} is not divisible by the spatial stride "
      f"{sh}x{sw}; crop or pad it to {-(-h // sh) * sh}x{-(-w // sw) * sw}"
    )
