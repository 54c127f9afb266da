"""Verbs, config names and --config.… overrides."""

import ml_collections
import pytest

from helpers.errors import check_names, error_names
from magvit_jax import __main__ as command
from magvit_jax import run_config
from magvit_jax.monitoring import incidents
from magvit_jax.training import loop

CONFIG = """
import ml_collections

def get_config(arg="small"):
  return ml_collections.ConfigDict(
    dict(
      steps=5,
      kind=arg,
      data=dict(root="", size=(64, 64), flip=True),
      stage=dict(optim=dict(lr=0.1)),
    )
  )
"""


@pytest.fixture
def spec(tmp_path):
  path = tmp_path / "toy.py"
  path.write_text(CONFIG)
  return str(path)


@pytest.fixture
def ran(monkeypatch):
  """Calls of loop.run, which returns `ran.result`."""

  class Ran(list):
    result = {"step": 5, "stopped": 0}

  calls = Ran()

  def run(*args, profile):
    calls.append((*args, profile))
    return calls.result

  monkeypatch.setattr(loop, "run", run)
  return calls


def test_flags_reach_the_loop_with_the_types_of_the_config(spec, ran):
  code = command.main(
    [
      "train",
      f"--config={spec}:large",
      "--workdir=w",
      "--resume=never",
      "--config.steps=2e3",
      "--config.data.root=/my/videos",
      "--config.data.size=(32, 48)",
      "--config.data.flip",
      "false",
      "--config.stage.optim.lr=1",
      "--profile_steps=3:5",
    ]
  )
  ((cfg, folder, resume, profile),) = ran
  assert (code, folder, resume, profile) == (0, "w", "never", (3, 5))
  assert cfg.kind == "large" and cfg.steps == 2000
  assert cfg.data.root == "/my/videos" and cfg.data.size == (32, 48)
  assert cfg.data.flip is False
  assert cfg.stage.optim.lr == 1.0 and type(cfg.stage.optim.lr) is float


def test_a_stopped_run_exits_with_the_signal(spec, ran):
  ran.result = {"step": 2, "stopped": 15}
  assert command.main(["train", f"--config={spec}", "--workdir=w"]) == 143


@pytest.mark.parametrize(
  "flag, named",
  [
    ("--config.stepz=1", ["stepz", "steps"]),
    ("--config.stage.optim.rl=1", ["config.stage.optim", "rl"]),
    ("--config.steps.more=1", ["config.steps"]),
    ("--config.steps=many", ["many", "int"]),
    ("--config.steps=1.5", ["1.5", "int"]),
    ("--config.data.flip=1", ["1", "bool"]),
    ("--config.stage.optim=1", ["config.stage.optim"]),
    ("--config.steps", ["--config.steps"]),
    ("--stepz=1", ["--stepz"]),
    ("--profile_steps=5:3", ["--profile_steps=5:3", "FIRST:LAST"]),
    ("--profile_steps=5", ["--profile_steps=5", "FIRST:LAST"]),
  ],
)
def test_wrong_flags_are_one_clear_line(spec, ran, capsys, flag, named):
  code = command.main(["train", f"--config={spec}", "--workdir=w", flag])
  error = capsys.readouterr().err
  assert code == 2 and not ran
  assert error.startswith("error: ")
  check_names(error, *named)
  assert "Traceback" not in error and len(error.splitlines()) == 1


def test_debug_shows_the_traceback(spec):
  flags = [f"--config={spec}", "--workdir=w", "--config.stepz=1", "--debug"]
  with pytest.raises(KeyError):
    command.main(["train", *flags])


@pytest.mark.parametrize(
  "error",
  [OSError("disk"), incidents.NonFiniteError("step 9"), KeyError("no 'x'")],
)
def test_what_the_loop_raises_is_one_line_too(spec, monkeypatch, capsys, error):
  def run(*args, **kwargs):
    raise error

  monkeypatch.setattr(loop, "run", run)
  assert command.main(["train", f"--config={spec}", "--workdir=w"]) == 2
  assert capsys.readouterr().err == f"error: {error.args[0]}\n"


def test_config_names_are_found_and_suggested(tmp_path, monkeypatch):
  folder = tmp_path / "configs"
  (folder / "tokenizer").mkdir(parents=True)
  (folder / "tokenizer" / "toy.py").write_text(CONFIG)
  monkeypatch.setattr(run_config, "_config_folders", lambda: [folder])
  assert run_config.load_config("tokenizer/toy").kind == "small"
  assert run_config.load_config("tokenizer/toy:b").kind == "b"
  with error_names(FileNotFoundError, "tokenizer/toi", "tokenizer/toy"):
    run_config.load_config("tokenizer/toi")


def test_verbs_are_the_files_and_a_wrong_one_is_told_the_near_one(capsys):
  assert command.main([]) == 0
  out = capsys.readouterr().out
  check_names(out, "train", "evaluate", "report", "sample")
  assert command.main(["trian"]) == 2
  check_names(capsys.readouterr().err, "trian", "train")


def test_help_shows_an_example(capsys):
  with pytest.raises(SystemExit) as stop:
    command.main(["train", "--help"])
  assert stop.value.code == 0
  assert "python -m magvit_jax train --config=" in capsys.readouterr().out


def test_none_valued_keys_take_any_value():
  cfg = ml_collections.ConfigDict(
    {"x": ml_collections.config_dict.placeholder(int)}
  )
  run_config.override(cfg, ["--config.x=3"])
  assert cfg.x == 3
