"""The doctor: each check sees its illness, and none in a healthy run."""

import json
import os
import shutil
import time

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from helpers import synthetic_run, toy_workdir
from helpers.errors import check_names, error_names
from helpers.synthetic_run import found, worse
from magvit_jax import __main__ as verbs
from magvit_jax import doctor, registry, run_config
from magvit_jax.checkpoints import checkpointer
from magvit_jax.cli import doctor as verb
from magvit_jax.data import moving_digits
from magvit_jax.doctor import non_finite
from magvit_jax.losses import adversarial
from magvit_jax.quantizers import vq
from magvit_jax.stages import Stage, TrainState
from magvit_jax.training import loop


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
  folder = synthetic_run.write(tmp_path_factory.mktemp("runs") / "healthy")
  toy_workdir.save(folder, synthetic_run.STEPS)
  return folder


def test_a_healthy_run_has_no_finding_and_each_check_says_so(healthy):
  run, findings = doctor.diagnose(healthy)
  assert worse(findings) == []
  # Nothing to say here, and no incidents kept.
  silent = {"non_finite", "prediction", "prediction_psnr"}
  silent |= {"sessions", "stalls"}
  assert {f.name for f in findings} == set(registry.names("doctor")) - silent
  assert run.step == run.steps == synthetic_run.STEPS


def test_an_average_is_told_while_it_still_holds_the_start(tmp_path):
  folder = synthetic_run.write(
    tmp_path,
    upto=1000,
    done=False,
    cfg={"stage__ema": {"decay": 0.999, "warmup": False}},
  )
  (finding,) = found(folder, "average")
  assert finding.severity == "note"
  check_names(finding.what, "37%")


def test_unreadable_clips_are_added_over_sessions(tmp_path):
  def rows(step):
    return {"skipped": 5 if step <= 2000 else 3}

  (finding,) = found(synthetic_run.write(tmp_path, rows=rows), "clips")
  assert finding.severity == "note"
  check_names(finding.what, 8)


def test_a_new_adversarial_loss_is_judged_by_the_chance_it_declares(
  tmp_path, monkeypatch
):
  """1.6 is near hinge's 2.0 at chance, and far below 40."""
  hinge = adversarial.LOSSES["hinge"]
  new = {"scaled": hinge._replace(chance=40.0), **adversarial.LOSSES}
  monkeypatch.setattr(adversarial, "LOSSES", new)
  severity = {}
  for loss in ("scaled", "hinge", "unknown"):
    folder = synthetic_run.write(
      tmp_path / loss,
      rows=lambda step: {"d_adversarial": 1.6},
      cfg={"stage__adversarial__loss": loss},
    )
    severity[loss] = [f.severity for f in found(folder, "discriminator")]
  assert severity == dict(scaled=["warn"], hinge=["ok"], unknown=[])


def test_a_discriminator_that_starts_late_is_judged_from_its_start(tmp_path):
  ramp = {"name": "delayed", "steps": 3000}
  folder = synthetic_run.write(
    tmp_path,
    rows=lambda step: {"d_adversarial": 0.01} if step < 3000 else {},
    upto=3200,
    cfg={"stage__ramps": {"g_adversarial": ramp}},
  )
  assert found(folder, "discriminator") == []  # too few rows since then


def test_a_generator_is_held_against_the_frequencies(tmp_path):
  def score(values):
    steps = iter(values)
    return lambda step: {
      "eval_cross_entropy": next(steps),
      "eval_cross_entropy_unigram": 5.0,
    }

  for values, named in (
    ((4.99,) * 4, ("4.990", "5.000")),
    ((4.0, 3.0, 3.5, 4.5), ("4.500", "3.000", 2000)),
  ):
    name = "-".join(map(str, values))
    folder = synthetic_run.write(tmp_path / name, evals=score(values))
    (finding,) = found(folder, "prediction")
    assert finding.severity == "warn"
    check_names(finding.what, *named)
  folder = synthetic_run.write(
    tmp_path / "well", evals=score((4, 3.0, 2.9, 3.0))
  )
  assert worse(found(folder, "prediction")) == []


@pytest.mark.parametrize(
  "names,place,first",
  [
    # The clip, or what the encoder made of it: all that follows is null too.
    (
      "entropy_batch entropy_token loss_commitment loss_entropy loss_l2 "
      "g_adversarial loss grad_norm_gen",
      "the latents (clips, encoder)",
      "entropy_batch",
    ),
    ("loss_entropy loss grad_norm_gen", "a term of the quantizer", "loss_en"),
    ("loss_l2 g_adversarial loss", "the decoder", "loss_l2"),
    ("loss_perceptual loss", "the perceptual net", "loss_perceptual"),
    ("g_adversarial logit_fake loss", "the discriminator on rec", "g_adv"),
    ("d_r1 loss_discriminator", "the discriminator on clips", "d_r1"),
    ("loss grad_norm_gen", "a weighted sum", "loss"),
    ("grad_norm_disc", "the backward pass", "grad_norm_disc"),
  ],
)
def test_the_origin_of_a_nan_is_what_is_computed_first(names, place, first):
  where, origin = non_finite.earliest(names.split())
  assert where.name.startswith(place) and origin[0].startswith(first)


def test_bad_steps_are_told_with_what_came_before(tmp_path):
  def rows(step):
    if step < 2000:
      return {}
    if step == 2000:
      return {"grad_norm_gen": 40.0}
    return {"bad": (step - 2000) / 40, "loss_l2": float("inf")}

  folder = synthetic_run.write(tmp_path, rows=rows, upto=2120, done=False)
  (finding,) = found(folder, "non_finite")
  assert finding.severity == "wrong"
  check_names(finding.what, 3, 2040, "loss_l2")
  assert finding.cure == "stage.optim.lr=3.3e-05 and stage.optim.clip=0.5"
  check_names(found(folder, "progress")[0].what, 2000)
  # Later ones that passed are no end.
  (folder / "DONE").write_text("")
  assert found(folder, "non_finite")[0].severity == "warn"


def test_a_run_under_way_is_told_from_one_that_stopped(tmp_path):
  folder = synthetic_run.write(tmp_path, upto=2000, done=False)
  (finding,) = found(folder, "progress")
  assert finding.severity == "note"
  long_ago = time.time() - 7200
  os.utime(folder / "metrics.jsonl", (long_ago, long_ago))
  (finding,) = found(folder, "progress")
  assert finding.severity == "warn"
  check_names(finding.what, "2.0 hours", 2000, 4000)


def test_a_run_that_has_just_begun_is_not_judged(tmp_path):
  folder = synthetic_run.write(tmp_path, upto=120, done=False)
  _, findings = doctor.diagnose(folder)
  assert {f.severity for f in findings} <= {"note", "ok"}
  (rows,) = [f for f in findings if "log.every=80" in f.cure]
  check_names(rows.what, 3)
  (folder / "metrics.jsonl").write_text('{"step": 1, "ki\n[3]\n"x"\n')
  assert {f.severity for f in doctor.diagnose(folder)[1]} <= {"note", "ok"}
  (folder / "metrics.jsonl").unlink()
  assert {f.severity for f in doctor.diagnose(folder)[1]} <= {"note", "ok"}


def save(folder, step, params, ema=None):
  """A checkpoint of some weights."""
  zero = jnp.zeros((), jnp.int32)
  state = TrainState(zero + step, params, {}, ema or {}, {}, {"bad": zero})
  saver = checkpointer.Checkpointer(folder, every=1)
  saver.save(step, state, force=True)
  saver.close()


def test_weights_and_dead_codes_are_read_from_the_last_checkpoint(tmp_path):
  folder = synthetic_run.write(tmp_path, cfg={"stage__quantizer__name": "vq"})
  gen = {
    "decoder": {"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(4)},
    "quantizer": {
      "buffer_count": jnp.array([1e-6] * 6 + [5.0, 3.0]),
      "embedding": jnp.array([[0.1, -0.1]] * 5 + [[0.9, 0.2]] * 3),
    },
  }
  save(folder, 4000, {"gen": gen}, {"decoder": {"kernel": jnp.ones(3)}})
  (zero,) = found(folder, "weights")
  assert zero.severity == "warn"
  check_names(zero.what, "decoder/kernel")
  dead = worse(found(folder, "codes"))
  for finding, number in zip(dead, (6, 5), strict=True):
    check_names(finding.what, f"{number} of 8")
  save(folder, 4001, {"gen": {"a": jnp.array([1.0, jnp.nan])}})
  (broken,) = found(folder, "weights")
  assert broken.severity == "wrong"
  check_names(broken.what, "params/gen/a")


def test_damaged_checkpoints_are_named(tmp_path):
  folder = synthetic_run.write(tmp_path)
  for step in (3000, 4000):
    toy_workdir.save(folder, step)
  assert worse(found(folder, "checkpoints")) == []

  def damage(step):
    data = folder / "checkpoints" / str(step) / "params"
    for path in data.rglob("*"):
      if path.is_file():
        path.write_bytes(b"x" + path.read_bytes()[1:])

  damage(4000)
  bad, good = found(folder, "checkpoints")
  assert bad.severity == "warn"
  check_names(bad.what, 4000)
  check_names(bad.cure, 3000)
  check_names(good.what, 3000)
  damage(3000)
  assert {f.severity for f in found(folder, "checkpoints")} == {"wrong"}


def test_one_flipped_bit_is_found_by_the_checksum(tmp_path):
  folder = synthetic_run.write(tmp_path)
  noise = np.random.default_rng(0).normal(size=(64, 64))
  save(folder, 4000, {"gen": {"kernel": jnp.asarray(noise, jnp.float32)}})
  data = (folder / "checkpoints" / "4000" / "params").rglob("*")
  path = max(data, key=lambda p: p.stat().st_size * p.is_file())
  flipped = bytearray(path.read_bytes())
  flipped[len(flipped) // 2] ^= 0x10
  path.write_bytes(flipped)
  (finding,) = found(folder, "checkpoints")
  assert finding.severity == "wrong"
  check_names(finding.what, 4000, "gen/kernel")
  # One that an earlier version saved has a checksum of its arrays alone.
  (folder / "checkpoints" / "4000" / "manifest.json").unlink()
  (finding,) = found(folder, "checkpoints")
  check_names(finding.what, 4000, "params", "checksum")


def test_damage_put_aside_and_a_full_disk_are_told(tmp_path, monkeypatch):
  folder = synthetic_run.write(tmp_path, upto=2000, done=False)
  toy_workdir.save(folder, 2000)
  (folder / "damaged" / "1000").mkdir(parents=True)
  (note,) = worse(found(folder, "checkpoints"))
  assert note.severity == "note"
  check_names(note.what, 1000)
  usage = shutil.disk_usage(folder)._replace(free=10)
  monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
  check_names(worse(found(folder, "checkpoints"))[1].what, "0 MiB")


def test_no_checkpoint_where_one_was_due_is_wrong(tmp_path):
  folder = synthetic_run.write(tmp_path, upto=2000, done=False)
  (finding,) = found(folder, "checkpoints")
  assert finding.severity == "wrong"
  check_names(finding.what, 2000)


def test_the_verb_prints_text_and_json_and_says_by_its_status(
  healthy, tmp_path, capsys
):
  assert verb.main([f"--workdir={healthy}", "--json"]) == 0
  told = json.loads(capsys.readouterr().out)
  assert told["step"] == 4000 and told["done"]
  assert {"name", "severity", "what", "cure"} == told["findings"][0].keys()
  ill = synthetic_run.write(tmp_path, cfg={"stage__optim__lr": 1e-10})
  assert verb.main([f"--workdir={ill}"]) == 1
  lines = capsys.readouterr().out.splitlines()
  assert all(len(line) <= 80 for line in lines[1:])
  assert lines[2].startswith("wrong  ")
  assert lines[-1].startswith("2 wrong, 0 warn")


@pytest.mark.parametrize(
  "text,named",
  [
    (None, "config.json"),
    ("{", "JSON"),
    ("[1]", "config.json"),
    ('{"config": {"lr": 1}}', "config.stage"),
  ],
)
def test_a_foreign_folder_is_one_clear_line(tmp_path, capsys, text, named):
  if text:
    (tmp_path / "config.json").write_text(text)
  assert verbs.main(["doctor", f"--workdir={tmp_path}"]) == 2
  err = capsys.readouterr().err
  assert err.count("\n") == 1
  check_names(err, tmp_path, named)


def test_the_rows_of_a_real_loop_are_read_also_of_one_that_broke(tmp_path):
  def step(state, batch, key):
    state, terms = toy_workdir.step(state, batch, key)
    bad = jnp.where(state.step > 12, state.extra["bad"] + 1, 0)
    nan = jnp.where(bad > 0, jnp.nan, 0.0)
    return state._replace(extra={"bad": bad}), {
      "loss": terms["loss"] / state.step + nan,
      "loss_l2": terms["l1"] / state.step,
    }

  stage = Stage(toy_workdir.init, step, *toy_workdir.STAGE[2:])
  sources = [
    moving_digits.Source(
      split=s,
      **{k: v for k, v in toy_workdir.CONFIG["data"].items() if k != "name"},
    )
    for s in ("train", "eval")
  ]
  cfg = {"steps": 12, "eval": {"every": 0, "batch": 2, "metrics": {}}}
  cfg = ml_collections.ConfigDict({**toy_workdir.CONFIG, **cfg})
  loop.run(cfg, tmp_path / "whole", parts=loop.Parts(stage, *sources))
  assert {f.severity for f in doctor.diagnose(tmp_path / "whole")[1]} <= {
    "note",
    "ok",
  }
  cfg.steps = 20
  with error_names(FloatingPointError, 15):
    loop.run(cfg, tmp_path / "broken", parts=loop.Parts(stage, *sources))
  (finding,) = found(tmp_path / "broken", "non_finite")
  assert finding.severity == "wrong"
  check_names(finding.what, 13, "loss")


@pytest.mark.parametrize(
  "predicted, upto, severity",
  [(19.7, 4000, "warn"), (23.0, 4000, "ok"), (19.7, 2000, "note")],
)
def test_predictions_are_compared_with_the_last_frame_repeated(
  tmp_path, predicted, upto, severity
):
  scores = {"eval_psnr_predicted": predicted, "eval_psnr_repeat": 22.1}
  folder = synthetic_run.write(
    tmp_path, evals=lambda step: scores, upto=upto, done=upto == 4000
  )
  (finding,) = found(folder, "prediction_psnr")
  assert finding.severity == severity
  check_names(finding.what, f"{predicted:.2f} dB", "22.10 dB")
  assert ("steps=8000" in finding.cure) == (severity == "warn")


def test_a_config_has_the_defaults_of_its_components(tmp_path):
  changes = {
    "stage__quantizer": {"name": "vq", "size": 16},
    "stage__optim": {"name": "adam", "lr": 1e-4},
    "stage__weights": {"loss_l2": 1.0},
  }
  run = doctor.Run(synthetic_run.write(tmp_path, cfg=changes))
  assert run.get("stage.quantizer.learn") == vq.Quantizer.learn
  assert run.get("stage.quantizer.size") == 16
  assert run.get("stage.optim.schedule") == "cosine"
  assert run.get("stage.optim.lr") == 1e-4
  assert run.get("stage.perceptual.name") == "lpips"
  assert run.get("loader.prefetch") == run_config.base().loader.prefetch
  assert run.get("stage.weights") == {"loss_l2": 1.0}
  assert run.module is not None


def test_a_component_that_this_code_lacks_keeps_what_is_given(tmp_path):
  own = {"name": "not_here", "width": 3}
  run = doctor.Run(synthetic_run.write(tmp_path, cfg={"stage__quantizer": own}))
  assert run.get("stage.quantizer") == own
