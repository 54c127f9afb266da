"""Inflation: a video tokenizer begins as the image tokenizer it came from."""

import dataclasses

import jax
import ml_collections
import numpy as np
import pytest

from helpers.errors import check_names, error_names
from magvit_jax import tree_utils
from magvit_jax.checkpoints import checkpointer, inflation, init_from
from magvit_jax.discriminators import stylegan2d, stylegan3d
from magvit_jax.stages import TrainState
from magvit_jax.tokenizers import causal3d, cnn3d

NETS = {  # fields of the video net; its patch and strides lose their time
  "published": dict(adaptive=True),
  "mixer": dict(
    block="mixer",
    norm="position",
    patch=(2, 2, 2),
    pad="replicate",
    up="nearest",
  ),
}
WIDTH = dict(latent_dim=3, width=4, multipliers=(1, 2), blocks=1)


def noise(tree, key=0):
  """Weights without zeros, so that every leaf is seen."""
  leaves, treedef = jax.tree.flatten(tree)
  rng = np.random.default_rng(key)
  new = [np.float32(0.4 * rng.standard_normal(x.shape)) for x in leaves]
  return jax.tree.unflatten(treedef, new)


def shapes(module, shape):
  clip = jax.ShapeDtypeStruct(shape, np.float32)
  return jax.eval_shape(module.init, jax.random.key(0), clip)["params"]


def autoencoder(backbone):
  """A module whose init makes the weights of encoder and decoder."""

  def both(module, video):
    return module.decode(module.encode(video))

  key = jax.random.key(0)
  init = lambda video: backbone.init(key, video, method=both)  # noqa: E731
  return lambda shape: jax.eval_shape(
    init, jax.ShapeDtypeStruct(shape, np.float32)
  )["params"]


def inflated(flat, target, how):
  """Every leaf of a tree."""
  was = tree_utils.named(flat)

  def leaf(path, x):
    old = was[tree_utils.path_name(path)]
    assert inflation.fits(old.shape, x.shape, how)
    return inflation.inflate(old, x.shape, how)

  return jax.tree_util.tree_map_with_path(leaf, target)


def image_net(net):
  """The net of single frames that a video net is inflated from."""
  flat = lambda strides: (1, *strides[1:])  # noqa: E731
  more = {"patch": flat(net.patch)} if hasattr(net, "patch") else {}
  return dataclasses.replace(
    net,
    kernel=flat(net.kernel),
    strides=tuple(map(flat, net.strides)),
    parent=None,
    name=None,
    **more,
  )


@pytest.mark.parametrize("fields", NETS.values(), ids=NETS)
def test_a_causal_net_begins_as_the_image_net_of_its_frames(fields):
  net = causal3d.Backbone(**WIDTH, strides=((2, 2, 2),), **fields)
  flat = image_net(net)
  frames = 1 + 2 * net.stride[0]
  video = noise(np.zeros((1, frames, 8, 8, 3)), 1)
  images = noise(autoencoder(flat)((1, 1, 8, 8, 3)))
  params = inflated(images, autoencoder(net)(video.shape), "last")

  @jax.jit
  def code(video):
    codes = net.apply({"params": params}, video, method="encode")
    return codes, net.apply({"params": params}, codes, method="decode")

  @jax.jit
  def code_images(pictures):
    codes = flat.apply({"params": images}, pictures, method="encode")
    return codes, flat.apply({"params": images}, codes, method="decode")

  codes, back = code(video)
  picked = video[0, :: net.stride[0], None]
  flat_codes, flat_back = code_images(picked)
  assert np.std(codes) > 0.1 and np.std(back) > 0.1
  near = dict(rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(codes[0], flat_codes[:, 0], **near)
  # Latent frame j makes the frames after that of latent frame j - 1.
  of_latent = -(-np.arange(frames) // net.stride[0])
  np.testing.assert_allclose(back[0], flat_back[of_latent, 0], **near)


@pytest.mark.parametrize("how", inflation.CHOICES[False])
def test_a_centred_net_codes_a_still_as_the_image_net(how):
  net = cnn3d.Backbone(**WIDTH, strides=((2, 2, 2),))
  flat = image_net(net)
  picture = noise(np.zeros((1, 1, 8, 8, 3)), 1)
  still = np.repeat(picture, 8, axis=1)
  images = noise(autoencoder(flat)(picture.shape))
  params = inflated(images, autoencoder(net)(still.shape), how)
  both = lambda m, x: m.decode(m.encode(x))  # noqa: E731
  back = jax.jit(lambda x: net.apply({"params": params}, x, method=both))(still)
  one = jax.jit(lambda x: flat.apply({"params": images}, x, method=both))(
    picture
  )
  gap = np.abs(back - one).max()
  if how == "central":
    assert gap < 1e-4 * np.abs(one).max()
  else:  # what stands outside the clip is zero and has a share
    assert gap > 1e-2


def test_taps_sum_to_one_and_stand_where_the_papers_put_them():
  for size in (1, 2, 3, 4):
    for how in ("central", "last", "average"):
      assert inflation.taps(size, how).sum() == pytest.approx(1)
  assert inflation.taps(3, "central").tolist() == [0, 1, 0]
  assert inflation.taps(3, "last").tolist() == [0, 0, 1]


@pytest.mark.parametrize(
  "flat, shape, how, right",
  [
    ((1, 3, 3, 4, 8), (3, 3, 3, 4, 8), "central", True),
    ((1, 3, 3, 4, 8), (3, 3, 3, 4, 16), "last", True),
    ((1, 3, 3, 4, 8), (3, 3, 3, 4, 16), "central", False),
    ((1, 3, 3, 4, 8), (3, 3, 3, 8, 8), "last", False),
    ((3, 3, 3, 4, 8), (5, 3, 3, 4, 8), "last", False),
    ((1, 5, 5, 4, 8), (3, 3, 3, 4, 8), "last", False),
    ((8,), (12,), "last", False),
    ((4, 8), (4, 16), "last", False),
    ((), (), "last", True),
  ],
)
def test_only_time_and_unfolded_channels_may_grow(flat, shape, how, right):
  assert inflation.fits(flat, shape, how) is right


def state_of(net, disc, shape):
  """Shapes of what a stage holds of a net and a discriminator."""
  gen = autoencoder(net)(shape)
  params = {"gen": gen, "disc": shapes(disc, shape)}
  return TrainState(np.int32(0), params, {}, gen, {}, {})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A workdir of an image tokenizer with a discriminator, and its state."""
  folder = tmp_path_factory.mktemp("image")
  flat = image_net(cnn3d.Backbone(**WIDTH, strides=((2, 2, 2),)))
  disc = stylegan2d.Discriminator(**stylegan2d.TINY)
  state = noise(state_of(flat, disc, (1, 1, 8, 8, 3)))
  saver = checkpointer.Checkpointer(folder, every=1)
  saver.save(1, jax.device_put(state._replace(step=np.int32(1))), force=True)
  saver.close()
  return folder, state


def test_central_takes_the_discriminator_too(run):
  folder, image = run
  net = cnn3d.Backbone(**WIDTH, strides=((2, 2, 2),))
  disc = stylegan3d.Discriminator(**stylegan3d.TINY)
  fresh = state_of(net, disc, (1, 4, 8, 8, 3))
  fresh = jax.device_put(jax.tree.map(lambda x: np.zeros(x.shape), fresh))
  found = init_from.match(str(folder), fresh, "central")
  state = init_from.load(found, fresh)
  for name in ("gen/encoder/stem/kernel", "disc/net/stem/kernel"):
    kernel = tree_utils.named(state.params)[name]
    flat = tree_utils.named(image.params | {"gen": image.ema})[name]
    np.testing.assert_array_equal(kernel[1], flat[0])
    assert not np.any(kernel[0]) and not np.any(kernel[2])
  both = tree_utils.named(state.ema), tree_utils.named(state.params["gen"])
  jax.tree.map(np.testing.assert_array_equal, *both)
  # At 4 x 16 x 16 the last map is flattened from more places.
  other = state_of(net, disc, (1, 4, 16, 16, 3))
  found = init_from.match(str(folder), other, "central")
  check_names(found.report, "disc/net/flat/kernel")
  assert not found.params


def test_a_leaf_of_the_wrong_shape_is_named_before_anything_runs(run):
  net = cnn3d.Backbone(**{**WIDTH, "width": 8}, strides=((2, 2, 2),))
  disc = stylegan3d.Discriminator(**stylegan3d.TINY)
  wide = state_of(net, disc, (1, 4, 8, 8, 3))
  named = "decoder/head/kernel", "(1, 3, 3, 4, 3)", "(3, 3, 3, 8, 3)"
  with error_names(ValueError, *named):
    init_from.match(str(run[0]), wide, "central")


@pytest.mark.parametrize(
  "backbone, how, named",
  [
    ("causal3d", "central", ["causal3d", "central"]),
    ("cnn3d", "last", ["cnn3d", "last"]),
    ("cnn3d", "centre", ["centre", "central"]),
    ("cnn3d", "none", None),
  ],
)
def test_a_choice_that_does_not_suit_the_backbone_is_refused(
  backbone, how, named
):
  cfg = ml_collections.ConfigDict(
    dict(
      init_from="runs/images",
      inflate=how,
      stage=dict(name="tokenizer", backbone=dict(name=backbone)),
    )
  )
  if named is None:
    return init_from.check(cfg)
  with error_names(ValueError, *named):
    init_from.check(cfg)
  cfg.inflate, cfg.init_from = "last", ""
  with error_names(ValueError, "inflate", "last", "init_from", "''"):
    init_from.check(cfg)
