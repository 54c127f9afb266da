"""Train a stage on videos.

Example, on the bundled clips and then on your own:

  python -m magvit_jax train --config=tokenizer/clips --workdir=runs/clips
  python -m magvit_jax train --config=tokenizer/clips --workdir=runs/mine \\
    --config.data.root=/my/videos --config.steps=20000

The same command on every host of a pod makes them one run, with a workdir
that all of them share:

  python -m magvit_jax train --config=tokenizer/k600 --workdir=gs://me/k600 \\
    --coordinator=auto

A config is a file (configs/tokenizer/clips.py), or the name of one that comes
with the package (tokenizer/clips); an argument after a colon picks its
structure (tokenizer/clips:quantizer=fsq), --config.a.b=value sets a value.
Stopped by ctrl-C or SIGTERM it saves; the same command goes on. Compiled
programs are kept in JAX_COMPILATION_CACHE_DIR, by default the user's cache
folder, so that going on does not compile again. SIGTERM to one of several
processes stops them all.
"""

import argparse

from magvit_jax import run_config
from magvit_jax.distributed import clusters, initialize, processes
from magvit_jax.files import workdirs
from magvit_jax.hardware import compile_cache
from magvit_jax.monitoring import profiler
from magvit_jax.training import loop


def main(argv: list[str]) -> int:
  """Returns 0 when the run is whole, 128 + signal when it was stopped."""
  parser = argparse.ArgumentParser(
    prog="python -m magvit_jax train",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument("--config", required=True, help="file or name[:argument]")
  parser.add_argument("--workdir", required=True, help="folder of the run")
  parser.add_argument(
    "--resume",
    default="auto",
    choices=workdirs.MODES,
    help="auto: go on with an equal config; never: refuse a folder that holds "
    "a run; force: go on with the new config",
  )
  parser.add_argument(
    "--profile_steps",
    default="",
    metavar="FIRST:LAST",
    help="trace these steps, counted from 0 and without LAST, into "
    "WORKDIR/profile",
  )
  clusters.add_flags(parser)
  flags, rest = parser.parse_known_args(argv)
  place = clusters.find(flags.coordinator, flags.processes, flags.process)
  cfg = run_config.load_config(flags.config)
  run_config.override(cfg, rest)
  asked = flags.profile_steps
  profile = profiler.parse(asked) if asked else None
  compile_cache.enable()
  with initialize.join(place):
    same = processes.facts(cfg, resume=flags.resume, profile_steps=asked)
    processes.agree("what to run", same)
    result = loop.run(cfg, flags.workdir, flags.resume, profile=profile)
  return 128 + result["stopped"] if result["stopped"] else 0
