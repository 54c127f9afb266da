"""causal3d with what MAGVIT-v2 changed in MAGVIT, one argument at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_contracts as contracts

from helpers.errors import error_names
from magvit_jax.configs import magvit
from magvit_jax.nn import group_norm, resample
from magvit_jax.tokenizers import causal3d

OTHERS = dict(down="average", up="nearest", adaptive=True, middle=1)


def test_layers_that_the_contracts_leave_out_are_causal_and_stream():
  module, variables = contracts.backbone("causal3d", **OTHERS)
  contracts.check_causality(module, variables)
  contracts.check_chunks(module, variables, [(1, 2)])


def test_each_rung_changes_what_it_says_and_keeps_the_grid():
  nets = [
    magvit.backbone(rung, "L", 128, image=False) for rung in magvit.RUNGS[1:]
  ]
  changed = [
    {key for key in after if after[key] != before[key]}
    for before, after in zip(nets, nets[1:], strict=False)
  ]
  assert changed == [
    {"down", "up"},
    {"strides"},
    {"blocks", "middle"},
    set(),  # of the discriminator
    {"adaptive"},
  ]
  for net in nets:
    args = {key: value for key, value in net.items() if key != "name"}
    shape = causal3d.Backbone(18, **args).latent_shape(17, 128, 128)
    assert shape == (5, 16, 16, 18)


def test_the_full_net_has_the_blocks_and_norms_of_the_paper():
  net = magvit.backbone("magvit2", "L", 128, image=False)
  args = {key: value for key, value in net.items() if key != "name"}
  module = causal3d.Backbone(18, **args)
  video = jax.ShapeDtypeStruct((1, 17, 128, 128, 3), np.float32)
  params = jax.eval_shape(
    lambda k, v: module.init(k, v, method=contracts.both),
    jax.random.key(0),
    video,
  )["params"]
  for side in ("encoder", "decoder"):
    assert sum("block" in name for name in params[side]) == 4 * 4 + 4
  widths = {
    name: layer["scale"]["kernel"].shape
    for name, layer in params["decoder"].items()
    if name.endswith("adapt")
  }
  assert widths == {
    f"level{i}_adapt": (18, width)
    for i, width in enumerate((128, 256, 256, 512))
  } | {
    "level2_adapt": (18, 512),
    "level1_adapt": (18, 256),
    "level0_adapt": (18, 256),
  }


def test_a_causal_mean_leaves_the_first_frame_alone_and_nearest_undoes_it():
  x = jnp.arange(5.0).reshape(1, 5, 1, 1, 1)
  mean, _ = resample.CausalAverage((2, 1, 1)).apply({}, x)
  np.testing.assert_array_equal(mean.ravel(), [0.0, 1.5, 3.5])
  up = resample.CausalNearest(1, (2, 1, 1), kernel=(1, 1, 1))
  one = {
    "params": {
      "conv": {"kernel": jnp.ones((1, 1, 1, 1, 1)), "bias": jnp.zeros(1)}
    }
  }
  back, _ = up.apply(one, mean)
  np.testing.assert_array_equal(back.ravel(), [0.0, 1.5, 1.5, 3.5, 3.5])


def test_an_adaptive_norm_takes_scale_and_shift_from_the_codes_of_a_frame():
  norm = group_norm.AdaptiveNorm(frames=2)
  x = jax.random.normal(jax.random.key(0), (1, 3, 4, 4, 8))
  codes = jnp.ones((1, 2, 2, 2, 1)).at[:, 1, 0].set(-1.0)
  codes *= jnp.array([1.0, 2.0])[:, None, None, None]
  ones, zeros = jnp.ones((1, 8)), jnp.zeros(8)
  dense = {"kernel": ones, "bias": zeros}
  y = norm.apply({"params": {"scale": dense, "shift": dense}}, x, codes)
  mean, std = y.mean((2, 3)), y.std((2, 3))
  # Frame 0 has the constant code 1; frames 1 and 2 have a code of -2 and 2.
  np.testing.assert_allclose(mean[0, :, 0], [1.0, 0.0, 0.0], atol=1e-3)
  np.testing.assert_allclose(std[0, :, 0], [1.0, 3.0, 3.0], atol=5e-3)


@pytest.mark.parametrize(
  "args, named",
  [
    (dict(down="pool"), ["down", "pool"]),
    (dict(up="conv"), ["up", "conv"]),
    (dict(kernel=(1, 3, 3)), ["kernel", "(1, 3, 3)", "[(2, 2, 2), (2, 2, 2)]"]),
  ],
)
def test_arguments_that_do_not_fit_are_refused(args, named):
  with error_names(ValueError, *named):
    causal3d.Backbone(18, **args)


def test_a_later_chunk_that_breaks_the_stride_is_told_how_long_chunks_are():
  module = causal3d.Backbone(**causal3d.TINY)
  with error_names(ValueError, "causal3d", 3, 2):
    module.encode_chunk((), jnp.zeros((1, 3, 4, 4, 3)))
