"""The loop on the real tokenizer stage, with a discriminator, cut in two."""

import json
import os
import signal

import jax
import ml_collections
import numpy as np

from helpers.errors import error_names
from magvit_jax import registry
from magvit_jax.checkpoints import checkpointer
from magvit_jax.discriminators import patch3d
from magvit_jax.monitoring import incidents
from magvit_jax.quantizers import lfq
from magvit_jax.tokenizers import causal3d
from magvit_jax.training import loop


def config(steps=4, **stage):
  backbone = {k: v for k, v in causal3d.TINY.items() if k != "latent_dim"}
  return ml_collections.ConfigDict(
    dict(
      seed=3,
      steps=steps,
      batch=2,
      stage=dict(
        name="tokenizer",
        backbone=dict(name="causal3d", **backbone),
        quantizer=dict(name="lfq", **lfq.TINY),
        discriminator=dict(name="patch3d", **patch3d.TINY),
        weights=dict(
          loss_l2=1.0,
          loss_entropy=0.1,
          loss_commitment=0.25,
          g_adversarial=0.1,
          d_adversarial=1.0,
        ),
        ramps=dict(),
        optim=dict(name="adamw", lr=1e-3, warmup=1, weight_decay=0.01),
        ema=dict(decay=0.99, warmup=True),
        dtype="float32",
      )
      | stage,
      data=dict(name="moving_digits", frames=3, size=(16, 16), eval_clips=3),
      loader=dict(threads=1, prefetch=1),
      eval=dict(every=0, batch=2, metrics=dict(psnr=dict())),
      checkpoint=dict(every=0, keep=1, best="none", best_mode="max"),
      log=dict(every=1),
      mesh=dict(data=-1, fsdp=1, context=1, tensor=1),
      init_from="",
      inflate="none",
    )
  )


def trained(folder, cfg):
  """The saved arrays and the logged terms of a run, whatever made it."""
  parts = loop.make_parts(cfg)
  batch = {"video": np.zeros((2, 3, 16, 16, 3), np.float32)}
  state = jax.eval_shape(parts.stage.init, jax.random.key(0), batch, {})
  items = {
    item: checkpointer.load_params(folder, getattr(state, item), item)
    for item in checkpointer.ITEMS
  }
  rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
  times = ("examples_per_second", "data_share", "seconds_data", "seconds_step")
  terms = [
    {k: v for k, v in row.items() if k not in times}
    for row in rows
    if row["kind"] == "train"
  ]
  return items, terms


def test_a_gan_cut_in_two_is_bit_for_bit_the_whole_run(tmp_path, monkeypatch):
  cfg = config()
  # JAX keeps what it compiled for one function, here for three runs.
  parts, program, kept = loop.make_parts(cfg), loop.train_program, []

  def once(stage, state):
    kept.append(kept[0] if kept else program(stage, state))
    return kept[0]

  monkeypatch.setattr(loop, "train_program", once)
  result = loop.run(cfg, tmp_path / "whole", parts=parts)
  assert np.isfinite(result["eval_psnr"])
  original = loop._Loop._one_step

  def one_step(self):
    original(self)
    if self.step == 2:
      os.kill(os.getpid(), signal.SIGTERM)

  with monkeypatch.context() as patch:
    patch.setattr(loop._Loop, "_one_step", one_step)
    cut = loop.run(cfg, tmp_path / "cut", parts=parts)
  assert cut["stopped"] == signal.SIGTERM
  again = loop.run(cfg, tmp_path / "cut", parts=parts)
  assert again["eval_psnr"] == result["eval_psnr"]
  there, terms = trained(tmp_path / "whole", cfg)
  here, same_terms = trained(tmp_path / "cut", cfg)
  jax.tree.map(np.testing.assert_array_equal, here, there)
  assert same_terms == terms and len(terms) == 4
  assert {"gen", "disc"} == there["params"].keys()


def test_three_infinite_gradients_stop_and_name_the_term(tmp_path):
  weights = dict(loss_l2=float("inf"), loss_entropy=0.0, loss_commitment=0.0)
  none = dict(name="none")
  cfg = config(weights=weights, discriminator=none)
  with error_names(incidents.NonFiniteError, 3, "grad_norm_gen"):
    loop.run(cfg, tmp_path)
  assert checkpointer.steps(tmp_path) == []


def test_a_wrong_component_leaves_no_workdir(tmp_path):
  cfg = config(backbone=dict(name="causal3e"))
  with error_names(KeyError, "causal3e", "causal3d"):
    loop.run(cfg, tmp_path / "w")
  assert not (tmp_path / "w").exists()
  assert "tokenizer" in registry.names("stages")
