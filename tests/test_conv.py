"""Causal convolutions against lax's own, and the chunks they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from helpers.errors import error_names
from magvit_jax.nn import conv, conv_frames, norm, resample, target_platform
from magvit_jax.tokenizers import causal3d

NAMES = ("NDHWC", "DHWIO", "NDHWC")


def random(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("size", [(1, 2, 2), (2, 4, 3), (4, 2, 1)])
def test_patches_times_a_matrix_are_the_strided_convolution(size):
  x = random(0, 2, *(2 * s for s in size), 3)
  kernel = random(1, *size, 3, 5)
  want = lax.conv_general_dilated(
    x, kernel, size, "VALID", dimension_numbers=NAMES
  )
  np.testing.assert_allclose(conv.conv3d(x, kernel, size), want, atol=1e-5)
  np.testing.assert_array_equal(
    resample.depth_to_space(conv.patches(x, size), size), x
  )


FRAMES = [  # frames, channels in, strides, zeros around rows and columns
  (6, conv_frames.FEW, (1, 1, 1), (1, 1), (1, 1)),
  (6, 24, (1, 1, 1), (1, 1), (0, 1)),
  (5, 24, (1, 1, 1), (0, 0), (1, 1)),
  (3, 24, (1, 2, 2), (0, 1), (0, 1)),
  (6, 24, (2, 1, 2), (1, 1), (0, 1)),
]


@pytest.mark.parametrize("t, c, strides, rows, columns", FRAMES)
def test_frames_on_cpu_are_the_convolution(t, c, strides, rows, columns):
  x, kernel = random(0, 2, t, 7, 8, c), random(1, 3, 3, 3, c, 8) / 20
  around = (rows, columns)

  def judged(convolve):
    loss = jax.value_and_grad(lambda x, k: jnp.sum(convolve(x, k) ** 3), (0, 1))
    return jax.jit(loss)(x, kernel)

  value, grads = judged(
    lambda x, k: conv_frames.convolve(x, k, strides, *around)
  )
  want, wants = judged(
    lambda x, k: lax.conv_general_dilated(
      x, k, strides, ((0, 0), *around), dimension_numbers=NAMES
    )
  )
  np.testing.assert_allclose(value, want, rtol=1e-4, atol=1e-2)
  for grad, want in zip(grads, wants, strict=True):
    np.testing.assert_allclose(grad, want, rtol=1e-4, atol=2e-4)


def test_frames_on_cpu_see_their_own_three_exactly():
  x, kernel = random(0, 1, 7, 6, 6, 24), random(1, 3, 3, 3, 24, 8)
  around = (1, 1), (1, 1)
  run = jax.jit(lambda x: conv_frames.convolve(x, kernel, (1, 1, 1), *around))
  want = run(x)
  for frame in range(7):
    got = run(x.at[:, frame].set(jnp.inf))
    blind = [j for j in range(5) if not j <= frame <= j + 2]
    np.testing.assert_array_equal(got[:, blind], want[:, blind])


def dimensions(platform, dtype, size):
  """Dimensions of the convolutions that conv3d makes of frames of a size."""
  x = jax.ShapeDtypeStruct((1, 5, size, size, 32), dtype)
  kernel = jax.ShapeDtypeStruct((3, 3, 3, 32, 32), dtype)
  pads = (1, 1), (1, 1)
  program = jax.make_jaxpr(lambda x, k: conv.conv3d(x, k, (1, 1, 1), *pads))
  with target_platform.tracing_for(platform):
    eqns = program(x, kernel).eqns
  return {
    e.outvars[0].aval.ndim - 2
    for e in eqns
    if e.primitive.name == "conv_general_dilated"
  }


@pytest.mark.parametrize(
  "platform, dtype, size, want",
  [
    ("cpu", "float32", 64, {2}),
    ("cpu", "float32", 32, {3}),
    ("cpu", "bfloat16", 64, {3}),
    ("tpu", "float32", 64, {3}),
    ("gpu", "float32", 64, {3}),
  ],
)
def test_only_large_float32_frames_on_cpu_go_one_by_one(
  platform, dtype, size, want
):
  assert dimensions(platform, dtype, size) == want


def test_depthwise_is_the_grouped_convolution():
  x, plane, line = random(0, 2, 5, 6, 7, 4), random(1, 3, 3, 4), random(2, 2, 4)
  kernel = (line[:, None, None] * plane)[..., None, :]
  want = lax.conv_general_dilated(
    x,
    kernel,
    (1, 1, 1),
    "VALID",
    dimension_numbers=NAMES,
    feature_group_count=4,
  )
  np.testing.assert_allclose(conv.depthwise3d(x, plane, line), want, atol=1e-5)


@pytest.mark.parametrize("pad", conv.PADS)
def test_a_causal_convolution_is_lax_on_frames_put_before(pad):
  module = conv.CausalConv(4, (3, 3, 4), (2, 1, 2), pad=pad)
  x = random(0, 1, 5, 4, 6, 2)
  params = module.init(jax.random.key(1), x)
  past = jnp.repeat(x[:, :1], 2, 1) * (pad == "replicate")
  want = lax.conv_general_dilated(
    jnp.concatenate([past, x], 1),
    params["params"]["kernel"],
    (2, 1, 2),
    [(0, 0), (1, 1), (1, 1)],
    dimension_numbers=NAMES,
  )
  got, carry = module.apply(params, x)
  np.testing.assert_allclose(got, want, atol=1e-5)
  np.testing.assert_array_equal(carry, x[:, -1:])


def test_the_first_frame_comes_up_once_and_the_others_stride_times():
  module = resample.CausalUpsample(3, (4, 2, 2))
  x = random(0, 1, 3, 2, 2, 5)
  params = module.init(jax.random.key(1), x)
  first, carry = module.apply(params, x[:, :1])
  rest, _ = module.apply(params, x[:, 1:], carry)
  assert first.shape == (1, 1, 4, 4, 3) and rest.shape == (1, 8, 4, 4, 3)


@pytest.mark.parametrize("name", norm.NORMS)
def test_norms_see_one_frame(name):
  x = random(0, 1, 3, 4, 4, 8)
  module = norm.make(name)
  params = module.init(jax.random.key(1), x)
  changed = x.at[:, 1].multiply(100.0)
  got, want = module.apply(params, changed), module.apply(params, x)
  np.testing.assert_array_equal(got[:, [0, 2]], want[:, [0, 2]])
  np.testing.assert_allclose(got.mean((2, 3, 4)), 0, atol=1e-5)


@pytest.mark.parametrize(
  "frames, start, named",
  [
    (4, True, [4, 2]),
    (3, False, [3, 2]),
  ],
)
def test_a_chunk_of_a_wrong_length_is_refused(frames, start, named):
  x = jnp.zeros((1, frames, 2, 2, 1))
  carry = None if start else jnp.zeros((1, 1, 2, 2, 1))
  with error_names(ValueError, *named):
    conv.with_past(x, carry, 2, 2, "zero")


@pytest.mark.parametrize(
  "make, named",
  [
    (
      lambda: conv.CausalConv(4, (3, 3, 3), (4, 1, 1)),
      ["CausalConv", "(3, 3, 3)", "(4, 1, 1)"],
    ),
    (lambda: conv.CausalConv(4, pad="reflect"), ["pad", "reflect"]),
    (lambda: norm.make("batch"), ["norm", "batch", "frame_group"]),
    (
      lambda: causal3d.Backbone(4, strides=((2, 2, 2),)),
      ["causal3d", 4, 3, "((2, 2, 2),)"],
    ),
    (lambda: causal3d.Backbone(4, block="conv"), ["block", "conv"]),
  ],
)
def test_wrong_arguments_are_refused_when_built(make, named):
  with error_names(ValueError, *named):
    make()


@pytest.mark.parametrize(
  "size, named",
  [
    ((16, 128, 128), [16, 4, 13, 17]),
    ((0, 128, 128), [0, 4, 1, 5]),
    ((17, 130, 128), ["130x128", "8x8", "136x128"]),
  ],
)
def test_sizes_that_do_not_divide_are_told_the_next_that_do(size, named):
  backbone = causal3d.Backbone(18)
  assert backbone.latent_shape(17, 128, 128) == (5, 16, 16, 18)
  with error_names(ValueError, *named):
    backbone.latent_shape(*size)
