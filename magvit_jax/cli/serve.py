"""A web page to try a workdir: reconstructions, tokens, generated videos.

Example:

  python -m magvit_jax serve --workdir=runs/quickstart/generator

Then open http://127.0.0.1:7860 and drop a video. The page shows it beside its
reconstruction, with the tokens as colours, bits per pixel and PSNR; for a
generator also prediction, interpolation, in- and outpainting of a box that is
drawn, and classes. It needs the extra `serve` (gradio), and no network: only
this machine can open it, unless --host says otherwise. Uploads are limited in
size and length, and deleted when they have been read. ctrl-C stops it.
"""

import argparse
import importlib.util
import os
import signal
import socket
import sys
import tempfile
import threading

from magvit_jax import messages
from magvit_jax.serve import uploads

LOCAL = ("127.0.0.1", "localhost")


def main(argv: list[str]) -> int:
  """Runs the verb until it is stopped; returns 0."""
  args = _parser().parse_args(argv)
  limits = uploads.Limits(args.max_mb, args.max_seconds)
  _check(args)
  from magvit_jax.serve import models

  ready = models.load(args.workdir, step=args.step)
  models.warm_up(ready, _say)
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  with tempfile.TemporaryDirectory(prefix="magvit_jax_serve_") as folder:
    # gradio makes folders where this says as soon as it is imported.
    os.environ["GRADIO_TEMP_DIR"] = folder
    from magvit_jax.serve import page

    blocks = page.build(ready, limits, folder)
    url = page.launch(blocks, limits, host=args.host, port=args.port)
    _say(f"open {url} (ctrl-C stops it)")
    try:
      threading.Event().wait()
    except KeyboardInterrupt:
      _say("stopped; uploads are deleted")
    finally:
      blocks.close(verbose=False)
  return 0


def _parser() -> argparse.ArgumentParser:
  out = argparse.ArgumentParser(
    prog="python -m magvit_jax serve",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  out.add_argument(
    "--workdir",
    required=True,
    help="run of a tokenizer or of a generator, or an export of one",
  )
  out.add_argument("--step", type=int, help="checkpoint (default: the newest)")
  out.add_argument("--port", type=int, default=7860, help="(default: 7860)")
  out.add_argument(
    "--host",
    default="127.0.0.1",
    help="address to listen at (default: 127.0.0.1, this machine alone)",
  )
  own = uploads.Limits()
  out.add_argument(
    "--max_mb",
    type=float,
    default=own.megabytes,
    help=f"of an upload, in 10^6 bytes (default: {own.megabytes:g})",
  )
  out.add_argument(
    "--max_seconds",
    type=float,
    default=own.seconds,
    help=f"of a video that are read (default: {own.seconds:g})",
  )
  return out


def _check(args: argparse.Namespace) -> None:
  """Says what is wrong before anything is loaded."""
  for name in ("max_mb", "max_seconds"):
    if not getattr(args, name) > 0:
      raise ValueError(f"--{name} is {getattr(args, name)}; it must be above 0")
  if importlib.util.find_spec("gradio") is None:
    raise ValueError(
      "serve needs gradio, which is not installed: "
      f"{messages.install_extra('serve')}"
    )
  try:
    with socket.socket() as probe:
      probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      probe.bind((args.host, args.port))
  except (OSError, OverflowError) as error:
    raise ValueError(
      f"cannot listen at --host={args.host} --port={args.port} ({error}); "
      "give another --port"
    ) from error
  if args.host not in LOCAL:
    print(
      f"warning: at --host={args.host} everybody who reaches this machine can "
      "use the page and this computer's time; there is no password",
      file=sys.stderr,
    )


def _say(text: str) -> None:
  print(text, flush=True)
