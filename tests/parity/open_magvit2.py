"""Writes tests/golden/open_magvit2/video.npz from the modules of SEED-Voken.

  git clone https://github.com/TencentARC/SEED-Voken /tmp/seed_voken
  pip install '.[parity]' && python tests/parity/open_magvit2.py /tmp/seed_voken

Its encoder, LFQ and decoder are run on weights that `drawn` makes from their
names and shapes; tests/test_convert_open_magvit2.py draws the same. `full` are
the names and shapes of the published net, of which no array is made.
"""

import json
import pathlib
import sys

import numpy as np

GOLDEN = pathlib.Path(__file__).parents[1] / "golden/open_magvit2/video.npz"
BITS = 6
NET = dict(ch=32, ch_mult=(1, 2, 2), num_res_blocks=1, z_channels=BITS)
FULL = dict(ch=128, ch_mult=(1, 2, 2, 4), num_res_blocks=4, z_channels=18)
VIDEO = (2, 5, 16, 16, 3)


def clip(shape):
  """A video of noise in [-1,1]."""
  return np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


def drawn(shapes):
  """Arrays by public names: kernels of the size that keeps activations."""
  rng = np.random.default_rng(0)
  out = {}
  for name, shape in sorted(shapes.items()):
    scale = 0.1 if len(shape) == 1 else np.prod(shape[1:]) ** -0.5
    mean = float("norm" in name and name.endswith("weight"))
    out[name] = rng.normal(mean, scale, shape).astype(np.float32)
  return out


def main():
  import torch

  sys.path.insert(0, sys.argv[1])
  from src.Open_MAGVIT2.modules.diffusionmodules import improved_video_model
  from src.Open_MAGVIT2.modules.vqvae.lookup_free_quantize import LFQ

  def net(device, **args):
    args |= dict(in_channels=3, out_ch=3, resolution=args["ch"])
    with torch.device(device):
      encoder = improved_video_model.Encoder(**args)
      decoder = improved_video_model.Decoder(**args)
    return torch.nn.ModuleDict(dict(encoder=encoder, decoder=decoder)).eval()

  def shapes(module):
    return {k: tuple(v.shape) for k, v in module.state_dict().items()}

  torch.set_num_threads(1)
  tiny = net("cpu", **NET)
  weights = drawn(shapes(tiny))
  tiny.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
  lfq = LFQ(dim=BITS, codebook_size=2**BITS).eval()
  video = torch.from_numpy(clip(VIDEO)).permute(0, 4, 1, 2, 3)
  with torch.no_grad():
    latents = tiny["encoder"](video)
    (codes, _, ids), _ = lfq(latents, return_loss_breakdown=True)
    recon = tiny["decoder"](codes)
  last = (0, 2, 3, 4, 1)
  GOLDEN.parent.mkdir(exist_ok=True)
  np.savez_compressed(
    GOLDEN,
    latents=latents.permute(last).numpy(),
    ids=ids.reshape(latents.shape[:1] + latents.shape[2:]).numpy(),
    recon=recon.permute(last).numpy(),
    tiny=json.dumps(shapes(tiny)),
    full=json.dumps(shapes(net("meta", **FULL))),
  )


if __name__ == "__main__":
  main()
