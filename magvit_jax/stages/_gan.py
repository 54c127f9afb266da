"""The adversarial side of the tokenizer stage: its arguments and its terms.

Terms, in brackets where MAGVIT-v2 (arXiv 2310.05737) publishes a weight for
pixels in [0,1]: 'g_adversarial' (0.1) of the generator; 'd_adversarial' (1),
'd_r1' (10, which is 40 for ours in [-1,1]) and 'd_lecam' (0.001) of the
discriminator. The last two are computed if they have a weight.
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping

import jax
import jax.numpy as jnp

from magvit_jax import messages, tree_utils
from magvit_jax.losses import adversarial
from magvit_jax.types import Array, PyTree

WEIGHTS = ("constant", "adaptive")
UPDATES = ("simultaneous", "alternating")
KINDS = ("real", "fake")
LAST_LAYER = re.compile(r"(^|/)decoder/head/(.+/)?kernel$")

Discriminator = Callable[[Array], Array]  # video -> logits, weights inside


@dataclasses.dataclass(frozen=True)
class Adversarial:
  """The `adversarial` group of the stage.

  Attributes:
    loss: 'non_saturating' (MAGVIT) or 'hinge'.
    weight: 'constant' (MAGVIT), or 'adaptive': the weight of 'g_adversarial' is
      multiplied by VQGAN's ratio of gradients; see losses/adversarial.py.
    updates: 'simultaneous' (MAGVIT): both sides from one forward pass, with the
      weights of before the step. 'alternating': the generator first, and the
      discriminator with what the generator makes after that, which costs a
      second forward pass. (Taming-transformers updates one after the other,
      but shows the discriminator the first reconstruction: as the generator's
      loss reads the old discriminator too, that is 'simultaneous'.)
    r1_every: R1 is computed at every so many steps, times that many (lazy, as
      in StyleGAN2, arXiv 1912.04958); at the other steps 'd_r1' is 0.
    lecam_decay: of the averages of logits that LeCAM compares with, which start
      at 0; MAGVIT's is that of its weights.
  """

  loss: str = "non_saturating"
  weight: str = "constant"
  updates: str = "simultaneous"
  r1_every: int = 1
  lecam_decay: float = 0.999

  def __post_init__(self):
    group = "stage.adversarial."
    check = messages.check_choice
    check(f"{group}loss", self.loss, adversarial.LOSSES)
    check(f"{group}weight", self.weight, WEIGHTS)
    check(f"{group}updates", self.updates, UPDATES)
    if self.r1_every < 1:
      raise ValueError(
        f"{group}r1_every is {self.r1_every}; it must be at least 1, which is "
        "every step (to train without R1 leave 'd_r1' out of stage.weights)"
      )
    if not 0 <= self.lecam_decay < 1:
      raise ValueError(
        f"{group}lecam_decay is {self.lecam_decay}; it must lie in [0, 1)"
      )

  def generator_loss(self, discriminator: Discriminator, recon: Array) -> Array:
    """The unweighted 'g_adversarial'."""
    return adversarial.LOSSES[self.loss].generator(discriminator(recon))

  def discriminator_terms(
    self,
    discriminator: Discriminator,
    video: Array,
    recon: Array,
    *,
    wanted: Collection[str],
    averages: Mapping[str, Array],
    step: Array,
  ) -> tuple[dict[str, Array], dict[str, Array]]:
    """Terms of a discriminator, and the means of its logits for the log.

    Args:
      discriminator: with its weights inside.
      video: real [b t h w 3].
      recon: fake [b t h w 3].
      wanted: names of terms with a weight.
      averages: 'real' and 'fake', of `start_averages`; read for 'd_lecam'.
      step: int32 scalar.
    """
    terms = {}
    if "d_r1" in wanted:
      real, terms["d_r1"] = self._r1(discriminator, video, step)
    else:
      real = discriminator(video)
    fake = discriminator(recon)
    loss = adversarial.LOSSES[self.loss].discriminator
    terms["d_adversarial"] = loss(real, fake)
    if "d_lecam" in wanted:
      terms["d_lecam"] = adversarial.lecam(
        real, fake, averages["real"], averages["fake"]
      )
    return terms, {"logit_real": jnp.mean(real), "logit_fake": jnp.mean(fake)}

  def follow(
    self, averages: Mapping[str, Array], real: Array, fake: Array
  ) -> dict[str, Array]:
    """LeCAM's averages after a step with these mean logits."""
    keep = self.lecam_decay
    new = {"real": real, "fake": fake}
    return {k: keep * averages[k] + (1 - keep) * new[k] for k in new}

  def _r1(
    self, discriminator: Discriminator, video: Array, step: Array
  ) -> tuple[Array, Array]:
    """(logits of the real clips, the penalty)."""
    if self.r1_every == 1:
      return adversarial.r1(discriminator, video)
    penalty = jax.lax.cond(
      step % self.r1_every == 0,
      lambda: self.r1_every * adversarial.r1(discriminator, video)[1],
      lambda: jnp.zeros((), jnp.float32),
    )
    return discriminator(video), penalty


def start_averages() -> dict[str, Array]:
  """LeCAM's averages before the first step."""
  return {name: jnp.zeros((), jnp.float32) for name in KINDS}


def last_layer(grads: PyTree) -> Array:
  """The leaf of the last convolution of the decoder, 'decoder/head/…/kernel'.

  Raises:
    ValueError: a backbone that names it otherwise.
  """
  named = tree_utils.named(grads)
  found = [name for name in named if LAST_LAYER.search(name)]
  if len(found) != 1:
    raise ValueError(
      "stage.adversarial.weight='adaptive' needs the last layer of the decoder,"
      f" named decoder/head/…/kernel; this backbone has {found or 'none'}. "
      "Name it so, or use weight='constant'"
    )
  return named[found[0]]
