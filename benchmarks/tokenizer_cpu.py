"""MAGVIT-v2's tokenizer on CPU, against the same network in torch.

  pip install '.[bench]'
  python benchmarks/tokenizer_cpu.py
  python benchmarks/tokenizer_cpu.py --frames=5 --size=32 --width=32   # a check

Builds causal3d as in configs/tokenizer/ucf101.py:B,model=magvit2 (width 64, 4
blocks per level) and the network below in torch, loads one set of random
weights into both, checks that latents and pixels agree to 1e-4 of their
standard deviation, and then times encoding and decoding of one clip in float32
in turn, on two threads. Torch runs in inference mode in the faster of its two
memory formats. Prints the medians and the ratio of clips per second, ours over
torch's; exits with 1 where one is below 1. Compiling is not timed.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F

from magvit_jax import registry
from magvit_jax.configs import magvit
from magvit_jax.tokenizers import causal3d

THREADS, TOLERANCE, TARGET = 2, 1e-4, 1.0
GROUPS, EPS = 32, 1e-6
FORMATS = {
  "contiguous": torch.contiguous_format,
  "channels_last": torch.channels_last_3d,
}
Tensor = torch.Tensor


def main() -> int:
  """Compares and times; returns the exit code."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--frames", type=int, default=17)
  parser.add_argument("--size", type=int, default=128)
  parser.add_argument("--width", type=int, default=64)
  parser.add_argument("--rounds", type=int, default=3)
  args = parser.parse_args()
  os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
  torch.set_num_threads(THREADS)
  group = magvit.backbone("magvit2", "B", 128, image=False)
  group["width"] = args.width
  module = registry.build("tokenizers", group, latent_dim=18)
  shape = (1, args.frames, args.size, args.size, 3)
  video = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
  params = random_params(module, video.shape)
  calls = {"ours": ours(module, params)}
  for name in FORMATS:
    calls[name] = Net(module, params, FORMATS[name]).calls()
  codes = calls["ours"]["encode"](video)
  worst = 9.0
  for part, x in (("encode", video), ("decode", codes)):
    worst = min(worst, compare(part, x, calls, args.rounds))
  return int(worst < TARGET)


def compare(part: str, x: np.ndarray, calls: dict, rounds: int) -> float:
  """Checks and times one program; the ratio ours over torch's better one."""
  want = calls["ours"][part](x)
  for name in FORMATS:
    error = np.abs(calls[name][part](x) - want).max() / want.std()
    print(f"{part} {name}: largest difference {error:.1e} of the std")
    if not error < TOLERANCE:
      raise SystemExit(f"{part}: torch and ours differ by {error:.1e}")
  seconds = {name: [] for name in calls}
  for _ in range(rounds):
    for name, programs in calls.items():
      start = time.perf_counter()
      programs[part](x)
      seconds[name].append(time.perf_counter() - start)
  medians = {name: float(np.median(times)) for name, times in seconds.items()}
  ratio = min(medians[name] for name in FORMATS) / medians["ours"]
  shown = ", ".join(f"{name} {s:.2f} s" for name, s in medians.items())
  print(f"{part}: {shown}; ours over torch {ratio:.2f}", flush=True)
  return ratio


def random_params(module: causal3d.Backbone, shape: tuple[int, ...]) -> dict:
  """Weights of the backbone, those that start at zero included."""

  def autoencode(m, video):
    return m.decode(m.encode(video))

  def init(key):
    video = jnp.zeros((1, 1, *shape[2:]))
    return module.init(key, video, method=autoencode)["params"]

  shapes = jax.eval_shape(init, jax.random.key(0))
  rng = np.random.default_rng(1)

  def leaf(path, x):
    noise = rng.standard_normal(x.shape, np.float32)
    if path[-1].key == "scale":
      return 1 + 0.1 * noise
    gain = np.prod(x.shape[:-1]) ** -0.5 if x.ndim > 1 else 0.1
    return noise * np.float32(gain)

  return jax.tree_util.tree_map_with_path(leaf, shapes)


def ours(module: causal3d.Backbone, params: dict) -> dict[str, Callable]:
  """encode and decode of magvit_jax, numpy to numpy."""
  params = jax.device_put(params)

  def program(method):
    run = jax.jit(lambda p, x: module.apply({"params": p}, x, method=method))
    return lambda x: np.asarray(run(params, x))

  return {"encode": program(module.encode), "decode": program(module.decode)}


class Net:
  """The same network in torch: [b c t h w], weights from our tree."""

  def __init__(
    self,
    module: causal3d.Backbone,
    params: dict,
    memory: torch.memory_format,
  ):
    self.c, self.memory = module, memory
    self.params = jax.tree.map(self._weight, params)

  def _weight(self, x: np.ndarray) -> Tensor:
    """Kernels as torch has them: [o c kt kh kw] and [o c]."""
    x = torch.from_numpy(np.array(x))
    if x.ndim == 5:
      return x.permute(4, 3, 0, 1, 2).contiguous(memory_format=self.memory)
    return x.T.contiguous() if x.ndim == 2 else x

  def calls(self) -> dict[str, Callable]:
    """encode and decode, numpy [b t h w c] to numpy."""

    def program(run):
      def call(x):
        x = torch.from_numpy(np.asarray(x)).permute(0, 4, 1, 2, 3)
        with torch.inference_mode():
          y = run(x.contiguous(memory_format=self.memory))
        return y.permute(0, 2, 3, 4, 1).numpy()

      return call

    return {"encode": program(self.encode), "decode": program(self.decode)}

  def encode(self, x: Tensor) -> Tensor:
    """Video -> latents."""
    c, p = self.c, self.params["encoder"]
    x = conv(x, p["stem"])
    for level in range(len(c.multipliers)):
      x = self._blocks(x, p, f"level{level}", c.blocks)
      if level < len(c.strides):
        x = conv(x, p[f"level{level}_down"], c.strides[level])
    x = self._blocks(x, p, "middle", c.middle)
    x = F.silu(group_norm(x, p["FrameGroupNorm_0"]), inplace=True)
    x = F.linear(x.movedim(1, -1), p["head"]["kernel"], p["head"]["bias"])
    return x.movedim(-1, 1)

  def decode(self, codes: Tensor) -> Tensor:
    """Latents -> video."""
    c, p = self.c, self.params["decoder"]
    x = self._blocks(conv(codes, p["stem"]), p, "middle", c.middle)
    frames = 1
    for level in reversed(range(len(c.multipliers))):
      x = adaptive_norm(x, codes, p[f"level{level}_adapt"], frames)
      x = self._blocks(x, p, f"level{level}", c.blocks)
      if level:
        stride = c.strides[level - 1]
        x = conv(x, p[f"level{level}_up"]["conv"])
        x = depth_to_space(x, stride)[:, :, stride[0] - 1 :]
        x = x.contiguous(memory_format=self.memory)
        frames *= stride[0]
    x = F.silu(group_norm(x, p["FrameGroupNorm_0"]), inplace=True)
    return conv(x, p["head"]["conv"])

  def _blocks(self, x: Tensor, p: dict, name: str, count: int) -> Tensor:
    for i in range(count):
      x = block(x, p[f"{name}_block{i}"])
    return x


def conv(x: Tensor, p: dict, stride: tuple[int, int, int] = (1, 1, 1)):
  """Causal convolution: zeros before the first frame, centred in space."""
  kernel = p["kernel"].shape[2:]
  past, rows, columns = (
    k - s for k, s in zip(kernel, (1, *stride[1:]), strict=True)
  )
  if rows % 2 or columns % 2:  # uneven zeros, which conv3d cannot add
    sides = (columns // 2, -(-columns // 2), rows // 2, -(-rows // 2))
    x, inside = F.pad(x, (*sides, past, 0)), (0, 0, 0)
  else:
    x = F.pad(x, (0, 0, 0, 0, past, 0)) if past else x
    inside = (0, rows // 2, columns // 2)
  return F.conv3d(x, p["kernel"], p["bias"], stride, inside)


def as_frames(x: Tensor) -> Tensor:
  """[b c t h w] -> [b*t c h w], a view where channels are last in memory."""
  return x.transpose(1, 2).flatten(0, 1)


def group_norm(x: Tensor, p: dict) -> Tensor:
  """Group norm of each frame."""
  y = F.group_norm(as_frames(x), GROUPS, p["scale"], p["bias"], EPS)
  return y.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)


def adaptive_norm(x: Tensor, codes: Tensor, p: dict, frames: int) -> Tensor:
  """Group norm led by the codes of the same frame; see nn/group_norm.py."""
  mean = codes.mean((3, 4))
  spread = codes.var((3, 4), unbiased=False)
  parts = []
  for name, of in (("scale", torch.sqrt(spread + EPS)), ("shift", mean)):
    part = F.linear(of.mT, p[name]["kernel"], p[name]["bias"]).mT
    part = part.repeat_interleave(frames, 2)[:, :, -x.shape[2] :]
    parts.append(part[..., None, None])
  plain = dict(scale=None, bias=None)
  return group_norm(x, plain) * (1 + parts[0]) + parts[1]


def block(x: Tensor, p: dict) -> Tensor:
  """Norm, swish, convolution, twice, and a shortcut."""
  h = F.silu(group_norm(x, p["FrameGroupNorm_0"]), inplace=True)
  h = conv(h, p["CausalConv_0"])
  h = F.silu(group_norm(h, p["FrameGroupNorm_1"]), inplace=True)
  h = conv(h, p["CausalConv_1"])
  if "CausalConv_2" in p:
    x = conv(x, p["CausalConv_2"])
  return h.add_(x)


def depth_to_space(x: Tensor, size: tuple[int, int, int]) -> Tensor:
  """[b pt*ph*pw*c T H W] -> [b c T*pt H*ph W*pw]."""
  b, _, t, h, w = x.shape
  pt, ph, pw = size
  x = x.permute(0, 2, 3, 4, 1).reshape(b, t, h, w, pt, ph, pw, -1)
  x = x.permute(0, 1, 4, 2, 5, 3, 6, 7)
  return x.reshape(b, t * pt, h * ph, w * pw, -1).permute(0, 4, 1, 2, 3)


if __name__ == "__main__":
  sys.exit(main())
