"""Metrics: values against published formulas, sums, padding, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from helpers.errors import error_names
from magvit_jax import registry
from magvit_jax.metrics import box_means

CONTEXT = {"files": 3, "sizes": (8, 5)}
NAMES = registry.names("metrics")


def build(name, **changes):
  fields = registry.arguments(registry.load("metrics", name))
  extra = {k: v for k, v in CONTEXT.items() if k in fields}
  return registry.build("metrics", {"name": name}, **{**extra, **changes})


def arrays(b=6, seed=0):
  rng = np.random.default_rng(seed)
  video = rng.uniform(-1, 1, (b, 5, 16, 16, 3)).astype(np.float32)
  noise = rng.normal(0, 0.1, video.shape).astype(np.float32)
  ids = np.stack(
    [rng.integers(0, size, (b, 2, 4, 4)) for size in CONTEXT["sizes"]], -1
  )
  recon = np.clip(video + noise, -1, 1)
  guess = np.where(rng.random(ids.shape) < 0.5, ids, 0).astype(np.int32)
  nats = rng.uniform(2, 3, b).astype(np.float32)
  return {
    "video": video,
    "recon": recon,
    "ids": ids.astype(np.int32),
    "predicted": recon - noise / 2,
    "repeat": recon + noise / 2,
    "still": video + noise,
    "hidden": np.tile(np.arange(5) > 0, (b, 1)),
    "ids_predicted": guess,
    "ids_repeat": guess[:, [0, 0]],
    "unknown": np.tile(np.array([0, 1], bool)[:, None, None], (b, 1, 4, 4)),
    "nats": nats,
    "nats_unigram": nats * 2,
    "positions": np.arange(1, b + 1, dtype=np.int32),
    "file": np.arange(b, dtype=np.int32) % 3,
    "valid": np.ones(b, bool),
  }


def rows(batch, which):
  return {k: v[which] for k, v in batch.items()}


def values(name, batch, **changes):
  metric = build(name, **changes)
  return metric.result(metric.update(**batch))


def test_every_metric_is_found():
  assert {"psnr", "box_means", "ssim", "codebook_usage", "bits"} <= set(NAMES)
  assert "averages" not in NAMES and "histograms" not in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_whole_is_sum_of_parts(name):
  metric, batch = build(name), arrays()
  whole = metric.update(**batch)
  parts = [
    metric.update(**rows(batch, s)) for s in (slice(0, 2), slice(2, None))
  ]
  total = jax.tree.map(jnp.add, *parts)
  for key in whole:
    np.testing.assert_allclose(total[key], whole[key], rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_padded_rows_do_not_count(name):
  metric, batch = build(name), arrays()
  batch["valid"] = np.array([1, 1, 1, 1, 0, 0], bool)
  for key in ("video", "recon"):
    batch[key][4:] = np.nan
  padded = metric.update(**batch)
  bare = metric.update(**rows(batch, slice(0, 4)))
  for key in bare:
    np.testing.assert_allclose(padded[key], bare[key], rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_jit_equals_eager(name):
  metric, batch = build(name), arrays()
  eager, jitted = metric.update(**batch), jax.jit(metric.update)(**batch)
  for key in eager:
    np.testing.assert_allclose(jitted[key], eager[key], rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_no_clips_is_not_an_error(name):
  batch = arrays()
  batch["valid"][:] = False
  assert all(
    np.isnan(v) or v in (0.0, 1.0) for v in values(name, batch).values()
  )


def test_identical_inputs():
  batch = arrays()
  batch["recon"] = batch["video"]
  assert values("psnr", batch)["psnr"] == pytest.approx(100)
  assert values("ssim", batch)["ssim"] == pytest.approx(1, abs=1e-6)


def test_psnr_is_that_of_pixels_in_0_1():
  batch = rows(arrays(), slice(0, 1))
  a, b = ((batch[k][0].astype(np.float64) + 1) / 2 for k in ("video", "recon"))
  frames = [
    -10 * np.log10(np.mean((x - y) ** 2)) for x, y in zip(a, b, strict=True)
  ]
  assert values("psnr", batch)["psnr"] == pytest.approx(np.mean(frames))


def test_psnr_weights_files_equally():
  """Three clips at 20 dB and one at 40 dB average to 30 over two files."""
  video = np.zeros((4, 2, 4, 4, 3), np.float32)
  error = np.array([0.2, 0.2, 0.2, 0.02], np.float32)  # 0.1 and 0.01 of peak
  batch = {
    "video": video,
    "recon": video + error[:, None, None, None, None],
    "file": np.array([0, 0, 0, 2]),
    "valid": np.ones(4, bool),
  }
  assert values("psnr", batch)["psnr"] == pytest.approx(30, abs=1e-4)


def test_psnr_averages_frames_not_errors():
  video = np.zeros((1, 2, 4, 4, 3), np.float32)
  recon = video + np.array([0.2, 0.02], np.float32)[:, None, None, None]
  batch = {"video": video, "recon": recon}
  batch |= {"file": np.array([0]), "valid": np.array([True])}
  assert values("psnr", batch)["psnr"] == pytest.approx(30, abs=1e-4)


def test_box_means_by_hand():
  rng = np.random.default_rng(1)
  video = rng.uniform(-1, 1, (1, 5, 8, 6, 3)).astype(np.float32)
  means = np.asarray(box_means.box_means(video, (3, 2, 3), causal=True))
  np.testing.assert_allclose(
    means[0, 0, 0, 0], video[0, 0, :4, :2].mean((0, 1)), rtol=1e-5, atol=1e-6
  )
  np.testing.assert_allclose(
    means[0, 4, 5, 5], video[0, 3:5, 4:, 4:].mean((0, 1, 2)), rtol=1e-5
  )
  whole = np.asarray(box_means.box_means(video[:, :4], (2, 2, 3), causal=False))
  np.testing.assert_allclose(
    whole[0, 1, 0, 0], video[0, :2, :4, :2].mean((0, 1, 2)), rtol=1e-5
  )


def test_box_means_are_a_projection():
  """A video that is constant in its boxes has a perfect floor."""
  batch = arrays()
  batch["video"] = np.asarray(box_means.box_means(batch["video"], (2, 4, 4), 1))
  assert values("box_means", batch)["psnr_box"] > 99


def test_box_means_of_one_image():
  batch = arrays()
  batch["video"], batch["ids"] = batch["video"][:, :1], batch["ids"][:, :1]
  assert values("box_means", batch)["psnr_box"] > 0


@pytest.mark.parametrize("grid", [(3, 4, 4), (2, 5, 4), (1, 4, 4)])
def test_box_means_name_what_does_not_divide(grid):
  batch = arrays(1)
  batch["video"] = batch["video"][:, :4]
  batch["ids"] = np.zeros((1, *grid, 2), np.int32)
  with error_names(ValueError, "metrics/box_means", grid[1]):
    values("box_means", batch)


def scipy_ssim(a, b):
  """Wang et al. 2004, equations 13-16, in float64 with scipy's Gaussian."""

  def blur(x):
    return ndimage.gaussian_filter(x, 1.5, truncate=3.5)[5:-5, 5:-5]

  mu_a, mu_b = blur(a), blur(b)
  var_a, var_b = blur(a * a) - mu_a**2, blur(b * b) - mu_b**2
  cov = blur(a * b) - mu_a * mu_b
  c1, c2 = 0.01**2, 0.03**2
  top = (2 * mu_a * mu_b + c1) * (2 * cov + c2)
  return np.mean(top / ((mu_a**2 + mu_b**2 + c1) * (var_a + var_b + c2)))


def test_ssim_is_the_published_formula():
  batch = rows(arrays(), slice(0, 1))
  a, b = ((batch[k][0].astype(np.float64) + 1) / 2 for k in ("video", "recon"))
  expected = np.mean(
    [scipy_ssim(a[t, ..., c], b[t, ..., c]) for t in range(5) for c in range(3)]
  )
  assert values("ssim", batch)["ssim"] == pytest.approx(expected, abs=1e-5)


def test_ssim_says_that_frames_are_too_small():
  batch = arrays()
  for key in ("video", "recon"):
    batch[key] = batch[key][:, :, :10]
  with error_names(ValueError, "metrics/ssim", "10x16", "11x11"):
    values("ssim", batch)


def test_usage_and_perplexity():
  ids = np.zeros((2, 2, 2, 2, 2), np.int32)
  ids[1, ..., 0] = 3  # factor 0: ids 0 and 3 equally often; factor 1: only 0
  batch = {"ids": ids, "valid": np.ones(2, bool)}
  out = values("codebook_usage", batch)
  assert out["usage"] == pytest.approx((2 / 8 + 1 / 5) / 2)
  assert out["perplexity"] == pytest.approx((2 + 1) / 2)


def test_usage_of_a_big_vocabulary():
  size = 2**18
  ids = np.arange(0, size, 4, dtype=np.int32).reshape(2, 1, 256, 128, 1)
  batch = {"ids": ids, "valid": np.ones(2, bool)}
  out = values("codebook_usage", batch, sizes=(size,))
  assert out["usage"] == 1 / 4
  assert out["perplexity"] == pytest.approx(size / 4)


def test_bits():
  """3x8x8 ids of 2^10 for 9x64x64 pixels are 1920 / 36864 bits per pixel."""
  ids = np.zeros((2, 3, 8, 8, 1), np.int32)
  ids[1] = 7
  batch = {
    "ids": ids,
    "video": np.zeros((2, 9, 64, 64, 3), np.float32),
    "valid": np.ones(2, bool),
  }
  out = values("bits", batch, sizes=(1024,))
  assert out["bits_per_pixel"] == pytest.approx(1920 / 36864)
  assert out["bits_used_per_pixel"] == pytest.approx(192 / 36864)  # one bit


def test_errors_name_the_metric_and_the_cure():
  with error_names(ValueError, "metrics/codebook_usage", "sizes", "()"):
    build("codebook_usage", sizes=())
  with error_names(ValueError, "metrics/psnr", "files", 0):
    build("psnr", files=0)
  batch = arrays()
  batch["recon"] = batch["recon"][:, :4]
  with error_names(
    ValueError, "metrics/psnr", batch["video"].shape, batch["recon"].shape
  ):
    values("psnr", batch)
  with error_names(ValueError, "metrics/bits", 2, "(8,)", 1):
    values("bits", arrays(), sizes=(8,))
