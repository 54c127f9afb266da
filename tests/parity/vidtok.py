"""Writes tests/golden/vidtok from Microsoft's VidTok.

  git clone https://github.com/microsoft/VidTok /tmp/vidtok
  pip install '.[parity]' torch einops
  PYTHONPATH=tests python -m parity.vidtok /tmp/vidtok

Read at commit d6ad92d, torch 2.13. What it imports for training alone is left
out. As in cosmos.py, whose weights are drawn the same way: nets.npz is what the
reference returns, names.json has the names and shapes of the published nets.
"""

import json
import pathlib
import sys
import types
import typing

import numpy as np
from parity.cosmos import drawn

from magvit_jax.convert.tokenizers import vidtok

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "vidtok"
TINY = dict(width=8, blocks=1)
# Frames, height and width of the clip of a net of each depth.
CLIPS = {
  "fsq_causal_488_32768": (9, 16, 24),
  "fsq_causal_41616_262144": (9, 16, 32),
}


def model(name):
  """A narrow net of one of the published kinds."""
  whole = vidtok.MODELS[name]
  return whole._replace(backbone={**whole.backbone, **TINY})


def clip(name):
  """A video of noise in [-1,1], [1 t h w 3]."""
  shape = (1, *CLIPS[name], 3)
  return np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


def without_training():
  """Stands in for packages that the nets do not use."""
  for name in ("rich", "lightning", "lightning.pytorch", "beartype"):
    sys.modules[name] = types.ModuleType(name)
  sys.modules["rich"].print = print
  sys.modules["beartype"].beartype = lambda f: f
  sys.modules["beartype.typing"] = typing
  rank = types.ModuleType("lightning.pytorch.utilities.rank_zero")
  rank.rank_zero_only = lambda f: f
  sys.modules["lightning.pytorch.utilities"] = types.ModuleType("utilities")
  sys.modules[rank.__name__] = rank


def reference(stage):
  """The reference net of a stage."""
  import torch
  from vidtok.modules import model_3dcausal, regularizers

  backbone, levels = stage["backbone"], stage["quantizer"]["levels"]
  args = dict(
    double_z=False,
    z_channels=len(levels),
    in_channels=3,
    out_ch=3,
    ch=backbone.get("width", 128),
    ch_mult=list(backbone.get("multipliers", (1, 2, 4, 4))),
    time_downsample_factor=4,
    num_res_blocks=backbone.get("blocks", 2),
    init_pad_mode="replicate",
    norm_type="layernorm",
  )
  net = torch.nn.Module()
  net.encoder = model_3dcausal.EncoderCausal3DPadding(**args)
  net.decoder = model_3dcausal.DecoderCausal3DPadding(**args)
  net.regularization = regularizers.FSQRegularizer(levels=list(levels))
  return net.eval()


def main():
  sys.path.insert(0, sys.argv[1])
  without_training()
  import torch

  GOLDEN.mkdir(exist_ok=True)
  out = {}
  for name in CLIPS:
    stage = model(name).config["stage"]
    net = reference(stage)
    state = drawn(vidtok, stage)
    weights = {k: torch.from_numpy(v) for k, v in state.items()}
    net.load_state_dict(weights, strict=True)
    video = torch.from_numpy(clip(name).transpose(0, 4, 1, 2, 3).copy())
    with torch.no_grad():
      latents = net.encoder(video)
      codes, found = net.regularization(latents)
      recon = net.decoder(codes)
    ids = found["indices"]
    print(name, tuple(latents.shape), float(latents.std()), float(recon.std()))
    print(len(ids.unique()), "ids of", ids.numel())
    out[f"{name}/latents"] = latents.numpy().transpose(0, 2, 3, 4, 1)
    out[f"{name}/ids"] = ids.numpy()[..., None]
    out[f"{name}/recon"] = recon.numpy().transpose(0, 2, 3, 4, 1)
  np.savez(GOLDEN / "nets.npz", **out)
  # Nobody reads the weights of the whole nets, and drawing them takes minutes.
  for init in ("kaiming_uniform_", "uniform_"):
    setattr(torch.nn.init, init, lambda x, *args, **kwargs: x)
  shapes = {
    name: {
      key: list(tensor.shape)
      for key, tensor in reference(model.config["stage"]).state_dict().items()
    }
    for name, model in vidtok.MODELS.items()
    if name in CLIPS
  }
  (GOLDEN / "names.json").write_text(json.dumps(shapes, indent=0) + "\n")


if __name__ == "__main__":
  main()
