"""The sections of the report, in order: each is Workdir -> Section | None.

To add one, write a function in the file of its kind, or in a new one, and
list it here; None leaves it out. A generator's report ends with the sections
of its tokenizer.
"""

from collections.abc import Callable

from magvit_jax.report import beside, facts, generated, looks, measures
from magvit_jax.report.gather import Workdir
from magvit_jax.report.page import Section, apart

SECTIONS: tuple[Callable[[Workdir], Section | None], ...] = (
  measures.results,
  generated.futures,
  generated.samples,
  measures.training,
  beside.section,
  looks.reconstructions,
  looks.films,
  looks.tokens,
  facts.split,
  facts.time,
  facts.configuration,
)


def of(run: Workdir) -> list[Section]:
  """The sections of a run, followed by those of its tokenizer."""
  parts = [part for make in SECTIONS if (part := make(run))]
  if run.tokenizer is None:
    return parts
  inner = [part for part in of(run.tokenizer) if part.title != "Split"]
  return parts + [
    apart(part, "t")._replace(title=f"Tokenizer: {_lower(part.title)}")
    for part in inner
  ]


def _lower(title: str) -> str:
  return title[0].lower() + title[1:]
