"""The report of a run: one HTML file that opens without a network."""

from magvit_jax.files import paths
from magvit_jax.report import beside as beside_section
from magvit_jax.report import gather, page, sections


def write(
  workdir: paths.Name,
  out: paths.Name | None = None,
  beside: paths.Name | None = None,
) -> paths.Path:
  """Writes the report of a run and returns its path.

  The run may still be training: what it has not reached yet is left out, and
  the head of the report says so.

  Args:
    workdir: of the run.
    out: the file to write; None is `report.html` in the workdir.
    beside: workdir of another tokenizer, whose reconstructions of the same
      clips are shown, too.

  Raises:
    OSError: there is no run in a workdir, or the file cannot be written.
    ValueError: the two runs have no clips in common.
  """
  target = paths.as_path(out or paths.as_path(workdir) / "report.html")
  if out is not None and not paths.is_folder(target.parent):
    raise FileNotFoundError(
      f"{target} cannot be written: there is no folder {target.parent}; make it"
    )
  run = gather.gather(workdir)
  if beside is not None:
    run = run._replace(beside=gather.gather(beside))
    beside_section.check(run, run.beside)
  text = page.page(
    f"{paths.basename(run.path)} – report", head(run), sections.of(run)
  )
  # A reader of the old report never sees half of the new one.
  paths.write_text(target, text)
  return target


def head(run: gather.Workdir) -> str:
  """HTML of the head: name, progress, the parts of the model, notes."""
  step = max((row.get("step", 0) for row in run.rows), default=0)
  steps = run.config.get("steps", "?")
  style, state = ("good", "done") if run.done else ("soft", "not finished")
  facts = {"step": f"{step:,} of {steps:,}", "batch": run.config["batch"]}
  for key in ("backbone", "quantizer", "discriminator", "generator"):
    if key in run.config["stage"]:
      facts[key] = run.config["stage"][key]["name"]
  if "tasks" in run.config["stage"]:
    facts["tasks"] = ", ".join(run.config["stage"]["tasks"])
  facts["data"] = run.config["data"].get("root") or run.config["data"]["name"]
  facts["seed"] = run.config["seed"]
  items = "".join(
    f"<span>{page.escape(k)} <b>{page.escape(v)}</b></span>"
    for k, v in facts.items()
  )
  inner = run.tokenizer.notes if run.tokenizer else ()
  notes = [*run.notes, *(f"Tokenizer: {note}" for note in inner)]
  notes = "".join(page.paragraph(note, "bad") for note in notes)
  name = page.escape(paths.basename(run.path))
  return (
    f'<h1>{name}<span class="badge {style}">{state}</span></h1>'
    f'<div class="facts soft">{items}</div>{notes}'
  )
