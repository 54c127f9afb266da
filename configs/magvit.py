"""Nets, losses and optimizer of MAGVIT and MAGVIT-v2, for configs/tokenizer.

`model` walks the ablation of MAGVIT-v2 (arXiv 2310.05737) from MAGVIT (arXiv
2212.05199) on; each rung adds one change and keeps those before it:

| model   | adds                                         | rFVD on UCF-101 |
|---------|----------------------------------------------|-----------------|
| magvit  | 3D-VQ: cnn3d, 1024 codes, 16 frames          | 24.55           |
| lfq     | 2^18 lookup-free codes; causal, 17 frames    | 16.12           |
| updown  | strided convolutions and depth to space      | 15.37           |
| late    | time is halved in the last two steps         | 11.11           |
| deep    | 4 blocks per level, not 2                    | 8.90            |
| blur    | 3-D blur pools in the discriminator          | 8.62            |
| magvit2 | decoder norms led by the codes of the frame  | not published   |

The numbers are the paper's, of its large net. The paper's figures for the last
rung are of images (rFID 1.20 to 1.15), and at which rung time became causal is
not known to us; here it is with LFQ.

The losses are the published ones. Their weights are for pixels in [0,1] and
ours in [-1,1], so that of L2 becomes a quarter of theirs and that of R1 four
times it (shown in tests/test_losses.py):

| term            | MAGVIT          | MAGVIT-v2 and the rungs to it       |
|-----------------|-----------------|-------------------------------------|
| loss_l2         | 1 -> 1/4        | 5 -> 5/4                            |
| loss_perceptual | 0.1             | 0.1                                 |
| g_adversarial   | 0.1             | 0.1                                 |
| d_adversarial   | 1               | 1                                   |
| d_r1            | 10 -> 40        | 10 -> 40                            |
| d_lecam         | none            | 0.001                               |
| loss_commitment | 0.25            | 0.25                                |
| loss_codebook   | 1               | none                                |
| loss_entropy    | 0.1 (tau 0.01)  | 0.1 (tau 0.01), 3x at step 0 to 1x  |
|                 |                 | at step 2,000                       |

MAGVIT's column is that of its released configs; its paper lists LeCAM too, with
no weight. The perceptual loss needs weights that are not ours to ship, so it is
off unless asked for: the published recipe is `perceptual=resnet50` (the logits
of ResNet-50) with `--config.stage.perceptual.weights=FILE`, which `convert`
makes from torchvision's. `perceptual=lpips` is what later work uses. The
released code runs with no weights and a loss of zero; here that is an error.

Give each TPU chip 8 clips, or a multiple: of fewer XLA cuts every frame into
strips and copies them around each convolution (benchmarks/RESULTS.md). L keeps
so little for the backward pass (`remat`), and its state in parts (`fsdp`), that
the compiler fits 8 on a v5e, but not 16: its batch of 256 takes 32 chips. On
fewer, `stage.accumulate` makes a step of parts.
"""

from typing import Any

from magvit_jax.configs import common
from magvit_jax.configs.tokenizer import clips as start

SIZES = ("B", "L", "smoke")
PERCEPTUAL = ("none", "resnet50", "lpips")
IMAGES = ("none", "folder")  # beside the clips
RUNGS = ("magvit", "lfq", "updown", "late", "deep", "blur", "magvit2")
WIDTHS = {"B": 64, "L": 128, "smoke": 8}
BATCHES = {"B": 128, "L": 256, "smoke": 2}
REMAT = {"B": "dots", "L": "full", "smoke": "none"}
CAUSAL_REMAT = {**REMAT, "L": "levels"}
MULTIPLIERS = {128: (1, 2, 2, 4), 64: (1, 2, 4)}  # by pixels
STRIDES = {
  "early": {
    128: ((2, 2, 2), (2, 2, 2), (1, 2, 2)),
    64: ((2, 2, 2), (2, 2, 2)),
  },
  "late": {
    128: ((1, 2, 2), (2, 2, 2), (2, 2, 2)),
    64: ((2, 2, 2), (2, 2, 2)),
  },
  "image": {128: ((1, 2, 2),) * 3},
}
CRITICS = {128: (2, 4, 4, 4, 4), 64: (2, 4, 4, 4)}
SMOKE_PIXELS = {128: 32, 64: 16}


def config(
  choice: dict[str, str],
  *,
  pixels: int,
  clips: int,
  epochs: dict[str, int],
  flip: bool,
  image: bool = False,
) -> common.ConfigDict:
  """A tokenizer config of the family, for a folder of videos or images.

  Args:
    choice: `size` of SIZES, `model` of RUNGS, `perceptual` of PERCEPTUAL, and
      perhaps `images` of IMAGES.
    pixels: height and width, 128 or 64.
    clips: training clips of the published run, which give its steps.
    epochs: of the published run by size; smoke needs none.
    flip: whether training clips are mirrored.
    image: of single frames, in 2-D.
  """
  size, model = choice["size"], choice["model"]
  small = size == "smoke"
  cfg = start.get_config("smoke" if small else None)
  stage = cfg.stage
  stage.backbone = backbone(model, size, pixels, image)
  stage.quantizer = quantizer(model, small)
  stage.discriminator = discriminator(model, size, pixels, image)
  stage.weights, stage.ramps = losses(model)
  stage.adversarial = common.adversarial()
  stage.perceptual = perceptual(choice["perceptual"])
  if choice["perceptual"] != "none":
    stage.weights.loss_perceptual = 0.1
  cfg.batch = BATCHES[size]
  epoch = clips // cfg.batch
  cfg.steps = 4 if small else epoch * epochs[size]
  cfg.mesh.data, cfg.mesh.fsdp = (1, -1) if size == "L" else (-1, 1)
  stage.optim.name, stage.optim.lr = "adam", 1e-4
  stage.optim.warmup = 1 if small else epoch
  stage.optim.b1, stage.optim.b2 = 0.0, 0.99
  stage.optim.weight_decay = stage.optim.clip = 0.0
  stage.ema = dict(decay=0.999, warmup=False)
  del cfg.data
  cfg.data = dict(
    name="video_folder",
    root="",
    frames=frames(model, small, image),
    size=(SMOKE_PIXELS[pixels] if small else pixels,) * 2,
    lines=SMOKE_PIXELS[pixels] if small else pixels,
    stride=1,
    fps=0.0,
    holdout=0.1,
    eval_clips=6 if small else 1024,
    flip=flip,
    on_corrupt="replace",
  )
  cfg.eval.metrics.box_means = dict(causal=model != "magvit")
  if not small:
    cfg.eval.every = cfg.checkpoint.every = 1000
    cfg.eval.batch = cfg.batch // 4
  if choice.get("images") == "folder":
    add_images(cfg)
  return cfg


def add_images(cfg: common.ConfigDict) -> None:
  """As many images as clips in a batch, with the same losses.

  They come from a folder of their own, of which a thousandth is held out, and
  are judged by a discriminator of frames. MAGVIT-v2 trains on both; its share
  and weights of images were not seen.
  """
  stage = cfg.stage
  for group in ("weights", "ramps"):
    own = stage[group].to_dict()
    stage[group].update({f"image_{name}": v for name, v in own.items()})
  stage.image_discriminator = stage.discriminator.copy_and_resolve_references()
  stage.image_discriminator.name = "stylegan2d"
  data = {**cfg.data.to_dict(), "frames": 1, "holdout": 0.001}
  cfg.images = dict(batch=cfg.batch, data=data)


def reached(model: str, rung: str) -> bool:
  """Whether a model has the change of a rung."""
  return RUNGS.index(model) >= RUNGS.index(rung)


def frames(model: str, small: bool, image: bool) -> int:
  """Frames of a clip: MAGVIT divides them by 4, causal nets add the first."""
  return 1 if image else (4 if small else 16) + (model != "magvit")


def backbone(model: str, size: str, pixels: int, image: bool) -> dict[str, Any]:
  """The `backbone` group."""
  place = "late" if reached(model, "late") else "early"
  blocks = 4 if reached(model, "deep") else 2
  net = dict(
    width=WIDTHS[size],
    multipliers=MULTIPLIERS[pixels],
    blocks=1 if size == "smoke" else blocks,
    strides=STRIDES["image" if image else place][pixels],
    kernel=(1 if image else 3, 3, 3),
    remat=REMAT[size],
  )
  if model == "magvit":
    return dict(name="cnn3d", **net)
  updown = reached(model, "updown")
  return dict(
    name="causal3d",
    **{**net, "remat": CAUSAL_REMAT[size]},
    middle=net["blocks"],
    down="conv" if updown else "average",
    up="depth" if updown else "nearest",
    adaptive=reached(model, "magvit2"),
  )


def quantizer(model: str, small: bool) -> dict[str, Any]:
  """The `quantizer` group; LFQ's ids are two of 9 bits, as v2 predicts them."""
  if model != "magvit":
    bits = 8 if small else 18
    return dict(name="lfq", bits=bits, factors=2, temperature=0.01)
  size, width = (32, 16) if small else (1024, 256)
  learnt = dict(learn="gradient", kmeans=0, restart=0.0, temperature=0.01)
  return dict(name="vq", size=size, width=width, **learnt)


def discriminator(
  model: str, size: str, pixels: int, image: bool
) -> dict[str, Any]:
  """The `discriminator` group."""
  return dict(
    name="stylegan2d" if image else "stylegan3d",
    width=WIDTHS[size],
    multipliers=(1, 2) if size == "smoke" else CRITICS[pixels],
    pool="blur" if reached(model, "blur") else "average",
    remat=REMAT[size],
  )


def perceptual(name: str) -> dict[str, Any]:
  """The `perceptual` group; its weights are the user's."""
  if name == "none":
    return dict(name=name)
  cfg = dict(name=name, weights="", fingerprint="", frames=1)
  return {**cfg, "origin": "torchvision"} if name == "resnet50" else cfg


def losses(model: str) -> tuple[dict[str, float], dict[str, Any]]:
  """The `weights` and `ramps` groups, without the perceptual loss."""
  gan = dict(g_adversarial=0.1, d_adversarial=1.0, d_r1=10.0 * 4)
  both = dict(loss_commitment=0.25, loss_entropy=0.1, **gan)
  if model == "magvit":
    return dict(loss_l2=1.0 / 4, loss_codebook=1.0, **both), {}
  ramp = dict(name="linear", start=3.0, stop=1.0, steps=2000)
  return dict(loss_l2=5.0 / 4, d_lecam=0.001, **both), dict(loss_entropy=ramp)
