"""What is checked of every converter of whole tokenizers, both ways.

A peer is a script of parity/ that has GOLDEN, `model(name)`, narrow and of a
published kind, and `clip(name)`, and that wrote what the reference gave.
"""

import functools
import json

import jax
import numpy as np
from parity.cosmos import drawn

from helpers.errors import error_names
from magvit_jax import tokenizers
from magvit_jax.convert import tokenizer_folder

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


def check_numbers(source, peer, name):
  """Public arrays give the latents, ids and pixels of the reference."""
  with np.load(peer.GOLDEN / "nets.npz") as file:
    whole = {key: file[f"{name}/{key}"] for key in ("latents", "ids", "recon")}
  model = peer.model(name)
  stage = model.config["stage"]
  params = tokenizer_folder.to_ours(
    source, drawn(source, stage), model, "drawn"
  )
  tok = tokenizers.build_tokenizer(stage)
  latents, ids, recon = _coded(tok, params, peer.clip(name))
  assert min(np.std(whole["latents"]), np.std(whole["recon"])) > 0.1
  np.testing.assert_allclose(latents, whole["latents"], **CLOSE)
  assert len(np.unique(whole["ids"])) > whole["ids"].size / 2
  np.testing.assert_array_equal(ids, whole["ids"])
  np.testing.assert_allclose(recon, whole["recon"], **CLOSE)


def check_both_ways(source, model, unused=()):
  """To our names and back no array is lost; `unused` ones become zeros."""
  stage = model.config["stage"]
  state = drawn(source, stage)
  arrays = source.convert(state, stage)
  assert len(arrays) == len(state) - len(unused)
  back = source.public(arrays, stage)
  assert back.keys() == state.keys()
  for name, array in state.items():
    np.testing.assert_array_equal(back[name], array * (name not in unused))


def check_shapes(source, peer, name):
  """A published net has the names and shapes that the reference builds."""
  wanted = json.loads((peer.GOLDEN / "names.json").read_text())[name]
  found = tokenizer_folder.public_shapes(
    source, source.MODELS[name].config["stage"]
  )
  assert {name: list(leaf.shape) for name, leaf in found.items()} == wanted


def check_refused(source, model):
  """Other arrays are named, with their shapes."""
  state = drawn(source, model.config["stage"])
  first, *_, last = sorted(state)
  one = np.ones(7, np.float32)
  for change, named in (
    ({first: one}, (first, "(7,)", state[first].shape)),
    ({last: None}, (last, state[last].shape)),
    ({f"{last}.x": one}, (f"{last}.x", "(7,)")),
  ):
    other = {k: a for k, a in {**state, **change}.items() if a is not None}
    with error_names(ValueError, "the file", *named):
      tokenizer_folder.to_ours(source, other, model, "the file")
