"""The training loop: the only one, for every stage.

`run` makes the mesh, the data and the stage, restores or initialises, and then
steps, logs, evaluates and saves. The host runs one step ahead of what it reads
back, so that dispatch stays asynchronous. Where a run is, is its step: batch s
and the key of step s depend on (seed, s) only, so a run that was cut in two is
bit for bit the run that was not.
"""

import contextlib
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from magvit_jax import registry, run_config, sharding, tree_utils
from magvit_jax.checkpoints import checkpointer, frozen_params, init_from
from magvit_jax.data import joint, pipeline
from magvit_jax.distributed import initialize, preemption, processes
from magvit_jax.files import paths, workdirs
from magvit_jax.hardware import mfu
from magvit_jax.monitoring import (
  disk_space,
  goodput,
  incidents,
  liveness,
  metric_writer,
  profiler,
  watchdog,
)
from magvit_jax.stages import Stage, TrainState, _accumulation
from magvit_jax.training import dependencies, evaluation
from magvit_jax.types import Array, PyTree, seed_key


class Parts(NamedTuple):
  """What a config builds: the stage, the sources, images beside the clips."""

  stage: Stage
  train: Any
  evaluation: Any
  images: joint.Images | None = None


def make_parts(cfg: Any) -> Parts:
  """Builds the stage and the sources of a (resolved) config.

  Raises:
    ValueError, OSError, KeyError, TypeError: a wrong config or data, such as
      clips of a size or length that the strides do not allow.
  """
  train = registry.build("data", cfg.data, split="train")
  cfg = dependencies.describe(cfg, train)
  extra = frozen_params.stage_args(cfg)
  stage = registry.build("stages", cfg.stage, steps=cfg.steps, **extra)
  if "latent_shape" in stage.context:
    stage.context["latent_shape"](*train.shape[:3])
  return Parts(
    stage,
    train,
    registry.build("data", cfg.data, split="eval"),
    joint.build(cfg, train.shape, stage.context),
  )


def run(
  cfg: Any,
  workdir: paths.Name,
  resume: str = "auto",
  parts: Parts | None = None,
  frozen: PyTree = None,
  profile: profiler.Steps | None = None,
) -> dict[str, Any]:
  """Trains until `cfg.steps`, or until a signal asks to stop.

  Args:
    cfg: ConfigDict; see configs/.
    workdir: folder of the run.
    resume: 'auto', 'never' or 'force'; see `workdir.prepare`.
    parts: stage and sources, in place of those that `cfg` names.
    frozen: read-only arrays for the stage, in place of the tokenizer that
      `cfg.tokenizer` names.
    profile: steps to trace into workdir/profile.

  Returns:
    'step' (int), 'stopped' (the signal number, or 0) and, when the run is
    whole, the last 'eval_…' results.

  Raises:
    incidents.NonFiniteError: three non-finite steps in a row.
    ValueError, OSError, KeyError, TypeError: a wrong config, workdir or data.
  """
  cfg = run_config.complete(cfg)
  _check_counts(cfg)
  watchdog.check(cfg.watch)
  init_from.check(cfg)
  profiler.check(profile, cfg.steps)
  mesh = sharding.make_mesh(**cfg.mesh)
  for name, count in joint.counts(cfg).items():
    sharding.local_rows(count, mesh, name)
  sharding.local_rows(cfg.eval.batch, mesh, "eval.batch")
  cfg, found = dependencies.resolve(cfg, workdir)
  mode = workdirs.plan(workdir, cfg, resume)
  seen = dict(mode=mode, config=cfg, steps=checkpointer.steps(workdir))
  processes.agree(f"what the workdir {workdir} holds", workdirs.normal(seen))
  if mode == "done":
    if jax.process_index() == 0:
      print(
        f"{workdir} is done: all {cfg.steps} steps are trained. Look at it "
        f"with: python -m magvit_jax report --workdir={workdir}"
      )
    return {"step": cfg.steps, "stopped": 0}
  # Wrong data is found before the workdir is touched.
  parts = parts or make_parts(cfg)
  for name, count in joint.counts(cfg).items():
    micro = _accumulation.micro_batch(count, parts.stage.accumulate)
    sharding.local_rows(micro, mesh, f"{name} / stage.accumulate")
  cfg = dependencies.describe(cfg, parts.train)
  workdirs.check_writable(workdir)
  processes.check_shared(workdir)
  with contextlib.ExitStack() as stack, initialize.together():
    stack.enter_context(liveness.only_run(workdir))
    loop = _Loop(cfg, paths.as_path(workdir), mesh, parts, stack, profile)
    loop.start(found if frozen is None else frozen)
    # What could not start leaves no config, and an earlier one as it was.
    if jax.process_index() == 0:
      workdirs.prepare(workdir, cfg, resume)
    stop = stack.enter_context(preemption.Stop())
    return loop.incidents.session(lambda: loop.step, lambda: loop.train(stop))


class _Loop:
  """One run. `start` makes the state, `train` takes the steps."""

  def __init__(self, cfg, workdir, mesh, parts, stack, profile):
    self.cfg, self.workdir, self.mesh, self.parts = cfg, workdir, mesh, parts
    self.stack = stack
    self.clock = goodput.Clock()
    self.writer: metric_writer.Writer | None = None
    self.key = seed_key(cfg.seed)
    self.step = 0
    self.incidents = incidents.Incidents(
      workdir, self.say, parts.train.files, cfg.watch.spike
    )
    stack.enter_context(
      watchdog.Watch(self.clock, lambda: self.step, self.incidents, cfg.watch)
    )
    self.pending: tuple[int, dict[str, Array], np.ndarray] | None = None
    self.saver = checkpointer.Checkpointer(
      workdir, **cfg.checkpoint, say=self.say
    )
    stack.callback(self.saver.close)
    self.trace = profiler.Trace(profile, workdir / profiler.FOLDER, self.say)
    stack.callback(self.trace.close)

  def say(self, text: str) -> None:
    if self.writer is not None:
      self.writer.say(text)
    elif jax.process_index() == 0:
      print(text, flush=True)

  def start(self, frozen: PyTree) -> None:
    """Data, state (restored, warm or new) and the compiled step."""
    cfg = self.cfg
    with self.clock("data"):
      first = self._open(self.saver.latest() or 0)
    with self.clock("compile"):
      init, batch = self.parts.stage.init, self._put(first)
      abstract = sharding.lay(
        jax.eval_shape(init, self.key, batch, frozen), self.mesh
      )
      layout = jax.tree.map(lambda x: x.sharding, abstract)
      frozen = processes.put(frozen, layout.frozen)
      init = jax.jit(init, out_shardings=layout)
    workdirs.check_space(self.workdir, abstract)
    self.space = disk_space.Space(self.workdir, cfg, abstract, self.incidents)
    self._restore(abstract, init, batch, frozen)
    self.step = int(self.state.step)
    if self.step > cfg.steps:
      raise ValueError(
        f"{self.workdir} is at step {self.step}, beyond steps={cfg.steps}; "
        "set more steps, or choose another --workdir"
      )
    if self.step != self.opened:
      with self.clock("data"):
        self._open(self.step)
    self.writer = metric_writer.Writer(
      self.workdir, steps=cfg.steps, start=self.step
    )
    self.stack.callback(self.writer.close)
    self.clock.resume(self.writer.rows("time"))
    self.incidents.resume(self.writer.rows("train"))
    self.trace.begin(self.step)
    self.say(tree_utils.table(self.state.params))
    if self.mesh.size > 1:
      self.say(sharding.table(abstract))
    with self.clock("compile"):
      program = train_program(self.parts.stage, self.state)
      traced = program.trace(self.state, batch, self.key)
      self.advance = traced.lower().compile()
      devices = self.mesh.devices.flat
      self.utilization = mfu.meter(traced.jaxpr, devices)
      self.predict = jax.jit(self.parts.stage.programs["predict"])

  def train(self, stop: preemption.Stop) -> dict[str, Any]:
    """Steps to the end or to a signal; returns what `run` does."""
    cfg, results = self.cfg, {}
    if self.step and processes.of_first(self._lacks_evaluation()):
      results = self._evaluate()
    self.clock.restart(self.step)
    while self.step < cfg.steps:
      self._one_step()
      last = self.step == cfg.steps
      evaluate = last or _due(self.step, cfg.eval.every)
      stopping = stop.requested(self.step)
      if evaluate or stopping or _due(self.step, cfg.checkpoint.every):
        self._settle()
        # A stop saves at once: the grace before a kill is short.
        results = self._evaluate() if evaluate and not stopping else {}
        self._save(results or None, force=last or stopping)
      if stopping:
        return self._stopped(stop.signal)
    with self.clock("checkpoint"):
      self.saver.wait()
    self._write_time()
    workdirs.mark_done(self.workdir, self.step)
    return {"step": self.step, "stopped": 0, **results}

  def _one_step(self) -> None:
    with self.clock("data"):
      host = next(self.batches)
      self.incidents.unreadable(self.step + 1, host)
      batch = self._put(host)
    with self.clock("step"), self.trace.step(self.step, lambda: self.state):
      self.state, metrics = self.advance(self.state, batch, self.key)
      self._settle()
    self.step += 1
    self.pending = (self.step, metrics, host["file"])

  def _settle(self) -> None:
    """Reads the metrics of the step before the one that is running."""
    if self.pending is None:
      return
    (step, metrics, files), self.pending = self.pending, None
    bad = int(metrics["bad"])
    if bad or _due(step, self.cfg.log.every) or step == self.cfg.steps:
      values = {k: float(v) for k, v in jax.device_get(metrics).items()}
      self._log(step, dict(values))
    if bad:
      saved = self.saver.latest()
      self.incidents.non_finite(step, bad, values, files, saved)
    else:
      self.incidents.finite(step, metrics, files)

  def _log(self, step: int, values: dict[str, float]) -> None:
    speed = self.clock.speed(step, self.cfg.batch)
    skipped = processes.total("skipped", self.incidents.skipped)
    values |= {**speed, "skipped": skipped}
    values |= self.utilization(speed["seconds_step"])
    rate = speed["examples_per_second"]
    self.writer.write(step, "train", values)
    self.writer.progress(step, values.get("loss", float("nan")), rate)

  def _lacks_evaluation(self) -> bool:
    """A stop saves before it evaluates, and DONE may not have been written."""
    last = self.step == self.cfg.steps
    due = _due(self.step, self.cfg.eval.every)
    return last or (due and not self.writer.had(self.step, "eval"))

  def _evaluate(self) -> dict[str, float]:
    with self.clock("eval"):
      results = evaluation.evaluate(
        self.predict,
        self.state,
        self.parts.evaluation,
        registry.plain(self.cfg.eval.metrics),
        batch=self.cfg.eval.batch,
        context=self.parts.stage.context,
        put=self._put,
        rows=sharding.local_rows(self.cfg.eval.batch, self.mesh),
        progress=self.writer.active and self.writer.terminal,
      )
    results = {f"eval_{name}": value for name, value in results.items()}
    if not self.writer.had(self.step, "eval"):
      self.writer.write(self.step, "eval", results)
    shown = ", ".join(f"{k[5:]} {v:.4g}" for k, v in results.items())
    self.say(f"step {self.step} on held-out clips: {shown}")
    return results

  def _save(self, metrics: dict[str, float] | None, force: bool) -> None:
    with self.clock("checkpoint"):
      self.space.look(self.step)
      self.writer.flush()
      self.saver.save(self.step, self.state, metrics, force=force)
    if not force:
      self._write_time()

  def _stopped(self, signal: int) -> dict[str, Any]:
    with self.clock("checkpoint"):
      self.saver.wait()
    self._write_time()
    self.say(
      f"stopped by {preemption.name(signal)} at step {self.step} of "
      f"{self.cfg.steps}; it is saved. Run the same command again to go on "
      f"(--workdir={self.workdir} --resume=auto)"
    )
    return {"step": self.step, "stopped": signal}

  def _write_time(self) -> None:
    self.writer.write(self.step, "time", self.clock.take())

  def _open(self, step: int) -> dict[str, Any]:
    """Starts the stream at a step and returns its first batch, unconsumed."""
    if hasattr(self, "stream"):
      self.stream.close()
    self.stream = joint.train_batches(
      self.parts.train,
      self.parts.images,
      seed=self.cfg.seed,
      batch=self.cfg.batch,
      start=step,
      rows=lambda count: sharding.local_rows(count, self.mesh),
      loader=registry.plain(self.cfg.loader),
    )
    self.stack.callback(self.stream.close)
    self.opened = step
    batches = iter(self.stream)
    first = next(batches)
    self.batches = itertools.chain([first], batches)
    return first

  def _put(self, batch: dict[str, Any]) -> dict[str, Array]:
    self.clock.beat()
    return sharding.put_batch(pipeline.arrays(batch), self.mesh)

  def _restore(
    self,
    abstract: TrainState,
    init: Callable[..., TrainState],
    batch: dict[str, Array],
    frozen: PyTree,
  ) -> None:
    """Sets `state`: restored, or initialised and perhaps warm-started."""
    with self.clock("checkpoint"):
      found = self.saver.restore(abstract)
      if found is not None:
        frozen = frozen_params.restore_arrays(self.workdir, abstract.frozen)
        self.state = found[1]._replace(frozen=frozen)
        self.say(f"resumed from step {found[0]}")
        return
      warm, source = None, self.cfg.init_from
      if source:  # what does not fit is found before anything is computed
        warm = init_from.match(source, abstract, self.cfg.inflate)
      frozen_params.save(self.workdir, frozen)
    with self.clock("compile"):
      self.state = init(self.key, batch, frozen)
      if warm:
        self.state = init_from.load(warm, self.state)
        self.say(warm.report)


def train_program(stage: Stage, state: TrainState) -> Any:
  """The jitted (state, batch, key) -> (state, metrics); state is donated.

  Args:
    stage: what to train.
    state: its leaves have a `sharding`; they may be abstract.
  """

  shardings = jax.tree.map(lambda x: x.sharding, state)
  mesh = jax.tree.leaves(shardings)[0].mesh

  def advance(state, batch, key):
    key = jax.random.fold_in(key, state.step)
    with sharding.computing(mesh):
      new, metrics = stage.step(state, batch, key)
    return new, {**metrics, "bad": new.extra["bad"].astype(jnp.float32)}

  return jax.jit(advance, donate_argnums=0, out_shardings=(shardings, None))


def _due(step: int, every: int) -> bool:
  return every > 0 and step % every == 0


def _check_counts(cfg: Any) -> None:
  for name, least in (("steps", 1), ("batch", 1), ("seed", 0)):
    if cfg[name] < least:
      raise ValueError(f"{name} is {cfg[name]}; it must be at least {least}")
  seed_key(cfg.seed)
