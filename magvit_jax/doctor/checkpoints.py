"""Which checkpoints are whole, and whether the next one fits on the disk."""

from magvit_jax.doctor import Finding
from magvit_jax.doctor.run import Run
from magvit_jax.monitoring import disk_space


def check(run: Run) -> list[Finding]:
  """Damage by step, checkpoints that are missing, a disk that will be full."""
  whole = [step for step, fault in run.checkpoints.items() if not fault]
  found = [
    Finding(
      "checkpoints",
      "wrong" if not whole else "warn",
      f"checkpoint {step} is damaged: {fault}",
      f"nothing to do: training goes on from step {whole[-1]:,}"
      if whole
      else "restore it from a copy, or train anew in another workdir",
    )
    for step, fault in run.checkpoints.items()
    if fault
  ]
  aside = sorted(p.name for p in (run.path / "damaged").glob("[0-9]*"))
  if aside:
    found.append(
      Finding(
        "checkpoints",
        "note",
        f"damaged checkpoints of steps {', '.join(aside)} were put aside",
        f"check the disk, then remove {run.path / 'damaged'}",
      )
    )
  if whole:
    what = f"whole: {', '.join(f'{step:,}' for step in whole)}"
    found.append(Finding("checkpoints", "ok", what))
  elif not run.checkpoints:
    found.append(_none(run))
  return [*found, *_space(run)]


def _none(run: Run) -> Finding:
  every = run.config["checkpoint"]["every"]
  if every and run.step < every:
    what = f"none yet; the first is due at step {every:,}"
    return Finding("checkpoints", "note", what)
  if not every and not run.done:
    return Finding(
      "checkpoints",
      "note",
      "none, and none is due before the last step",
      f"checkpoint.every={max(1, run.steps // 20)}, so that a crash loses less",
    )
  return Finding(
    "checkpoints",
    "wrong",
    f"none, at step {run.step:,} with checkpoint.every={every}",
    "look for errors of writing in the output of the run",
  )


def _space(run: Run) -> list[Finding]:
  if not run.checkpoints or run.done:
    return []
  folder = run.path / "checkpoints" / str(max(run.checkpoints))
  size = disk_space.folder_bytes(folder)
  ahead = disk_space.outlook(run.path, run.config, run.step, size)
  if ahead.free > ahead.need:
    return []
  cure = "free some space, or checkpoint.keep=1"
  what = f"the disk will be full before the run is whole: {ahead}"
  return [Finding("checkpoints", "warn", what, cure)]
