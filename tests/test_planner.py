"""Plans of real configs: programs, topologies, text, search.

A CPU stands for the pod where a program is compiled, as its HLO is the same
language; the accounting of what only a TPU's compiler writes is in
test_planner_cost.
"""

import json
import os

import jax
import jax.numpy as jnp
import pytest

from helpers.errors import check_names, error_names
from magvit_jax import run_config, sharding
from magvit_jax.cli import plan as verb
from magvit_jax.hardware import chips, flops
from magvit_jax.planner import compile as compiling
from magvit_jax.planner import plan, programs, search, text

ONE = chips.parse("v5e:1x1")


@pytest.fixture
def mesh():
  return sharding.make_mesh(devices=jax.devices()[:1])


def config(spec="tokenizer/clips:smoke"):
  return programs.resolve(run_config.load_config(spec), spec, "")


def without_a_pod(patch):
  patch.setattr(compiling, "devices", lambda _: jax.devices()[:1])
  patch.setattr(plan, "_libtpu", lambda: "none")


@pytest.fixture(scope="module")
def planned():
  """The encode program, compiled for the CPU."""
  with pytest.MonkeyPatch.context() as patch:
    without_a_pod(patch)
    return plan.make(config(), ONE, "encode", "tokenizer/clips:smoke")


@pytest.mark.parametrize(
  "name, devices",
  [
    ("v4:2x2x4", 16),
    ("v5e:16x16", 256),
    ("v5p:2x2x4", 16),
    ("v6e:4x4", 16),
    ("tpu7x:2x2x4", 32),
  ],
)
def test_topologies(name, devices):
  assert chips.parse(name).devices == devices
  assert chips.parse(name, slices=3).devices == 3 * devices


@pytest.mark.parametrize(
  "name, slices, named",
  [
    ("v9:4x4", 1, ["--topology=v9:4x4", "v9", "v4, v5e, v5p, v6e, tpu7x"]),
    ("v5:4x4", 1, ["--topology=v5:4x4", "v5", "v5p"]),
    ("v5e", 1, ["--topology=v5e", 2, "v5e:4x4"]),
    ("v5e:4x4x4", 1, ["v5e:4x4x4"]),
    ("v5p:4x4", 1, ["v5p:4x4"]),
    ("v5e:3x5", 1, ["v5e:3x5"]),
    ("v5e:4x4", 0, ["--slices=0", 1]),
  ],
)
def test_unknown_topologies_say_which_there_are(name, slices, named):
  with error_names(ValueError, *named):
    chips.parse(name, slices)


def test_a_missing_libtpu_has_a_cure(monkeypatch):
  from jax.experimental import topologies

  def refuse(**_):
    raise RuntimeError("JAX TPU support not installed; cannot generate")

  monkeypatch.setattr(topologies, "get_topology_desc", refuse)
  with error_names(ValueError, "libtpu", "[plan]"):
    compiling.devices(ONE)


def test_the_clock_and_the_peak_of_a_chip_agree():
  """A cycle does a whole number of 128x128 products."""
  for name, chip in chips.CHIPS.items():
    units = chip.peak / chip.clock / (2 * 128**2)
    assert units == pytest.approx(round(units), rel=0.003), name


@pytest.mark.parametrize("spec", ["tokenizer/clips:smoke"])
@pytest.mark.parametrize("name", ["train", "predict", "encode", "decode"])
def test_programs_of_the_tokenizer_trace(spec, name, mesh):
  made = programs.make(config(spec), name, mesh)
  traced = made.trace()
  assert flops.count(traced.jaxpr).matmul > 0
  assert made.steps == (4 if name == "train" else 0)


@pytest.mark.parametrize("name", ["train", "sample"])
def test_programs_of_the_generator_trace(name, mesh):
  made = programs.make(config("generator/clips:smoke"), name, mesh)
  assert made.state.frozen["tokenizer"]
  assert flops.count(made.trace().jaxpr).matmul > 0


def test_a_sample_is_planned_with_the_kernels(mesh):
  """Which need to know the mesh, as the gathering of weights does."""
  cfg = config("generator/ucf101:smoke")
  net = cfg.stage.generator.transformer
  net.width, net.heads = 128, 2
  made = programs.make(cfg, "sample", mesh)
  assert flops.count(made.trace().jaxpr).kernel > 0


def test_the_program_is_the_one_for_a_tpu(mesh):
  """dtype 'auto' asks for the platform: bfloat16 there, float32 here."""
  made = programs.make(config(), "encode", mesh)
  dots = [
    e.outvars[0].aval.dtype
    for e in made.trace().jaxpr.eqns
    if e.primitive.name == "dot_general"
  ]
  assert jnp.bfloat16 in dots
  assert jax.default_backend() == "cpu"


def test_flops_follow_the_batch(mesh):
  cfg = config()
  small = flops.model_flops(programs.make(cfg, "train", mesh).trace().jaxpr)
  programs.set_batch(cfg, ONE, 3 * cfg.batch)
  big = flops.model_flops(programs.make(cfg, "train", mesh).trace().jaxpr)
  assert big.matmul == pytest.approx(3 * small.matmul, rel=0.01)


def test_a_program_that_the_stage_lacks(mesh):
  with error_names(
    KeyError, "--program=sample", "tokenizer", "train, predict, encode, decode"
  ):
    programs.make(config(), "sample", mesh)


def test_a_batch_that_the_mesh_does_not_divide():
  topology = chips.parse("v5e:4x4")
  cfg = config()
  assert programs.batch_parts(cfg, topology) == 16
  programs.set_batch(cfg, topology, 2)
  assert (cfg.batch, cfg.eval.batch) == (32, 32)
  cfg.mesh.context = 4
  assert programs.batch_parts(cfg, topology) == 4
  with error_names(ValueError, "--per_chip_batch=0"):
    programs.set_batch(cfg, topology, 0)


def test_a_generator_needs_a_tokenizer():
  cfg = run_config.load_config("generator/clips:smoke")
  cfg.tokenizer.workdir = "/nowhere"
  with error_names(
    ValueError, "--config=/my/own.py", "/nowhere", "--tokenizer=tokenizer/NAME"
  ):
    programs.resolve(cfg, "/my/own.py", "")


def test_a_plan_adds_up(planned):
  memory, seconds = planned["memory"], planned["seconds"]
  assert memory["fits"] and memory["arguments"] > 0
  assert planned["flops"]["matmul"] > 0
  compute = seconds["matmul"] + seconds["elementwise"] + seconds["movement"]
  assert planned["step"]["no_overlap"] == pytest.approx(compute)
  assert planned["mfu"]["no_overlap"] == pytest.approx(
    planned["flops"]["matmul"] / 197e12 / compute
  )
  rate = planned["examples_per_second"]["no_overlap"]
  assert rate == pytest.approx(planned["batch"] / compute)
  assert sum(planned["scopes"].values()) == pytest.approx(compute)
  times = [row["seconds"] for row in planned["dearest"]]
  assert times == sorted(times, reverse=True) and len(times) == plan.DEAREST
  assert json.loads(json.dumps(planned))["step"] == planned["step"]


def test_the_text_shows_the_figures_of_the_plan(planned):
  shown = text.report(planned)
  memory, count = planned["memory"], planned["flops"]
  kinds = ("matmul", "elementwise", "movement")
  check_names(
    shown,
    planned["topology"],
    f"batch {planned['batch']}",
    f"{memory['arguments'] / 2**30:.2f}",
    f"{memory['total'] / 2**30:.2f}",
    f"{(memory['capacity'] - memory['total']) / 2**30:.2f}",
    f"{count['matmul']:.4g}",
    *(f"{planned['cycles'][kind]:,}" for kind in kinds),
  )
  for overlap in ("no_overlap", "full_overlap"):
    rate = planned["examples_per_second"][overlap]
    check_names(shown, f"{planned['mfu'][overlap]:.1%}", f"{rate:,.1f}")
  check_names(shown, *(row["name"] for row in planned["dearest"]))


def test_a_shape_of_many_arrays_does_not_fill_the_screen(planned):
  new = json.loads(json.dumps(planned))
  new["dearest"][0]["shape"] = "f32[8], " * 100
  assert max(map(len, text.report(new).splitlines())) < 300


def test_against_names_what_changed(planned):
  new = json.loads(json.dumps(planned))
  scope = max(new["scopes"], key=new["scopes"].get)
  new["scopes"][scope] /= 2
  shown = text.difference(new, planned)
  assert scope in shown.split("cheaper:")[1].split("dearer:")[0]
  assert not any(name in shown.split("dearer:")[1] for name in new["scopes"])
  back = text.difference(planned, new)
  assert scope in back.split("dearer:")[1]


LISTED = """RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of \
memory in memory space hbm. Used 20.11G of 15.48G hbm. Exceeded hbm capacity \
by 4.63G.

  Largest program allocations in hbm:

  1. Size: 4.00G
     Operator: op_name="jit(train)/softmax" source_file="a.py" source_line=3
     Shape: bf16[256,1024,8192]{2,1,0:T(8,128)(2,1)}
     Unpadded size: 4.00G
     ==========================

  2. Size: 512.00M
     Shape: f32[128,1024,1024]{2,1,0:T(8,128)}
     ==========================
"""


def test_a_refusal_is_read():
  error = compiling.TooBig(LISTED)
  assert error.over == pytest.approx(4.63 * 2**30)
  assert [row["bytes"] for row in error.tensors] == [4 * 2**30, 2**29]
  assert error.tensors[0]["what"] == "bf16[256,1024,8192]"
  assert error.tensors[0]["source"] == "jit(train)/softmax"
  early = compiling.TooBig(
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required "
    "for HLO temporaries (33.50G) exceeds available HBM (15.75G)."
  )
  assert early.temporaries == 33.5 * 2**30 and not early.tensors


def test_what_does_not_fit_says_by_how_much(monkeypatch):
  def refuse(_):
    raise compiling.TooBig("HLO temporaries (33.50G) exceeds")

  without_a_pod(monkeypatch)
  monkeypatch.setattr(compiling, "compile_program", refuse)
  made = plan.make(config(), ONE, "encode", "x")
  memory = made["memory"]
  over = 33.5 * 2**30 + memory["arguments"] - 15.75 * 2**30
  assert not memory["fits"] and memory["over"] == over
  assert len(memory["tensors"]) == 3
  sizes = [row["bytes"] for row in memory["tensors"]]
  assert sizes == sorted(sizes, reverse=True)
  shown = text.report(made)
  check_names(shown, f"{over / 2**30:.2f}", memory["tensors"][0]["what"])


def fake(limit, rate):
  """Plans without a compiler: memory is the batch, speed is `rate`."""

  def make(cfg, topology, program, spec):
    each = cfg.batch // programs.batch_parts(cfg, topology)
    fits = each <= limit
    return {
      "memory": {"fits": fits, "total": each, "over": each, "capacity": 1},
      "examples_per_second": {"no_overlap": rate(each, cfg.mesh)},
      "step": {"no_overlap": 1.0},
      "ratio": {"no_overlap": 2.0},
    }

  return make


def test_search_grows_the_batch_while_it_fits_and_ranks():
  topology, lines = chips.parse("v5e:4x4"), []
  cfg = config()
  make = fake(4, lambda each, mesh: each * (2.0 if mesh.fsdp == 4 else 1.0))
  rows = search.run(cfg, topology, "train", "x", say=lines.append, make=make)
  assert len(rows) == len(lines) <= search.MOST
  assert rows[0]["values"]["batch"] == 4
  assert rows[0]["values"]["mesh"]["fsdp"] == 4
  fits = [row["plan"]["memory"]["fits"] for row in rows]
  assert fits == sorted(fits, reverse=True) and not fits[-1]
  assert cfg.mesh.fsdp == 1
  assert len(text.ranking(rows).splitlines()) >= len(rows)


def test_search_tries_remat_where_a_component_takes_it():
  cfg = config("generator/clips:smoke")
  assert search.remat_places(config()) == [("stage", "backbone")]
  (place,) = search.remat_places(cfg)
  assert place == ("stage", "generator", "transformer")
  one = chips.parse("v5e:1x1")
  new = search.apply(cfg, one, {"batch": 2, "remat": "full"})
  assert new.stage.generator.transformer.remat == "full"
  rows = search.run(
    cfg, one, "train", "x", say=print, make=fake(9**9, lambda each, mesh: 1.0)
  )
  assert {"dots", "full"} <= {row["values"].get("remat") for row in rows}


def test_search_shrinks_the_batch_until_it_fits():
  topology = chips.parse("v5e:2x2")
  cfg = config()
  programs.set_batch(cfg, topology, 16)
  make = fake(4, lambda each, mesh: each)
  rows = search.run(cfg, topology, "train", "x", say=print, make=make)
  assert rows[0]["values"]["batch"] == 4
  nothing = fake(0, lambda each, mesh: each)
  programs.set_batch(cfg, topology, 1)
  rows = search.run(cfg, topology, "train", "x", say=print, make=nothing)
  assert {row["values"]["batch"] for row in rows} == {1}
  assert not any(row["plan"]["memory"]["fits"] for row in rows)


def test_choices_are_planned_in_processes_of_their_own():
  assert search.apart(os.getpid) not in (os.getpid(), search.apart(os.getpid))
  with error_names(ChildProcessError, "memory"):
    search.apart(os._exit, 9)


def test_a_search_plans_apart_and_outlives_a_choice(monkeypatch):
  made, seen = fake(1, lambda each, mesh: each), []

  def apart(run, cfg, *args):
    seen.append(run)
    if cfg.mesh.fsdp == 2:
      raise ChildProcessError("it was killed")
    return made(cfg, *args)

  monkeypatch.setattr(search, "apart", apart)
  topology, lines = chips.parse("v5e:2x2"), []
  rows = search.run(config(), topology, "train", "x", say=lines.append)
  assert set(seen) == {plan.make}
  assert len(rows) == len(seen) - 1 == len(lines) - 1
  assert (
    sum("fsdp 2" in line and "it was killed" in line for line in lines) == 1
  )


@pytest.mark.parametrize(
  "flags, named",
  [
    (["--topology=v5e:4x4", "--against=/no/file"], ["--against=/no/file"]),
    (["--topology=v5e:4x4", "--json=/no/dir/f"], ["--json=/no/dir/f"]),
    (["--topology=nope"], ["--topology=nope"]),
    (["--topology=v5e:4x4", "--config.nope=1"], ["nope"]),
  ],
)
def test_wrong_flags_are_found_before_compiling(flags, named):
  with error_names((ValueError, OSError, KeyError), *named):
    verb.main(["--config=tokenizer/clips:smoke", *flags])


def test_the_verb_plans_and_compares(planned, tmp_path, capsys, monkeypatch):
  without_a_pod(monkeypatch)
  kept = tmp_path / "old.json"
  kept.write_text(json.dumps(planned))
  new = tmp_path / "new.json"
  code = verb.main(
    [
      "--config=tokenizer/clips:smoke",
      "--topology=v5e:1x1",
      "--program=encode",
      "--per_chip_batch=2",
      f"--json={new}",
      f"--against={kept}",
    ]
  )
  out = capsys.readouterr().out
  assert code == 0
  check_names(out, "tokenizer/clips:smoke", "encode", "v5e:1x1")
  assert json.loads(new.read_text())["batch"] == 2
