"""The causal nets of configs/magvit.py, rung by rung, are causal and stream.

They have the published levels and strides at a width of 8 with one block per
level: more blocks ('deep') or another discriminator ('blur') are no other
structure.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_contracts as contracts

from magvit_jax.configs import magvit

RUNGS = ("lfq", "updown", "late", "magvit2")
CLIP = 3  # latent frames


def build(rung, image=False):
  """(module, variables) of a net for 128x128 pixels."""
  args = magvit.backbone(rung, "smoke", 128, image) | {"middle": 0}
  args = {key: value for key, value in args.items() if key != "name"}
  return contracts.backbone("causal3d", **args)


# LLVM's optimisation is half of a compilation, and of no use here.
@functools.partial(
  jax.jit,
  static_argnums=(0, 1),
  compiler_options={"xla_backend_optimization_level": 0},
)
def derivatives(module, method, variables, x, lengths):
  """[k …] of the output, when the frames of x from lengths[k] on change."""
  noise = jax.random.normal(jax.random.key(2), x.shape)
  later = jnp.arange(x.shape[1]) >= lengths[:, None]
  along = noise * later[:, None, :, None, None, None]
  run = functools.partial(module.apply, variables, method=method)
  return jax.vmap(jax.linearize(run, x)[1])(along)


@pytest.mark.parametrize("rung", RUNGS)
def test_derivatives_to_later_frames_are_exactly_zero(rung):
  module, variables = build(rung)
  st, sh, sw = module.stride
  latents = np.arange(1, CLIP)
  frames = 1 + (latents - 1) * st
  for method, shape, before, after in [
    ("encode", (1 + (CLIP - 1) * st, 2 * sh, 2 * sw, 3), frames, latents),
    ("decode", (CLIP, 2, 2, 4), latents, frames),
  ]:
    x = jax.random.normal(jax.random.key(1), (1, *shape))
    changes = derivatives(module, method, variables, x, before)
    for change, seen in zip(np.asarray(changes), after, strict=True):
      assert not change[:, :seen].any()
      assert np.abs(change[:, seen:]).max((0, 2, 3, 4)).min() > 0


# 'magvit2' has the layers and strides of 'late', led by the codes.
@pytest.mark.parametrize("rung", sorted({*RUNGS} - {"late"}))
def test_an_image_and_each_frame_after_it_give_what_the_whole_gives(rung):
  contracts.check_chunks(*build(rung), [(1,) * CLIP])


def test_the_net_of_images_codes_each_frame_alone():
  module, variables = build("magvit2", image=True)
  x = jax.random.normal(jax.random.key(1), (1, 3, 16, 16, 3))
  for method in (module.encode, module.decode):
    run = contracts.compiled(module, method)
    whole = run(variables, x)
    alone = jnp.swapaxes(run(variables, jnp.swapaxes(x, 0, 1)), 0, 1)
    atol = 1e-5 * float(jnp.std(whole))
    np.testing.assert_allclose(alone, whole, atol=atol)
    x = whole
