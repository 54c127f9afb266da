"""Writes tests/golden/cosmos from NVIDIA's Cosmos-Tokenizer.

  git clone https://github.com/NVIDIA/Cosmos-Tokenizer /tmp/cosmos
  pip install '.[parity]' torch einops loguru
  python tests/parity/cosmos.py /tmp/cosmos

Read at commit 3584ae7, torch 2.13. The weights are drawn in the order of the
public names (`drawn`); what the reference returns is kept in nets.npz, and
tests/test_convert_cosmos.py draws the same and converts them. names.json has
the names and shapes of the published nets, tiny.jit is an archive of
TorchScript. Whole encoders and decoders, traced into such archives, are read
back here.
"""

import json
import pathlib
import sys
import tempfile

import numpy as np

from magvit_jax.convert import tokenizer_folder, torchscript
from magvit_jax.convert.tokenizers import cosmos

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "cosmos"
TINY = dict(width=8, multipliers=(2, 2, 4), blocks=1, neck=4)
# Frames, height and width of the clips; these two take every kind of step.
CLIPS = {
  "DV4x8x8": (9, 16, 16),
  "DV8x16x16": (17, 16, 32),
}


def model(name):
  """A narrow net of one of the published kinds."""
  whole = cosmos.MODELS[name]
  return whole._replace(backbone={**whole.backbone, **TINY})


def drawn(source, stage):
  """Arrays by the public names of a net, drawn in the order of these names.

  Kernels are large enough for latents that use many of the levels.
  """
  rng = np.random.default_rng(0)
  out = {}
  for name, leaf in sorted(
    tokenizer_folder.public_shapes(source, stage).items()
  ):
    kernel = len(leaf.shape) > 1
    std = 1.5 * np.prod(leaf.shape[1:]) ** -0.5 if kernel else 0.1
    scale = not kernel and name.endswith("weight")
    out[name] = rng.normal(float(scale), std, leaf.shape).astype(np.float32)
  return out


def clip(name):
  """A video of noise in [-1,1], [1 t h w 3]."""
  shape = (1, *CLIPS[name], 3)
  return np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


def reference(name, tiny):
  """The reference net of a kind, narrow or whole, with what torch gives it."""
  import torch
  from cosmos_tokenizer.networks import TokenizerConfigs, TokenizerModels

  time, space = map(int, name.removeprefix("DV").split("x")[:2])
  config = dict(TokenizerConfigs.DV.value, dtype=torch.float32)
  config |= dict(temporal_compression=time, spatial_compression=space)
  if tiny:
    config |= dict(
      channels=TINY["width"],
      channels_mult=list(TINY["multipliers"]),
      num_res_blocks=TINY["blocks"],
      z_channels=TINY["neck"],
    )
  return TokenizerModels.DV.value(**config).eval()


def check_archives(net, video, state, out):
  """Archives of the encoder and the decoder have the arrays of the net."""
  import torch

  found = {}
  with torch.no_grad(), tempfile.TemporaryDirectory() as scratch:
    encoder, decoder = net.encoder_jit(), net.decoder_jit()
    path = f"{scratch}/half.jit"
    ids = encoder(video)[0]
    for half, x in ((encoder, video), (decoder, ids)):
      torch.jit.save(torch.jit.trace(half, x), path)
      found |= cosmos.select(torchscript.read(path))
    assert found.keys() == state.keys()
    for key, array in state.items():
      np.testing.assert_array_equal(found[key], array)
  small = torch.nn.Sequential()
  small.add_module("post_quant_conv", net.post_quant_conv.to(torch.bfloat16))
  traced = torch.jit.trace(small, torch.zeros(1, 6, 1, 1, 1).bfloat16())
  torch.jit.save(traced, str(out))


def main():
  sys.path.insert(0, sys.argv[1])
  import torch

  GOLDEN.mkdir(exist_ok=True)
  out = {}
  for name in CLIPS:
    state = drawn(cosmos, model(name).config["stage"])
    net = reference(name, tiny=True)
    weights = {k: torch.from_numpy(v.copy()) for k, v in state.items()}
    net.load_state_dict(weights, strict=True)
    video = torch.from_numpy(clip(name).transpose(0, 4, 1, 2, 3).copy())
    with torch.no_grad():
      latents = net.quant_conv(net.encoder(video))
      ids, codes, _ = net.quantizer(latents)
      recon = net.decode(codes)
    print(name, tuple(latents.shape), float(latents.std()), float(recon.std()))
    print(len(ids.unique()), "ids of", ids.numel())
    out[f"{name}/latents"] = latents.numpy().transpose(0, 2, 3, 4, 1)
    out[f"{name}/ids"] = ids.numpy()[..., None]
    out[f"{name}/recon"] = recon.numpy().transpose(0, 2, 3, 4, 1)
    if name == "DV8x16x16":
      check_archives(net, video, state, GOLDEN / "tiny.jit")
  np.savez(GOLDEN / "nets.npz", **out)
  # Nobody reads the weights of the whole nets, and drawing them takes minutes.
  for init in ("kaiming_uniform_", "uniform_"):
    setattr(torch.nn.init, init, lambda x, *args, **kwargs: x)
  shapes = {
    name: {
      key: list(tensor.shape)
      for key, tensor in reference(name, tiny=False).state_dict().items()
    }
    for name in cosmos.STEPS
  }
  assert all(one == shapes["DV4x8x8"] for one in shapes.values())
  (GOLDEN / "names.json").write_text(json.dumps(shapes, indent=0) + "\n")


if __name__ == "__main__":
  main()
