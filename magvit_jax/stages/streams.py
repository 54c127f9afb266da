"""Forward and backward passes of the tokenizer stage, over clips and images.

The generator is the tokenizer's net. The gradient of what looks at the
reconstruction (pixels, perceptual, adversarial) and that of the quantizer's own
terms are pulled back through it together, once.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from magvit_jax import losses
from magvit_jax.losses import adversarial, reconstruction
from magvit_jax.quantizers import Quantized
from magvit_jax.stages import TrainState, _gan
from magvit_jax.stages._accumulation import StepOutput, add
from magvit_jax.tokenizers import Tokenizer
from magvit_jax.types import Array, Key, PyTree

Batch = Mapping[str, Array]


class Stream(NamedTuple):
  """What of a batch is reconstructed: its clips, or its images.

  Attributes:
    key: of the batch.
    prefix: of the names of its terms and metrics.
    side: of the params and the optimizer, where its discriminator is.
    critic: the discriminator, a linen Module, or None.
  """

  key: str
  prefix: str
  side: str
  critic: Any

  def named(self, values: Mapping[str, Array]) -> dict[str, Array]:
    """With the prefix."""
    return {self.prefix + name: value for name, value in values.items()}

  def judge(self, params: PyTree) -> _gan.Critic:
    """The discriminator with its weights."""
    return functools.partial(self.critic.apply, {"params": params[self.side]})


class Passes(NamedTuple):
  """The passes of a step.

  Attributes:
    module: the tokenizer.
    streams: those that a batch may have.
    weights: of the terms.
    ramps: of the terms.
    adversarial: how the game is played.
    perceptual: of losses/perceptual.py, or None.
  """

  module: Tokenizer
  streams: tuple[Stream, ...]
  weights: Mapping[str, float]
  ramps: Mapping[str, Mapping[str, Any]]
  adversarial: _gan.Adversarial
  perceptual: Any

  def present(self, batch: Batch) -> list[Stream]:
    """The streams of a batch."""
    return [stream for stream in self.streams if stream.key in batch]

  def reconstruct(
    self, params: PyTree, stream: Stream, batch: Batch, key: Key
  ) -> tuple[Array, Quantized]:
    """What the generator with these params makes of a stream."""
    key = jax.random.fold_in(key, 1) if stream.prefix else key
    return self.module.apply({"params": params}, batch[stream.key], key=key)

  def reconstruct_all(
    self, state: TrainState, batch: Batch, key: Key
  ) -> dict[str, Array]:
    """The reconstructions by key."""
    return {
      stream.key: self.reconstruct(state.params["gen"], stream, batch, key)[0]
      for stream in self.present(batch)
    }

  def generate(
    self, state: TrainState, batch: Batch, key: Key
  ) -> tuple[StepOutput, dict[str, Array]]:
    """The Pass of the generator, and the reconstructions by key."""
    parts, recons = [], {}
    for stream in self.present(batch):
      part, recons[stream.key] = self._generate(stream, state, batch, key)
      parts.append(part)
    # Reversed, so that rows for restarts ('pick_…') are those of clips.
    return functools.reduce(_joined, parts[::-1]), recons

  def criticise(
    self, state: TrainState, batch: Batch, recons: Mapping[str, Array]
  ) -> StepOutput:
    """The Pass of the discriminators, which see reconstructions as given."""
    done = StepOutput({}, {"terms": {}, "logged": {}}, {})
    for stream in self.present(batch):
      if stream.critic is not None:
        pair = batch[stream.key], recons[stream.key]
        done = beside(done, self._criticise(stream, state, *pair))
    return done

  def _generate(self, stream, state, batch, key) -> tuple[StepOutput, Array]:
    def forward(params):
      recon, quantized = self.reconstruct(params, stream, batch, key)
      terms, logged = map(stream.named, _split(quantized))
      return (recon, terms), (logged, quantized.stats)

    (recon, terms), pull, (logged, stats) = jax.vjp(
      forward, state.params["gen"], has_aux=True
    )
    with jax.named_scope("losses"):
      own, slopes = jax.value_and_grad(self._weighted)(terms, state.step)
      (seen, more), at_recon = jax.value_and_grad(self._seen, has_aux=True)(
        recon, stream, state, batch[stream.key]
      )
    total, terms = own + seen, terms | more
    if stream.critic is not None:

      def last(at):
        # All of this but the last layer is dead code to the compiler.
        (grads,) = pull((at, jax.tree.map(jnp.zeros_like, slopes)))
        return _gan.last_layer(grads)

      term, at_fake, factor = self._fooled(stream, state, recon)
      if self.adversarial.weight == "adaptive":
        ratio = adversarial.adaptive_weight(last(at_recon), last(at_fake))
        factor *= ratio
        logged |= stream.named({"adaptive_weight": ratio})
      total, at_recon = total + factor * term, at_recon + factor * at_fake
      terms |= stream.named({"g_adversarial": term})
    (grads,) = pull((at_recon, slopes))
    logged |= stream.named({"loss": total})
    return StepOutput(
      {"gen": grads}, {"terms": terms, "logged": logged}, stats
    ), recon

  def _seen(self, recon, stream, state, video):
    """(weighted sum, terms) of what compares a reconstruction with its clip."""
    terms = {
      name: loss(video, recon)
      for name, loss in reconstruction.LOSSES.items()
      if stream.prefix + name in self.weights
    }
    if self.perceptual is not None:
      weights = state.frozen["perceptual"]
      terms["loss_perceptual"] = self.perceptual.loss(weights, video, recon)
    terms = stream.named(terms)
    return self._weighted(terms, state.step), terms

  def _fooled(self, stream, state, recon):
    """'g_adversarial', its gradient at the reconstruction, and its weight."""
    loss = functools.partial(
      self.adversarial.generator_loss, stream.judge(state.params)
    )
    with jax.named_scope("discriminator"):
      term, at_fake = jax.value_and_grad(loss)(recon)
    one = stream.named({"g_adversarial": jnp.ones((), jnp.float32)})
    return term, at_fake, self._weighted(one, state.step)

  def _criticise(self, stream, state, video, recon) -> StepOutput:
    names = [n for n in self.weights if n.startswith(stream.prefix)]

    def loss(params):
      terms, logged = self.adversarial.discriminator_terms(
        stream.judge({stream.side: params}),
        video,
        recon,
        wanted=[name.removeprefix(stream.prefix) for name in names],
        averages=state.extra.get("lecam", {}).get(stream.side, {}),
        step=state.step,
      )
      terms, logged = stream.named(terms), stream.named(logged)
      return self._weighted(terms, state.step), (terms, logged)

    with jax.named_scope("discriminator"):
      (total, (terms, logged)), grads = jax.value_and_grad(loss, has_aux=True)(
        state.params[stream.side]
      )
    logged |= stream.named({"loss_discriminator": total})
    return StepOutput(
      {stream.side: grads}, {"terms": terms, "logged": logged}, {}
    )

  def _weighted(self, terms, step) -> Array:
    return losses.weighted_sum(terms, self.weights, self.ramps, step)


def beside(a: StepOutput, b: StepOutput) -> StepOutput:
  """One Pass of two with no side in common; the stats are a's."""
  return StepOutput(a.grads | b.grads, _union(a.metrics, b.metrics), a.stats)


def _joined(a: StepOutput, b: StepOutput) -> StepOutput:
  """One Pass of two of the same side."""
  grads = jax.tree.map(jnp.add, a.grads, b.grads)
  return StepOutput(grads, _union(a.metrics, b.metrics), add(a.stats, b.stats))


def _union(a: PyTree, b: PyTree) -> PyTree:
  return {kind: a[kind] | b[kind] for kind in a}


def _split(quantized: Quantized) -> tuple[dict[str, Array], dict[str, Array]]:
  """The loss terms of a quantizer, and what it only logs."""
  terms = {k: v for k, v in quantized.aux.items() if k.startswith("loss_")}
  logged = {k: v for k, v in quantized.aux.items() if k not in terms}
  return terms, logged
