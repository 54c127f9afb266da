"""Perceptual losses: distances of frames as a frozen network sees them.

  lpips     weighted distances of VGG-16 features (Zhang et al., arXiv
            1801.03924), version 0.1 of the `lpips` package
  resnet50  mean squared difference of ImageNet logits (MAGVIT, arXiv
            2212.05199; its code resizes to 224 pixels, bilinear)

A network's features of a batch of clips do not fit beside a tokenizer in
training, so frames go through a few at a time. The derivative is taken in the
same pass: frames do not depend on one another, so one number per frame is all
that the backward pass adds, and only a video of gradients is kept. That costs
no second forward pass, as rematerialising would.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from magvit_jax import messages, registry
from magvit_jax.types import Array, PyTree

# (params, x [n h w 3], y) -> float32 [n]
Distance = Callable[[PyTree, Array, Array], Array]
EPS = 1e-10  # added to the length of a feature, not under its root
PIXELS = 224  # height and width of what ResNet-50 was trained on


class Perceptual(NamedTuple):
  """A perceptual loss; its weights are an argument.

  Attributes:
    abstract: () -> shapes of the weights.
    distance: (params, video, recon) -> float32 [b t], of each frame; both
      are [b t h w 3] in [-1,1]. Only recon has a gradient.
    notes: what a file of its weights says, if it says anything.
  """

  abstract: Callable[[], PyTree]
  distance: Callable[[PyTree, Array, Array], Array]
  notes: dict[str, str]

  def loss(self, params: PyTree, video: Array, recon: Array) -> Array:
    """The mean over all frames."""
    return jnp.mean(self.distance(params, video, recon))


def build(cfg: Mapping[str, Any], dtype: Any) -> Perceptual | None:
  """The loss of a `perceptual` config; None for the name 'none'.

  Args:
    cfg: `name`; but for 'none' also `weights` and `fingerprint`, which are for
      frozen.py, and arguments of the function of that name in LOSSES.
    dtype: of the network's convolutions.

  Raises:
    ValueError: no such loss, or frames below 0.
    TypeError: an argument that it does not take.
  """
  args = registry.plain(cfg)
  name = args.pop("name")
  messages.check_choice("perceptual.name", name, ("none", *LOSSES))
  if name == "none":
    return None
  args = {k: v for k, v in args.items() if k not in ("weights", "fingerprint")}
  return LOSSES[name](dtype=dtype, **args)


def lpips(*, dtype: Any, frames: int = 1, **net: Any) -> Perceptual:
  """LPIPS with VGG-16.

  Args:
    dtype: of the convolutions; all else is float32.
    frames: of each clip to take through the network at a time; 0 is all.
    **net: arguments of nets/vgg16.
  """
  module = registry.build("nets", {"name": "vgg16", **net}, dtype=dtype)

  def abstract():
    variables, features = _shapes(module)
    linear = {
      name: {"scale": jax.ShapeDtypeStruct(found.shape[-1:], jnp.float32)}
      for name, found in features.items()
    }
    return {"net": variables["params"], "linear": linear}

  def distance(params, x, y):
    features = functools.partial(module.apply, {"params": params["net"]})
    linear = {name: own["scale"] for name, own in params["linear"].items()}
    return feature_distance(features(x), features(y), linear)

  return Perceptual(abstract, in_parts(distance, frames), {"net": "vgg16"})


def resnet50(*, dtype: Any, frames: int = 1, **net: Any) -> Perceptual:
  """Mean squared difference of the logits of ResNet-50.

  Args:
    dtype: of the convolutions; all else is float32.
    frames: of each clip to take through the network at a time; 0 is all.
    **net: arguments of nets/resnet50.
  """
  module = registry.build("nets", {"name": "resnet50", **net}, dtype=dtype)

  def distance(params, x, y):
    x, y = (module.apply({"params": params["net"]}, resize(v)) for v in (x, y))
    return jnp.mean(jnp.square(x - y), axis=-1)

  def abstract():
    return {"net": _shapes(module)[0]["params"]}

  notes = {"net": "resnet50", "origin": module.origin}
  return Perceptual(abstract, in_parts(distance, frames), notes)


LOSSES = {"lpips": lpips, "resnet50": resnet50}


def feature_distance(
  x: Mapping[str, Array], y: Mapping[str, Array], linear: Mapping[str, Array]
) -> Array:
  """Sum over layers of the mean over space of the weighted distance.

  Args:
    x: features [n h w c] by layer.
    y: those of other frames.
    linear: weights [c] by layer, none below 0.

  Returns:
    float32 [n].
  """
  total = 0.0
  for name, weight in linear.items():
    squares = jnp.square(unit(x[name]) - unit(y[name]))
    total += jnp.mean(jnp.sum(squares * weight, axis=-1), axis=(1, 2))
  return total


def unit(features: Array) -> Array:
  """Features of length 1 over the channels, or 0; float32."""
  features = features.astype(jnp.float32)
  squares = jnp.sum(jnp.square(features), axis=-1, keepdims=True)
  # The root has no derivative at 0, where all channels of a ReLU may be.
  dead = squares == 0
  length = jnp.where(dead, 0.0, jnp.sqrt(jnp.where(dead, 1.0, squares)))
  return features / (length + EPS)


def resize(frames: Array) -> Array:
  """[n h w 3] -> [n 224 224 3], bilinear; larger frames are smoothed first."""
  shape = (len(frames), PIXELS, PIXELS, frames.shape[-1])
  if frames.shape == shape:
    return frames
  return jax.image.resize(frames, shape, "bilinear", antialias=True)


def in_parts(distance: Distance, frames: int) -> Distance:
  """A distance of frames -> that of clips [b t h w 3], some frames at a time.

  The batch stays whole, as it is what is split over the devices.

  Args:
    distance: of frames; none may depend on another.
    frames: of each clip at a time; 0 is all.

  Raises:
    ValueError: frames below 0.
  """
  if frames < 0:
    raise ValueError(
      f"perceptual.frames is {frames}; it must be at least 0, which is all "
      "frames at a time"
    )

  def with_gradient(params, x, y):
    d, pull = jax.vjp(functools.partial(distance, params, x), y)
    return d, pull(jnp.ones_like(d))[0]

  @jax.custom_vjp
  def whole(params, video, recon):
    return _map(functools.partial(distance, params), video, recon, frames)

  def forward(params, video, recon):
    return _map(functools.partial(with_gradient, params), video, recon, frames)

  def backward(grad, cotangent):
    # None is zero: the weights are frozen and the video is data.
    return None, None, grad * cotangent[..., None, None, None]

  whole.defvjp(forward, backward)

  def checked(params, video, recon):
    if video.shape != recon.shape:
      raise ValueError(
        f"a video of shape {video.shape} has no perceptual distance to one of "
        f"{recon.shape}; both must be the same [b t h w 3]"
      )
    # The gradient must not have the type of a smaller float.
    video, recon = (v.astype(jnp.float32) for v in (video, recon))
    return whole(params, video, recon)

  return checked


def _map(
  function: Callable[[Array, Array], PyTree],
  video: Array,
  recon: Array,
  frames: int,
) -> PyTree:
  """function of frames [n h w 3], of which each leaf is [n …] -> [b t …]."""
  b, t = video.shape[:2]
  frames = min(frames, t) or t
  parts = -(-t // frames)

  def part(pair):
    flat = (v.reshape(-1, *v.shape[2:]) for v in pair)
    return jax.tree.map(
      lambda leaf: leaf.reshape(b, frames, *leaf.shape[1:]), function(*flat)
    )

  if parts == 1:
    return part((video, recon))
  # A last part is filled up with the last frame.
  fill = ((0, 0), (0, parts * frames - t), (0, 0), (0, 0), (0, 0))
  pair = (
    jnp.moveaxis(
      jnp.pad(v, fill, "edge").reshape(b, parts, frames, *v.shape[2:]), 1, 0
    )
    for v in (video, recon)
  )
  return jax.tree.map(
    lambda leaf: jnp.moveaxis(leaf, 0, 1).reshape(b, -1, *leaf.shape[3:])[
      :, :t
    ],
    jax.lax.map(part, tuple(pair)),
  )


def check(loss: Perceptual, params: PyTree) -> None:
  """Refuses weights that tell no two pictures apart.

  Raises:
    ValueError: the distance of noise to grey is 0 or not finite, or a weight
      of LPIPS's linear layers is negative.
  """
  for name, own in params.get("linear", {}).items():
    least = np.min(own["scale"])
    if least < 0:
      raise ValueError(
        f"linear/{name} has the weight {least:.4g}; those of LPIPS "
        "are at least 0: give the file of its version 0.1"
      )
  noise = np.random.default_rng(0).uniform(-1, 1, (1, 1, 32, 32, 3))
  noise = noise.astype(np.float32)
  found = float(jax.jit(loss.loss)(params, noise, np.zeros_like(noise)))
  if not 0 < found < np.inf:
    raise ValueError(
      f"the distance of noise to grey is {found}: with these weights the loss "
      "would train nothing. Was a layer left at zero? Convert the public "
      "files, or set stage.perceptual.name to 'none'"
    )


def _shapes(module: Any) -> tuple[PyTree, PyTree]:
  """Shapes of the variables of a net, and of what it returns."""
  frames = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  variables = jax.eval_shape(module.init, jax.random.key(0), frames)
  return variables, jax.eval_shape(module.apply, variables, frames)
