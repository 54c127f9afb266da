"""Kills trainings with SIGKILL at random moments, and counts what is lost.

  python benchmarks/kill_test.py --times=200

A run of a small stage through the real loop, which saves every second step, is
killed again and again and started again on the same workdir until it is done;
then the next run begins, until there were --times kills. Half of the moments
are uniform over the length of a whole run, half lie in or right after a save.
An undisturbed run comes first.

Lost means: a start went on from an earlier step than that of a checkpoint that
had been complete (under its final name) before a kill; or a start failed; or a
file was torn for its readers; or a run that was killed ended with other bits,
losses or scores than the undisturbed one. Ends with status 1 if anything was.
"""

import argparse
import collections
import json
import os
import pathlib
import re
import shutil
import signal
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from magvit_jax import run_config
from magvit_jax.checkpoints import checkpointer
from magvit_jax.monitoring import metric_writer
from magvit_jax.stages import Stage, TrainState
from magvit_jax.training import loop

STEPS = 24
EVERY = 2
SIDE = 96  # of the matrix that is trained
LIMIT = 600  # seconds after which a run counts as stuck
TIMES = ("seconds", "examples_per", "data_share", "goodput", "mfu")


class Noise:
  """Clips of noise."""

  files = ("noise",)
  shape = (1, 8, 8, 3)
  on_corrupt = "replace"

  def __len__(self):
    return 16

  def clip(self, i, rng):
    video = rng.integers(0, 256, self.shape).astype(np.uint8)
    return {"video": video, "label": 0, "file": 0, "name": "noise"}


def init(key, batch, frozen):
  """A matrix, its momentum and average."""
  del batch
  kernel = jax.random.normal(key, (SIDE, SIDE)) / SIDE**0.5
  zero = jnp.zeros((), jnp.int32)
  params = {"kernel": kernel}
  moment, ema = (jax.tree.map(jnp.copy, params) for _ in range(2))
  return TrainState(zero, params, {"mu": moment}, ema, frozen, {"bad": zero})


def step(state, batch, key):
  """Momentum on a loss that the batch, the key and the frozen array enter."""

  def loss_of(params):
    x = state.frozen["kernel"] * jnp.mean(batch["video"])
    x = x + 0.1 * jax.random.normal(key, (SIDE, SIDE))
    return jnp.mean((params["kernel"] @ x) ** 2)

  loss, grads = jax.value_and_grad(loss_of)(state.params)

  def mix(old, new):
    return jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, old, new)

  moment = mix(state.opt["mu"], grads)
  params = jax.tree.map(lambda p, m: p - m, state.params, moment)
  ema = mix(state.ema, params)
  extra = {"bad": jnp.zeros((), jnp.int32)}
  new = TrainState(
    state.step + 1, params, {"mu": moment}, ema, state.frozen, extra
  )
  return new, {"loss": loss}


def predict(state, batch):
  """The clips, darkened by what was learned."""
  keep = {k: batch[k] for k in ("video", "valid", "file")}
  return {**keep, "recon": keep["video"] * jnp.tanh(state.ema["kernel"][0, 0])}


def train(folder):
  """One start of the run in `folder`; returns when it is done."""
  cfg = run_config.base()
  cfg.steps, cfg.batch = STEPS, 2
  cfg.stage = dict(name="kill_test")
  cfg.data = dict(name="noise")
  cfg.loader = dict(threads=0, prefetch=1)
  cfg.eval = dict(every=10, batch=2, metrics=dict(psnr={}))
  cfg.checkpoint = dict(every=EVERY, keep=2, best="eval_psnr", best_mode="max")
  cfg.log.every = 1
  stage = Stage(init, step, {"predict": predict}, {"sizes": ()})
  parts = loop.Parts(stage, Noise(), Noise())
  kernel = np.random.default_rng(0).normal(size=(SIDE, SIDE))
  frozen = {"kernel": kernel.astype(np.float32)}
  loop.run(cfg, folder, parts=parts, frozen=frozen)


def fork(work, log):
  """Does `work()` in a child, with its output added to `log`; returns its pid.

  JAX is imported before and has no devices yet, so that a start is cheap.
  """
  pid = os.fork()
  if pid:
    return pid
  code = 1
  try:
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    work()
    code = 0
  except BaseException as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
  finally:
    sys.stdout.flush()
    os._exit(code)


def ended(pid):
  """The exit status of a child (negative: of the signal), None if it runs."""
  found, status = os.waitpid(pid, os.WNOHANG)
  return os.waitstatus_to_exitcode(status) if found else None


class Life:
  """A start of the run, watched until it ends or is killed.

  Attributes:
    code: its exit status.
    saves: seconds of each save that was seen whole.
    seconds: how long it took.
  """

  def __init__(self, folder, log, after=np.inf, save=0, delay=0.0):
    """Kills after some seconds, or `delay` seconds into the save'th save."""
    self.saves = []
    opened, numbered, seen = None, np.inf, 0
    began = time.monotonic()
    pid = fork(lambda: train(folder), log)
    code = None
    while code is None:
      now, writing = time.monotonic(), bool(unfinished(folder))
      if writing and opened is None:
        opened, seen = now, seen + 1
        numbered = now if seen == save else numbered
      elif not writing and opened is not None:
        self.saves.append(now - opened)
        opened = None
      self.seconds = now - began
      if self.seconds > min(after, LIMIT) or now - numbered > delay:
        os.kill(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
      else:
        time.sleep(0.002)
        code = ended(pid)
    self.code, self.stuck = code, self.seconds > LIMIT


def unfinished(folder):
  """Names of checkpoints that are being written."""
  try:
    names = os.listdir(folder / "checkpoints")
  except FileNotFoundError:
    return []
  return [name for name in names if not name.isdigit()]


class Count:
  """Kills a run until it is done, and finds out what was lost."""

  def __init__(self, root, seed):
    self.root = root
    self.rng = np.random.default_rng(seed)
    self.counts = collections.Counter()
    self.again = []  # steps that were taken again after a kill
    self.from_steps = collections.Counter()
    self.problems = []
    whole = Life(root / "whole", root / "whole.txt")
    if whole.code:
      raise RuntimeError(f"the undisturbed run failed: see {root}/whole.txt")
    self.seconds, self.save = whole.seconds, float(np.median(whole.saves))

  def run(self, name, kills):
    """One run from its start to DONE with at most `kills` kills; how many."""
    folder, log = self.root / name, self.root / f"{name}.txt"
    done, safe = 0, 0
    while True:
      length = log.stat().st_size if log.exists() else 0
      life = Life(folder, log, **(self.moment() if done < kills else {}))
      text = log.read_text()[length:]
      self.look(name, text, safe)
      if life.code == 0:
        break
      if life.code != -signal.SIGKILL or life.stuck:
        self.problem(name, f"ended with {life.code}: {text[-300:]}")
        return done
      done += 1
      self.after(name, folder, text)
      safe = max([safe, *checkpointer.steps(folder)])
    self.finished(name, folder)
    return done

  def moment(self):
    """When to kill: `Life`'s arguments."""
    if self.rng.random() < 0.5:
      return {"after": self.seconds * self.rng.random()}
    delay = 1.3 * self.save * self.rng.random()
    return {"save": int(self.rng.integers(1, 5)), "delay": delay}

  def look(self, name, text, safe):
    """What a start said: from where it went on."""
    self.counts["starts"] += 1
    self.counts["fallbacks"] += text.count("is damaged")
    found = re.search(r"resumed from step (\d+)", text)
    if not found:
      return
    start = int(found[1])
    self.from_steps[start] += 1
    if start < safe:
      self.problem(name, f"went on from {start}, and {safe} was complete")

  def after(self, name, folder, text):
    """What a kill left."""
    self.counts["kills"] += 1
    self.counts["kills in a save"] += bool(unfinished(folder))
    begun = "loss" in text or "held-out" in text
    self.counts["kills before the first step"] += not begun
    frozen = folder / "frozen"
    unsure = frozen.exists() and not (frozen / "sha256").exists()
    self.counts["kills while frozen arrays were written"] += unsure
    steps = checkpointer.steps(folder)
    rows = self.rows(name, folder)
    if rows:
      self.again.append(rows[-1]["step"] - max(steps, default=0))
    if (folder / "config.json").exists():
      json.loads((folder / "config.json").read_text())
    elif steps:
      self.problem(name, "checkpoints without config.json")
    if (folder / "DONE").exists() and STEPS not in steps:
      self.problem(name, "DONE without the last checkpoint")

  def rows(self, name, folder):
    """The rows that readers see; only the last line may be torn."""
    path = folder / "metrics.jsonl"
    if not path.exists():
      return []
    lines = path.read_text().splitlines()
    rows = metric_writer.read(path, STEPS)
    self.counts["torn lines, passed over"] += len(lines) - len(rows)
    if len(lines) - len(rows) > 1:
      self.problem(name, f"{len(lines) - len(rows)} torn lines of metrics")
    return rows

  def finished(self, name, folder):
    """The rows of a run that was killed are those of the undisturbed one."""
    self.counts["runs"] += 1
    wanted = curves(self.root / "whole")
    if curves(folder) != wanted:
      self.problem(name, "other losses or scores than the undisturbed run")
    if (folder / "DONE").read_text() != f"step {STEPS}\n":
      self.problem(name, "DONE is torn")
    if unfinished(folder):
      self.problem(name, f"left behind: {unfinished(folder)}")

  def compare(self, names):
    """Reads the last checkpoints, in a child: this process has no devices."""
    log = self.root / "compare.txt"
    pid = fork(lambda: same_bits(self.root, names), log)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
      self.problem("bits", log.read_text()[-500:])

  def problem(self, name, text):
    self.problems.append(f"{name}: {text}")
    print(f"LOST {name}: {text}", flush=True)


def curves(folder):
  """Rows of losses and scores, without times."""
  rows = [
    {k: v for k, v in row.items() if not k.startswith(TIMES)}
    for row in metric_writer.read(folder / "metrics.jsonl", STEPS)
    if row["kind"] != "time"
  ]
  return sorted(rows, key=lambda row: (row["step"], row["kind"]))


def same_bits(root, names):
  """ValueError unless the last checkpoints of all runs are the same."""
  shapes = jax.eval_shape(
    init, jax.random.key(0), {}, {"kernel": jnp.zeros((SIDE, SIDE))}
  )
  for item in checkpointer.ITEMS:
    whole, *others = (
      checkpointer.load_params(root / name, getattr(shapes, item), item, STEPS)
      for name in ("whole", *names)
    )
    for name, other in zip(names, others, strict=True):
      same = jax.tree.map(lambda a, b: bool((a == b).all()), whole, other)
      if not all(jax.tree.leaves(same)):
        raise ValueError(f"{item} of {name} has other bits")


def kill(times, seed, root):
  """Kills `times` times; returns the counts and the problems."""
  flags.FLAGS.mark_as_parsed()  # of grain
  jax.config.update("jax_compilation_cache_dir", str(root / "programs"))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
  count, names = Count(root, seed), []
  while count.counts["kills"] < times and not count.problems:
    names.append(f"run{len(names)}")
    count.run(names[-1], times - count.counts["kills"])
    print(f"{names[-1]}: {count.counts['kills']} kills so far", flush=True)
  if not count.problems:
    count.compare(names)
  return count


def report(count):
  """Text: the counts."""
  lines = [f"{value:5d} {name}" for name, value in count.counts.items()]
  starts = sorted(count.from_steps)
  again = count.again or [0]
  lines += [
    f"{len(count.problems):5d} lost",
    f"went on from {len(starts)} different steps, {starts}",
    f"steps taken again after a kill: {np.mean(again):.1f} on average, at most "
    f"{max(again)}, with saves {EVERY} steps apart that took "
    f"{count.save:.2f} s",
  ]
  return "\n".join(lines)


def main() -> int:
  """Prints the counts; 1 if anything was lost."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--times", type=int, default=20, help="kills")
  parser.add_argument("--seed", type=int, default=0, help="of the moments")
  parser.add_argument("--keep", default="", help="folder to leave the runs in")
  args = parser.parse_args()
  root = pathlib.Path(args.keep or tempfile.mkdtemp(prefix="magvit_jax_kill_"))
  root.mkdir(parents=True, exist_ok=True)
  try:
    count = kill(args.times, args.seed, root)
    print(report(count))
    return int(bool(count.problems))
  finally:
    if not args.keep:
      shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
  sys.exit(main())
