"""What is checked of every converter of whole tokenizers, both ways."""

import functools

import jax
import numpy as np
import pytest

from magvit_jax import pretrained, tokenizers
from magvit_jax.convert import folder

CLOSE = dict(rtol=1e-4, atol=1e-4)


@functools.partial(
  jax.jit,
  static_argnums=0,
  compiler_options={"xla_backend_optimization_level": 0},
)
def _coded(tok, params, video):
  """(latents, ids, reconstruction) of a clip, in one program."""

  def run(tok, video):
    latents = tok.backbone.encode(video)
    quantized = tok.quantizer(latents)
    return latents, quantized.ids, tok.backbone.decode(quantized.codes)

  return tok.apply({"params": params}, video, method=run)


def check_numbers(stage, arrays, video, golden):
  """Latents, ids and pixels are those that the reference gave."""
  params = pretrained.fit(arrays, folder.abstract(stage), "drawn")
  tok = tokenizers.build_tokenizer(stage)
  latents, ids, recon = _coded(tok, params, video)
  assert min(np.std(golden["latents"]), np.std(golden["recon"])) > 0.1
  np.testing.assert_allclose(latents, golden["latents"], **CLOSE)
  assert len(np.unique(golden["ids"])) > golden["ids"].size / 2
  np.testing.assert_array_equal(ids, golden["ids"])
  np.testing.assert_allclose(recon, golden["recon"], **CLOSE)


def check_both_ways(source, stage, arrays):
  """To the public names and back nothing is lost, and each is used once."""
  state = source.public(arrays, stage)
  back = source.convert(state, stage)
  assert back.keys() == arrays.keys()
  for name, array in arrays.items():
    np.testing.assert_array_equal(back[name], array)
  again = source.public(back, stage)
  assert again.keys() == state.keys()
  for name, array in state.items():
    np.testing.assert_array_equal(again[name], array)


def check_shapes(source, name, shapes):
  """A published net has the names and shapes that the reference builds."""
  stage = source.MODELS[name].config["stage"]
  found = folder.public_shapes(source, stage)
  assert {name: list(leaf.shape) for name, leaf in found.items()} == shapes


def check_refused(source, model, state):
  """Other arrays are named, with their shapes."""
  first, *_, last = sorted(state)
  one = np.ones(7, np.float32)
  for change, text in (
    ({first: one}, f"{first}: (7,) there, {state[first].shape} here"),
    ({last: None}, f"{last}: absent there, {state[last].shape} here"),
    ({f"{last}.x": one}, f"{last}.x: (7,) there, absent here"),
  ):
    other = {k: a for k, a in {**state, **change}.items() if a is not None}
    with pytest.raises(ValueError, match="of the wrong network") as error:
      folder.to_ours(source, other, model, "the file")
    assert text in str(error.value)
