"""What the convolutional backbones share: levels joined by strided steps."""

from magvit_jax.nn.layer import Carry

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


def check_mirror(
  name: str,
  multipliers: tuple[int, ...],
  downs: tuple[Strides, ...],
  ups: tuple[Strides, ...],
  known: tuple[Strides, ...],
) -> None:
  """ValueError unless a decoder's steps undo an encoder's, each a known one."""
  for steps in (downs, ups):
    check_levels(name, multipliers, steps)
    for step in steps:
      if tuple(step) not in known:
        raise ValueError(
          f"{name}: a step is {step}; in (time, height, width) it is one of "
          f"{', '.join(map(str, known))}"
        )
  down, up = (total_stride((1, 1, 1), steps) for steps in (downs, ups))
  if down != up:
    raise ValueError(
      f"{name}: downs multiply to {down} and ups to {up}; they must be the "
      "same, or a decoded clip has another size"
    )


def check_frame(name: str, h: int, w: int, stride: Strides) -> None:
  """ValueError for a frame that the spatial strides do not divide."""
  _, sh, sw = stride
  if h % sh or w % sw:
    raise ValueError(
      f"{name}: a frame of {h}x{w} is not divisible by the spatial stride "
      f"{sh}x{sw}; crop or pad it to {-(-h // sh) * sh}x{-(-w // sw) * sw}"
    )


def causal_grid(name: str, t: int, h: int, w: int, stride: Strides) -> Strides:
  """(T, H, W) of a clip of 1+k*st frames; ValueError if it does not divide."""
  st, sh, sw = stride
  if (t - 1) % st or t < 1:
    below = max(1 + (t - 1) // st * st, 1)
    raise ValueError(
      f"{name}: {t} frames do not fit a temporal stride of {st}: use "
      f"1 + k * {st}, such as {below} or {below + st}"
    )
  check_frame(name, h, w, stride)
  return 1 + (t - 1) // st, h // sh, w // sw


def check_chunk(
  name: str, carry: Carry, shape: tuple[int, ...], stride: Strides
) -> None:
  """ValueError for a chunk [b t h w 3] that cannot follow this carry."""
  frames, st = shape[1], stride[0]
  if carry is not None and frames % st:
    raise ValueError(
      f"{name}: {frames} frames do not go on a clip at a temporal stride "
      f"of {st}: chunks after the first have k * {st}"
    )
  causal_grid(name, frames + (carry is not None), *shape[2:4], stride)
