"""Image tokenizers of ImageNet at 128 pixels: what the video nets start from.

  python -m magvit_jax train --config=tokenizer/imagenet:B --workdir=runs/in \\
    --config.data.root=/data/imagenet/train

Data: a folder of images, one subfolder per class. An image is a clip of one
frame; 128x128 pixels become 16x16 ids of 10 bits (MAGVIT's 2D-VQ) or 18
(MAGVIT-v2). The nets are those of video with kernels of 1x3x3, and a video run
of the same size and model begins with their weights by
--config.init_from=runs/in and --config.inflate=central (MAGVIT, from
imagenet:model=magvit) or last (from imagenet:model=magvit2).

Hardware: 270 epochs of 1,281,167 images, as MAGVIT-v2 is published, in batches
of 128 (B) or 256 (L); how long MAGVIT's image net was trained was not seen. Not
run by us. Published: rFID 1.15 at 128 pixels, and 2.65 before the changes of
MAGVIT-v2 (arXiv 2310.05737). With a perceptual loss, which needs weights of
yours.

Arguments: `size=B|L|smoke`, `model=magvit|magvit2`,
`perceptual=none|resnet50|lpips` (configs/magvit.py).
"""

from magvit_jax.configs import common, magvit


def get_config(arg: str | None = None) -> common.ConfigDict:
  """Config of an image tokenizer of ImageNet."""
  choice = common.parse_arg(
    arg,
    size=magvit.SIZES,
    model=("magvit", "magvit2"),
    perceptual=magvit.PERCEPTUAL,
  )
  epochs = {"B": 270, "L": 270}
  return magvit.config(
    choice, pixels=128, clips=1_281_167, epochs=epochs, flip=True, image=True
  )
