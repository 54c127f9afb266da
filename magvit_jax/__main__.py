"""`python -m magvit_jax VERB [flags]`: the verb is a file name in cli/."""

import ast
import glob
import importlib
import os
import pathlib
import sys

from absl import logging

from magvit_jax import messages

# libtpu, which `plan` needs, tells everybody at length that it finds no TPU.
NO_TPU = {
  "TPU_ACCELERATOR_TYPE": "v5litepod-4",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def main(argv: list[str] | None = None) -> int:
  """Runs a verb; returns the exit code (2 after an error)."""
  for stream in (sys.stdout, sys.stderr):
    if hasattr(stream, "reconfigure"):  # names of files need not be UTF-8
      stream.reconfigure(errors="backslashreplace")
  if not glob.glob("/dev/accel*") and not glob.glob("/dev/vfio/*"):
    for name, value in NO_TPU.items():
      os.environ.setdefault(name, value)
  argv = list(sys.argv[1:] if argv is None else argv)
  debug = "--debug" in argv
  argv = [arg for arg in argv if arg != "--debug"]
  found = verbs()
  if not argv or argv[0] in ("-h", "--help", "help"):
    print(_usage(found))
    return 0
  verb, *rest = argv
  if verb not in found:
    near = messages.suggest(verb, found)
    print(
      f"error: there is no verb {verb!r}{near}\n{_usage(found)}",
      file=sys.stderr,
    )
    return 2
  if not debug:
    # Orbax logs the traceback of what it also raises; our line says it better.
    logging.set_verbosity(logging.FATAL)
  try:
    module = importlib.import_module(f"magvit_jax.cli.{verb}")
    return module.main(rest)
  except KeyboardInterrupt:
    return 130
  except messages.USER_ERRORS as error:
    if debug:
      raise
    print(f"error: {messages.text(error)}", file=sys.stderr)
    return 2


def verbs() -> dict[str, str]:
  """Each verb with the first line of its docstring, without importing it."""
  folder = pathlib.Path(__file__).parent / "cli"
  found = {}
  for path in sorted(folder.glob("*.py")):
    if not path.stem.startswith("_"):
      doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
      found[path.stem] = (doc or "").partition("\n")[0]
  return found


def _usage(found: dict[str, str]) -> str:
  width = max(map(len, found), default=0)
  lines = [f"  {verb:<{width}}  {text}" for verb, text in found.items()]
  return "\n".join(
    [
      "python -m magvit_jax VERB [flags]",
      "",
      *lines,
      "",
      "VERB --help shows its flags and an example; --debug shows tracebacks.",
    ]
  )


if __name__ == "__main__":
  sys.exit(main())
