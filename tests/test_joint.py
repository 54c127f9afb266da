"""Images beside clips: one stream, checked, resumable, trained on together."""

import contextlib
import shutil

import numpy as np
import pytest
import test_loop_tokenizer

from helpers import toy_training
from helpers.errors import error_names
from magvit_jax import tokenizers
from magvit_jax.data import joint, moving_digits, pipeline
from magvit_jax.data.joint import Images
from magvit_jax.training import loop

DIGITS = dict(name="moving_digits", size=(16, 16))
SETTINGS = dict(seed=5, batch=4, loader=dict(threads=0, prefetch=1))


def take(start=0, share=(0, 1), images=True, source=None, **changes):
  """A batch of 4 clips of digits and 2 images, or a process's share of it."""
  one = source or moving_digits.Source("train", frames=1, size=(16, 16))
  stream = joint.train_batches(
    moving_digits.Source("train", frames=5, size=(16, 16)),
    Images(one, 2) if images else None,
    start=start,
    rows=lambda count: slice(*(int(part * count) for part in share)),
    **{**SETTINGS, **changes},
  )
  with contextlib.closing(stream):
    return next(stream)


def test_a_batch_is_that_without_images_and_the_images():
  batch, clips = take(), take(images=False)
  image = batch.pop("image")
  assert image.shape == (2, 1, 16, 16, 3) and image.dtype == np.float32
  assert -1 <= image.min() < image.max() <= 1
  assert batch.pop("skipped").sum() == clips.pop("skipped").sum() == 0
  assert batch.keys() == clips.keys()
  for name in batch.keys() - {"bad"}:
    np.testing.assert_array_equal(batch[name], clips[name])


def test_images_are_a_function_of_seed_and_step_and_not_frames_of_the_clips():
  first, again, later = take(3), take(3), take(4)
  np.testing.assert_array_equal(first["image"], again["image"])
  assert np.any(first["image"] != later["image"])
  assert np.any(first["image"] != take(3, seed=6)["image"])
  moments = first["video"][:2, :1]
  assert np.all(np.any(first["image"] != moments, axis=(1, 2, 3, 4)))


def test_each_process_has_its_rows_of_both():
  whole = take(2)
  halves = [take(2, share) for share in ((0, 0.5), (0.5, 1))]
  for name in ("video", "image"):
    parts = np.concatenate([half[name] for half in halves])
    np.testing.assert_array_equal(parts, whole[name])


class Broken(moving_digits.Source):
  """Every second image cannot be read."""

  def clip(self, i, rng):
    if i % 2:
      raise OSError(f"{i}.png cannot be read")
    return super().clip(i, rng)


def test_unreadable_images_are_replaced_and_counted():
  source = Broken("train", frames=1, size=(16, 16), on_corrupt="replace")
  batches = [take(step, source=source) for step in range(4)]
  assert sum(b["skipped"].sum() for b in batches) == sum(
    len(b["bad"]) for b in batches
  )
  assert any(".png" in bad for b in batches for bad in b["bad"])
  assert "skipped" not in pipeline.arrays(batches[0])


class Floats(moving_digits.Source):
  """Pixels that are not uint8, and so could be NaN."""

  def clip(self, i, rng):
    clip = super().clip(i, rng)
    return {**clip, "video": clip["video"] * np.float32("nan")}


def test_pixels_that_could_be_nan_are_refused_by_the_name_of_the_clip():
  source = Floats("train", frames=1, size=(16, 16))
  with error_names(ValueError, "video", "float32", "uint8"):
    take(source=source)


def config(**changes):
  """A small causal tokenizer of digits and of images of them."""
  cfg = test_loop_tokenizer.config(
    discriminator=dict(name="none"),
    backbone=dict(
      name="causal3d",
      patch=(2, 4, 4),
      width=8,
      multipliers=(1,),
      blocks=1,
      strides=(),
      block="mixer",
      norm="position",
    ),
    quantizer=dict(name="fsq", levels=(4, 4, 4)),
    weights=dict(loss_l2=1.0, image_loss_l2=0.5),
    image_discriminator=dict(name="none"),
  )
  cfg.images = dict(batch=4, data=dict(**DIGITS, frames=1))
  cfg.update(changes)
  return cfg


@pytest.mark.parametrize(
  "images, named",
  [
    (
      dict(frames=3),
      [
        "images.data",
        "(3, 16, 16, 3)",
        "(1, 16, 16, 3)",
        "images.data.frames=1",
      ],
    ),
    (dict(size=(32, 16)), ["(1, 32, 16, 3)", "images.data.size=(16, 16)"]),
  ],
)
def test_images_of_another_size_leave_no_workdir(images, named, tmp_path):
  cfg = config()
  cfg.images.data.update(images)
  with error_names(ValueError, *named):
    loop.run(cfg, tmp_path / "w")
  assert not (tmp_path / "w").exists()


def test_a_net_that_cannot_code_one_frame_takes_no_images():
  net = dict(name="cnn3d", width=8, multipliers=(1, 2), strides=((2, 2, 2),))
  quantizer = dict(name="fsq", levels=(4, 4))
  module = tokenizers.build_tokenizer(
    dict(backbone=net, quantizer=quantizer, dtype="float32")
  )
  context = {"latent_shape": module.latent_shape}
  cfg = config()
  with error_names(ValueError, "cnn3d", 1, 2):
    joint.build(cfg, (4, 16, 16, 3), context)
  del cfg.images
  assert joint.build(cfg, (4, 16, 16, 3), context) is None


@pytest.mark.parametrize(
  "change, named",
  [
    (dict(stage=dict(accumulate=3), batch=6), ["stage.accumulate", 3, 4]),
    (dict(mesh=dict(data=1), images=dict(batch=0)), ["images.batch", 0]),
  ],
)
def test_images_are_counted_like_clips(change, named, tmp_path):
  with error_names(ValueError, *named):
    loop.run(config(**change), tmp_path / "w")
  assert not (tmp_path / "w").exists()


def test_a_joint_run_that_goes_on_is_the_whole_run(tmp_path):
  cfg = config(checkpoint=dict(every=2, keep=2))
  whole, again = tmp_path / "whole", tmp_path / "again"
  loop.run(cfg, whole)
  shutil.copytree(whole, again)
  shutil.rmtree(again / "checkpoints" / "4")
  (again / "DONE").unlink()
  loop.run(cfg, again)
  there, here = (
    toy_training.rows(folder, "train") for folder in (whole, again)
  )
  for name in ("loss", "loss_l2", "image_loss_l2", "grad_norm_gen"):
    values = [row[name] for row in there]
    assert values == [row[name] for row in here] and len(set(values)) == 4
