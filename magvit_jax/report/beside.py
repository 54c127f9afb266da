"""A section that shows another tokenizer's run beside the report's own."""

from magvit_jax.report import looks, measures
from magvit_jax.report.gather import Clip, Workdir, last
from magvit_jax.report.page import (
  Raw,
  Section,
  escape,
  number,
  paragraph,
  table,
)


def check(run: Workdir, other: Workdir) -> None:
  """ValueError where two runs cannot be shown beside each other."""
  for each in (run, other):
    if each.held is None:
      reason = "; ".join(each.notes) or "it is not a tokenizer's"
      raise ValueError(
        f"{each.path} has no reconstructions to show beside another run's: "
        f"{reason}"
      )
  names = [[clip.name for clip in each.held.clips] for each in (run, other)]
  shapes = [each.held.clips[0].video.shape for each in (run, other)]
  if names[0] != names[1] or shapes[0] != shapes[1]:
    raise ValueError(
      f"{run.path} and {other.path} hold out different clips "
      f"({', '.join(names[0])} of {shapes[0]}, and {', '.join(names[1])} of "
      f"{shapes[1]}); train both with the same config.data"
    )


def section(run: Workdir) -> Section | None:
  """Reconstructions of the same clips by both runs."""
  if run.beside is None:
    return None
  runs = {_title(each): each for each in (run, run.beside)}
  if len(runs) == 1:
    runs = {str(each.path): each for each in (run, run.beside)}
  clips = zip(*(each.held.clips for each in runs.values()), strict=True)
  return Section(
    f"Beside {_title(run.beside)}",
    paragraph("The same held-out clips, reconstructed by both runs.", "soft")
    + _figures(runs)
    + "".join(_strip(list(runs), pair) for pair in clips),
  )


def _figures(runs: dict[str, Workdir]) -> str:
  found = [measures.metrics_of(last(each.of("eval"))) for each in runs.values()]
  names = [name for name in found[0] if name in found[1]]
  rows = [
    [Raw(f"<b>{escape(name)}</b>"), *(number(row[name], 4) for row in found)]
    for name in names
  ]
  return table(["metric", *runs], rows)


def _strip(titles: list[str], clips: tuple[Clip, Clip]) -> str:
  rows = [("original", clips[0].video)]
  rows += [(t, clip.recon) for t, clip in zip(titles, clips, strict=True)]
  quality = ", ".join(
    f"{title} {clip.psnr:.2f} dB"
    for title, clip in zip(titles, clips, strict=True)
  )
  return looks.strip(clips[0].name, quality, rows)


def _title(run: Workdir) -> str:
  return run.path.resolve().name
