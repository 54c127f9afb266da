"""The sections of the report, in order: each is Workdir -> Section | None.

To add one, write a function in the file of its kind, or in a new one, and
list it here; None leaves it out.
"""

from collections.abc import Callable

from magvit_jax.report import facts, looks, measures
from magvit_jax.report.gather import Workdir
from magvit_jax.report.page import Section

SECTIONS: tuple[Callable[[Workdir], Section | None], ...] = (
  measures.results,
  measures.training,
  looks.reconstructions,
  looks.films,
  looks.tokens,
  facts.split,
  facts.time,
  facts.configuration,
)
