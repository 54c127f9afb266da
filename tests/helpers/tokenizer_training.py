"""Functions of the tokenizer stage for recipes of tiny modules."""

import functools

from magvit_jax.stages import tokenizer


class Training:
  """`init` and `step` of a `tokenizer.Recipe`, as its stage has them."""

  def __init__(self, recipe: tokenizer.Recipe):
    self.recipe = recipe
    self.init = functools.partial(tokenizer.init_state, recipe)
    self.step = functools.partial(tokenizer.train_step, recipe)
