"""Every shipped config: its text is golden, and it traces at full size.

`UPDATE_GOLDEN=1 python -m pytest tests/test_configs.py` rewrites the texts.
"""

import contextlib
import inspect
import json
import os
import pathlib

import jax
import numpy as np
import PIL.Image
import pytest

from helpers import video_files
from helpers.errors import error_names
from magvit_jax import configs, registry, run_config, tokenizers
from magvit_jax.checkpoints import frozen_params
from magvit_jax.configs import common
from magvit_jax.data import joint, pipeline
from magvit_jax.files import workdirs
from magvit_jax.stages import _generator_model
from magvit_jax.tasks import tables
from magvit_jax.training import loop

ROOT = pathlib.Path(next(iter(configs.__path__)))
GOLDEN = pathlib.Path(__file__).parent / "golden"
NAMES = sorted(
  path.relative_to(ROOT).with_suffix("").as_posix()
  for path in ROOT.glob("*/*.py")
  if path.stem != "__init__"
)


def variants(name):
  """Specs of a config: as it is, and each choice of its argument alone."""
  calls, parse = [], common.parse_arg

  def note(arg, **choices):
    calls.append(choices)
    return parse(arg, **choices)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(common, "parse_arg", note)
    run_config.load_config(name)
  # The first call is its own, others are of configs that it starts from.
  offered = calls[0].items() if calls else ()
  others = [f"{k}={v}" for k, values in offered for v in values[1:]]
  return [name, *(f"{name}:{other}" for other in others)]


SPECS = [spec for name in NAMES for spec in variants(name)]
# Perceptual losses are the same in all tokenizers of the MAGVIT family.
TRACED = [
  spec
  for spec in SPECS
  if "perceptual=" not in spec or spec.startswith("tokenizer/ucf101")
]
# So are their steps: a trace of R1 is long. Of UCF-101 it is that of each
# perceptual loss and of the last rung.
FAMILY = ("bair", "imagenet", "k600", "ssv2", "ucf101")
STEPS = (
  "tokenizer/k600:images=folder",
  "tokenizer/ucf101:model=magvit2",
  "tokenizer/ucf101:perceptual=lpips",
  "tokenizer/ucf101:perceptual=resnet50",
)
NO_STEP = [
  spec
  for spec in TRACED
  if spec.startswith(tuple(f"tokenizer/{name}:" for name in FAMILY))
  and spec not in STEPS
]


def test_there_are_configs_and_they_say_how_to_run_them():
  assert "tokenizer/clips" in NAMES
  for name in NAMES:
    text = (ROOT / f"{name}.py").read_text()
    assert f"python -m magvit_jax train --config={name}" in text, name


@pytest.mark.parametrize("spec", SPECS)
def test_the_resolved_text_is_golden(spec):
  cfg = workdirs.normal(run_config.load_config(spec))
  text = json.dumps(cfg, indent=2, sort_keys=True) + "\n"
  path = GOLDEN / f"{spec.replace('/', '-').replace(':', '-')}.json"
  if os.environ.get("UPDATE_GOLDEN"):
    GOLDEN.mkdir(exist_ok=True)
    path.write_text(text)
  assert path.is_file(), f"no {path}: rewrite with UPDATE_GOLDEN=1"
  assert text == path.read_text(), "meant? rewrite with UPDATE_GOLDEN=1"


def test_no_golden_text_is_left_without_its_config():
  wanted = {s.replace("/", "-").replace(":", "-") for s in SPECS}
  assert {path.stem for path in GOLDEN.glob("*.json")} == wanted


def tokenizer_of(spec):
  """The config that a generator's tokenizer is trained with.

  Of those whose name its own begins with, the longest; of the choices of its
  argument `size` and `model` are the tokenizer's too.
  """
  name, _, arg = spec.removeprefix("generator/").partition(":")
  known = [n.removeprefix("tokenizer/") for n in NAMES if n[0] == "t"]
  own = max((n for n in known if name.startswith(n)), key=len)
  shared = arg.startswith(("size=", "model="))
  return run_config.load_config(
    f"tokenizer/{own}" + (f":{arg}" if shared else "")
  )


def shapes(spec, cfg):
  """A batch of a config as videos, without opening its data."""
  shape = jax.ShapeDtypeStruct
  # Records of tokens are of the clips of the tokenizer's run.
  data = cfg.data if "frames" in cfg.data else tokenizer_of(spec).data
  b, t, (h, w) = cfg.batch, data.frames, data.size
  batch = {k: shape((b,), np.int32) for k in ("label", "file", "index")}
  batch["valid"] = shape((b,), bool)
  if "images" in cfg:
    image = (cfg.images.batch, 1, *cfg.images.data.size, 3)
    batch["image"] = shape(image, np.float32)
  return {**batch, "video": shape((b, t, h, w, 3), np.float32)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Videos and images in classes, as configs of folders want them."""
  root = tmp_path_factory.mktemp("folder")
  for n in range(3):
    (root / "ab"[n % 2]).mkdir(exist_ok=True)
    file = root / "ab"[n % 2] / str(n)
    video_files.write(f"{file}.mp4", video_files.pictures(60))
    PIL.Image.fromarray(video_files.pictures(1)[0]).save(f"{file}.png")
  return str(root)


FOLDERS = [
  n for n in NAMES if run_config.load_config(n).data.name == "video_folder"
]
FOLDERS = [n for n in FOLDERS if n.startswith("tokenizer/")]


@pytest.mark.parametrize(
  "spec",
  [*(f"{n}:smoke" for n in FOLDERS), "tokenizer/k600:smoke,images=folder"],
)
def test_a_run_on_a_folder_gets_the_batches_that_are_traced(spec, folder):
  cfg = run_config.load_config(spec)
  for data in [cfg.data, *([cfg.images.data] if "images" in cfg else [])]:
    data.root = folder
  cfg.data.holdout = 0.4
  parts = loop.make_parts(cfg)
  stream = joint.train_batches(
    parts.train,
    parts.images,
    seed=0,
    batch=cfg.batch,
    start=0,
    rows=slice,
    loader=dict(threads=0),
  )
  with contextlib.closing(stream):
    batch = pipeline.arrays(next(stream))
  wanted = shapes(spec, cfg)
  del wanted["index"]
  kinds = {k: (v.shape, v.dtype) for k, v in wanted.items()}
  assert {k: (v.shape, v.dtype) for k, v in batch.items()} == kinds
  assert len(parts.evaluation) == cfg.data.eval_clips
  parts.stage.context["latent_shape"](*parts.evaluation.shape[:3])


def stage_of(spec, cfg, batch):
  """(stage, shapes of its frozen arrays)."""
  if "tokenizer" not in cfg:
    stage = registry.build("stages", cfg.stage, steps=cfg.steps)
    return stage, frozen_params.shapes(cfg)
  tokenizer = registry.plain(tokenizer_of(spec).stage)
  tokenizer = {part: tokenizer[part] for part in frozen_params.PARTS}
  stage = registry.build(
    "stages",
    cfg.stage,
    steps=cfg.steps,
    tokenizer=tokenizer,
    shape=batch["video"].shape[1:],
    classes=3,
  )
  module = tokenizers.build_tokenizer(tokenizer)
  return stage, {"tokenizer": tokenizers.abstract(module)}


def check_step(stage, state, batch, key):
  """A step gives a state like the one it took, and scalars."""
  after, metrics = jax.eval_shape(stage.step, state, batch, key)
  kinds = [
    jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (state, after)
  ]
  assert kinds[0] == kinds[1]
  assert {(m.shape, m.dtype) for m in metrics.values()} == {
    ((), np.dtype("float32"))
  }


@pytest.mark.parametrize("spec", TRACED)
def test_init_step_and_predict_trace_at_full_size(spec):
  cfg = run_config.load_config(spec)
  batch = shapes(spec, cfg)
  stage, arrays = stage_of(spec, cfg, batch)
  if cfg.data.name == "token_records":
    del batch["video"]
    ids = (cfg.batch, *stage.context["grid"], len(stage.context["sizes"]))
    batch["ids"] = jax.ShapeDtypeStruct(ids, np.int32)
    tokenizer = tokenizer_of(spec).stage
    module = tokenizers.build_tokenizer(tokenizer)
    shape = stage.context["shape"]
    for name in _generator_model.needs_of(module, cfg.stage.tasks, shape):
      batch[tables.ids_key(name)] = batch["ids"]
  key = jax.random.key(0)
  state = jax.eval_shape(stage.init, key, batch, arrays)
  if spec not in NO_STEP:
    check_step(stage, state, batch, key)
  out = jax.eval_shape(stage.programs["predict"], state, batch)
  for name in cfg.eval.metrics:
    update = inspect.signature(registry.load("metrics", name).update)
    named = (p for p in update.parameters.values() if p.kind is p.KEYWORD_ONLY)
    needed = {p.name for p in named if p.default is p.empty} - {"frozen"}
    assert needed <= set(out), name
  if spec.startswith("tokenizer/"):
    grid = stage.context["latent_shape"](*batch["video"].shape[1:4])[:-1]
    assert out["recon"].shape == batch["video"].shape
    assert out["ids"].shape == (cfg.batch, *grid, len(stage.context["sizes"]))


@pytest.mark.parametrize("spec", SPECS)
def test_components_and_metrics_take_what_a_config_gives_them(spec):
  cfg = registry.plain(run_config.load_config(spec))
  groups = [("stages", cfg["stage"]), ("data", cfg["data"])]
  groups += [("data", cfg["images"]["data"])] if "images" in cfg else []
  for family, group in groups:
    taken = registry.arguments(registry.load(family, group["name"]))
    assert set(group) - {"name"} <= set(taken), family
  for name, args in cfg["eval"]["metrics"].items():
    taken = registry.arguments(registry.load("metrics", name))
    assert set(args) <= set(taken), name


def test_the_quickstart_spends_at_most_a_tenth_of_a_bit_per_pixel():
  for spec in ("tokenizer/clips", "tokenizer/clips:quantizer=fsq"):
    cfg = run_config.load_config(spec)
    stage = registry.build("stages", cfg.stage, steps=cfg.steps)
    t, (h, w) = cfg.data.frames, cfg.data.size
    tokens = np.prod(stage.context["latent_shape"](t, h, w)[:-1])
    bits = tokens * np.log2(stage.context["sizes"]).sum()
    assert bits / (t * h * w) <= 0.1


@pytest.mark.parametrize(
  "arg, named",
  [
    ("quantizer=fsk", ["quantizer=fsk", "fsq"]),
    ("smok", ["smok", "smoke"]),
    ("quantiser=fsq", ["quantiser=fsq", "quantizer"]),
    ("lfq,vq", ["vq", "quantizer=lfq|fsq"]),
  ],
)
def test_wrong_config_arguments_are_told_what_is_offered(arg, named):
  with error_names(ValueError, *named):
    run_config.load_config(f"tokenizer/clips:{arg}")


def test_config_arguments_go_with_or_without_their_key_in_any_order():
  a = run_config.load_config("tokenizer/clips:smoke,fsq")
  b = run_config.load_config("tokenizer/clips:quantizer=fsq,size=smoke")
  assert a == b and a.stage.quantizer.name == "fsq" and a.steps == 4
