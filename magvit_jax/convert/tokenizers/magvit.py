"""MAGVIT's 3D-VQ in the Flax layout of google-research/magvit.

Its weights were never released (its issue 16), so there is no public file; this
is for those who train with the official code. --input is a `checkpoint_N` that
it writes (or a .msgpack, .npz or .safetensors of the same flat names), of which
the moving average is taken, else the raw weights.

The official code feeds pixels in [0,1], so these tokenizers have
pixels='unit'. One of ours with pixels='signed' is for official code with
dataset_configs.zero_centering=True.

Only tokenizers are converted: neither discriminators nor the optimizer, and not
the BERT of the second stage, whose checkpoints were not released either.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from magvit_jax import tokenizers, tree_utils
from magvit_jax.convert import renaming
from magvit_jax.convert.renaming import Change, TwoWays
from magvit_jax.convert.tokenizers import Model, check_stage

FILES = {}
# Where the weights lie in a checkpoint, best first: the last is of old ones.
PLACES = ("ema_params/", "g_params/", "g_optimizer/target/")
BLOCK = {
  "ClipGroupNorm_0": "GroupNorm_0",
  "Conv_0": "Conv_0",
  "ClipGroupNorm_1": "GroupNorm_1",
  "Conv_1": "Conv_1",
  "shortcut": "Conv_2",
}
HEAD = "backbone/encoder/head/kernel"  # a matrix here, a kernel of 1x1x1 there
FIXED = {
  "backbone": dict(name="cnn3d", kernel=(3, 3, 3)),
  "quantizer": dict(name="vq", learn="gradient", code_dim=0, cosine=False),
}
point = Change(lambda k: k[0, 0, 0], lambda k: k[None, None, None])


def _model(width: int, size: int) -> Model:
  """A published net of clips of size x size pixels."""
  deep = size == 128
  strides = ((2, 2, 2), (2, 2, 2), (1, 2, 2))
  backbone = dict(
    name="cnn3d",
    width=width,
    multipliers=(1, 2, 2, 4) if deep else (1, 2, 4),
    blocks=2,
    strides=strides if deep else strides[:2],
    pixels="unit",
  )
  learnt = dict(learn="gradient", kmeans=0, restart=0.0, temperature=0.01)
  quantizer = dict(name="vq", size=1024, width=256, **learnt)
  return Model(backbone, quantizer, frames=16, size=(size, size))


MODELS = {
  "ucf101_B": _model(64, 128),
  "ucf101_L": _model(128, 128),
  "bair_B": _model(64, 64),
  "bair_L": _model(128, 64),
}


def select(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The tokenizer of a whole training state; other trees stay as they are."""
  for place in PLACES:
    found = {
      name.removeprefix(place): array
      for name, array in state.items()
      if name.startswith(place)
    }
    if found:
      state = found
      break
  return {name.removeprefix("params/"): a for name, a in state.items()}


def convert(
  state: Mapping[str, np.ndarray], stage: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """Arrays of the official tree -> those of cnn3d and vq."""
  ours = tree_utils.named(
    tokenizers.abstract(tokenizers.build_tokenizer(stage))
  )
  return renaming.rename(state, names(ours, stage))


def public(
  arrays: Mapping[str, np.ndarray], stage: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """Arrays of cnn3d and vq -> the official tree.

  What a codebook keeps for restarts and k-means is left out.

  Raises:
    ValueError: a tokenizer that the official code does not have.
  """
  check_stage("magvit", stage, FIXED)
  kept = {k: a for k, a in arrays.items() if "/buffer_" not in k}
  return renaming.rename_back(kept, names(kept, stage))


def names(
  arrays: Mapping[str, Any], stage: Mapping[str, Any]
) -> dict[str, TwoWays]:
  """The official name of each of our arrays, and what happens to its axes."""
  net = tokenizers.build_tokenizer(stage).backbone
  theirs = {"quantizer/embedding": "quantizer/codebook"}
  for part, layers in (("encoder", encoder), ("decoder", decoder)):
    counts: dict[str, int] = {}
    for kind, name in layers(net):
      number = counts.get(kind, 0)
      counts[kind] = number + 1
      theirs[f"backbone/{part}/{name}"] = f"{part}/{kind}_{number}"
  return {
    _official(name, theirs): (name, point if name == HEAD else renaming.same)
    for name in arrays
  }


def _official(name: str, theirs: Mapping[str, str]) -> str:
  """Official name of one of our arrays."""
  if name in theirs:
    return theirs[name]
  *layer, last = name.split("/")
  if "_block" in layer[2]:
    last = f"{BLOCK[layer[3]]}/{last}"
  return f"{theirs['/'.join(layer[:3])]}/{last}"


def encoder(net: Any) -> Iterator[tuple[str, str]]:
  """(official kind, our name) of its layers in the order of their use."""
  yield "Conv", "stem"
  for level in range(len(net.multipliers)):
    yield from _blocks(net, f"level{level}")
  yield from _blocks(net, "middle")
  yield "GroupNorm", "ClipGroupNorm_0"
  yield "Conv", "head"


def decoder(net: Any) -> Iterator[tuple[str, str]]:
  """(official kind, our name) of its layers in the order of their use."""
  yield "Conv", "stem"
  yield from _blocks(net, "middle")
  for level in reversed(range(len(net.multipliers))):
    yield from _blocks(net, f"level{level}")
    if level:
      yield "Conv", f"level{level}_up"
  yield "GroupNorm", "ClipGroupNorm_0"
  yield "Conv", "head"


def _blocks(net: Any, name: str) -> Iterator[tuple[str, str]]:
  for i in range(net.blocks):
    yield "ResBlock", f"{name}_block{i}"
