"""What is wrong with a run, and what to change: `diagnose`.

A check is a file of this folder with a function check(run) -> list[Finding].
It reads what the run has left (config.json, metrics.jsonl, incidents.jsonl,
checkpoints) and computes nothing but sums over saved weights. Where the run has
not left enough yet, a check says nothing.
"""

from typing import NamedTuple

from magvit_jax import registry
from magvit_jax.doctor.run import Run
from magvit_jax.files import paths

SEVERITIES = ("wrong", "warn", "note", "ok")


class Finding(NamedTuple):
  """One thing that a check found.

  Attributes:
    name: what was looked at; the name of the check.
    severity: 'ok'; 'note', worth knowing; 'warn', probably costs quality or
      time; 'wrong', the run is broken or worthless as it is.
    what: what was seen, with numbers.
    cure: what to change, as a config key and a value; '' for 'ok'.
  """

  name: str
  severity: str
  what: str
  cure: str = ""


def diagnose(workdir: paths.Name) -> tuple[Run, list[Finding]]:
  """The run and all findings, the worst first.

  Raises:
    OSError: the folder has no config.json.
    ValueError: its config.json is not of a run of this package.
  """
  run = Run(workdir)
  found = []
  for name in registry.names("doctor"):
    found += registry.load("doctor", name)(run)
  return run, sorted(found, key=lambda f: SEVERITIES.index(f.severity))
