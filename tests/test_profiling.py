"""Traces, utilization, the clock's rows and where compiled programs go."""

import types

import jax
import jax.numpy as jnp
import pytest

from helpers.errors import check_names, error_names, names
from magvit_jax.hardware import chips, compile_cache, mfu
from magvit_jax.monitoring import goodput, profiler


def trace_of(tmp_path, steps):
  said = []
  return profiler.Trace(steps, tmp_path / "profile", said.append), said


def run(trace, start, end):
  """Steps of a run; returns those that were inside a trace."""
  inside, x = [], jnp.ones(4)
  trace.begin(start)
  for step in range(start, end):
    with trace.step(step, lambda: x):
      if trace.on:
        inside.append(step)
  trace.close()
  return inside


def test_the_steps_asked_for_are_traced_also_in_a_run_that_goes_on(tmp_path):
  trace, said = trace_of(tmp_path, profiler.parse("3:5"))
  assert run(trace, 4, 8) == [4]
  (file,) = (tmp_path / "profile").rglob("*.xplane.pb")
  assert b"train" in file.read_bytes()  # the marks of the steps
  check_names(said[0], "3:5", tmp_path / "profile")


@pytest.mark.parametrize(
  "start, inside", [(0, [3, 4]), (3, [3, 4]), (4, [4]), (5, []), (6, [])]
)
def test_which_steps_are_inside(tmp_path, monkeypatch, start, inside):
  for name in ("start_trace", "stop_trace"):
    monkeypatch.setattr(jax.profiler, name, lambda *_, **__: None)
  trace, said = trace_of(tmp_path, profiler.Steps(3, 5))
  assert run(trace, start, 8) == inside
  written = any(names(text, tmp_path / "profile") for text in said)
  assert written == bool(inside)


def test_a_run_that_breaks_off_leaves_what_was_traced(tmp_path, monkeypatch):
  stopped = []
  monkeypatch.setattr(jax.profiler, "start_trace", lambda *_, **__: None)
  monkeypatch.setattr(jax.profiler, "stop_trace", lambda: stopped.append(1))
  trace, _ = trace_of(tmp_path, profiler.Steps(0, 5))
  assert run(trace, 0, 2) == [0, 1] and stopped == [1]


@pytest.mark.parametrize("text", ["3", "3:", "5:3", "4:4", "-1:2", "a:b", ""])
def test_wrong_steps_are_told_the_form(text):
  with error_names(ValueError, f"--profile_steps={text}", "FIRST:LAST"):
    profiler.parse(text)


def test_steps_behind_the_end_are_refused():
  profiler.check(None, 3)
  profiler.check(profiler.Steps(1, 3), 3)
  with error_names(ValueError, "--profile_steps=1:4", 3):
    profiler.check(profiler.Steps(1, 4), 3)


def device(kind):
  return types.SimpleNamespace(device_kind=kind)


def test_the_peak_is_that_of_all_devices_or_unknown():
  assert mfu.peak([device("TPU v5 lite")] * 4) == 4 * 197e12
  assert mfu.peak([device("NVIDIA H200")]) == 989e12
  assert mfu.peak([device("TPU v4"), device("cpu")]) is None
  assert mfu.peak(jax.devices()) is None
  assert set(mfu.TPUS.values()) == set(chips.CHIPS)


def test_utilization_counts_the_products_of_every_micro_batch():
  def program(x):
    def part(total, row):
      return total + (row @ row).sum(), None

    return jax.lax.scan(part, 0.0, x)[0]

  step = jax.make_jaxpr(program)(jnp.ones((5, 8, 8)))
  used = mfu.meter(step, [device("TPU v5e")] * 2)
  share = 5 * 2 * 8**3 / (2 * 197e12) / 0.25
  assert used(0.25) == {"mfu": pytest.approx(share)}


def test_no_figure_where_the_peak_is_unknown():
  step = jax.make_jaxpr(lambda x: x @ x)(jnp.ones((8, 8)))
  used = mfu.meter(step, jax.devices())
  assert used(0.25) == {}


def test_rows_of_time_add_up_over_restarts(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(goodput.time, "perf_counter", lambda: now[0])

  def spend(watch, part, seconds):
    with watch(part):
      now[0] += seconds

  first = goodput.Clock()
  spend(first, "compile", 3)
  spend(first, "step", 4)
  now[0] += 1  # nobody's
  rows = [first.take()]
  assert rows[0]["goodput"] == pytest.approx(4 / 8)
  assert rows[0]["seconds_other"] == pytest.approx(1)
  spend(first, "step", 2)
  rows.append(first.take())
  assert rows[1]["seconds_step"] == 2 and rows[1]["seconds_compile"] == 0
  assert rows[1]["goodput"] == pytest.approx(6 / 10)
  second = goodput.Clock()
  second.resume(rows)
  spend(second, "data", 5)
  spend(second, "step", 5)
  rows.append(second.take())
  assert rows[2]["goodput"] == pytest.approx(11 / 20)
  parts = goodput.add_up(rows)
  assert parts["step"] == 11 and sum(parts.values()) == pytest.approx(20)


def test_compiled_programs_go_to_the_users_cache(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  before = jax.config.jax_compilation_cache_dir
  compile_cache.enable()
  assert jax.config.jax_compilation_cache_dir == before  # what the user set
  chosen = {}
  fake = types.SimpleNamespace(
    jax_compilation_cache_dir=None, update=chosen.__setitem__
  )
  monkeypatch.setattr(compile_cache.jax, "config", fake)
  compile_cache.enable()
  folder = chosen["jax_compilation_cache_dir"]
  assert folder.startswith(str(tmp_path / "magvit_jax" / "xla"))
  assert list(tmp_path.rglob("xla/*")) == [compile_cache.folder()]
  # Another processor has another folder: CPU programs are not portable.
  info = tmp_path / "cpuinfo"
  info.write_text("model: 1\nflags\t: sse2 avx\n")
  monkeypatch.setattr(compile_cache, "_CPUINFO", info)
  assert str(compile_cache.folder()) != folder


def test_a_home_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
  (tmp_path / "file").write_text("")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
  fake = types.SimpleNamespace(
    jax_compilation_cache_dir="", update=lambda *_: pytest.fail("set")
  )
  monkeypatch.setattr(compile_cache.jax, "config", fake)
  compile_cache.enable()
