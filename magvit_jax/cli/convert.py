"""Turns public weights into ours, and tokenizers of ours into public layouts.

  python -m magvit_jax convert --from=vgg16_lpips --input=vgg16-397923af.pth \\
    --input=vgg.pth --out=vgg16_lpips.safetensors
  python -m magvit_jax convert --from=magvit --model=ucf101_B \\
    --input=checkpoint_37000 --out=tokenizers/ucf101_B
  python -m magvit_jax convert --from=ours --to=magvit --input=runs/mine \\
    --out=mine.safetensors

The weights of a net become one file; a tokenizer becomes a folder that
load_tokenizer and the other verbs open as they open a workdir. Download the
public files first; --from alone says which and where. Reading a .pth needs
torch (pip install '.[convert]'); one that holds more than tensors is
refused.
"""

import argparse
import pathlib
import types

from magvit_jax import messages, registry, tree_utils
from magvit_jax.convert import public_file, reading, tokenizer_folder
from magvit_jax.convert.tokenizers import Model
from magvit_jax.export import write as exporting
from magvit_jax.files import token_file, weight_file

OURS = "ours"
TOKENIZERS, NETS = "convert.tokenizers", "convert.nets"


def main(argv: list[str]) -> int:
  """Runs the verb with its arguments; returns the exit code."""
  args = _parser().parse_args(argv)
  if args.source == OURS:
    return _to_public(args)
  if args.to != OURS:
    raise ValueError(
      f"--from={args.source} --to={args.to}: one of the two must be {OURS!r}; "
      "go through a folder of ours"
    )
  messages.check_choice("--from", args.source, _sources())
  whole = args.source in registry.names(TOKENIZERS)
  source = registry.load_module(TOKENIZERS if whole else NETS, args.source)
  if not args.input:
    print(_about(args.source, source, source.MODELS if whole else {}))
    return 0
  for path in args.input:
    # A file that is not there is said so before any is hashed.
    weight_file.check_there(path, "--input")
  if whole:
    messages.check_choice("--model", args.model, source.MODELS)
    _to_tokenizer(args, source)
    return 0
  if args.model:
    raise ValueError(
      f"--model={args.model}: {args.source} has no tokenizers to choose from; "
      "leave it out"
    )
  _to_net(args, source)
  return 0


def _sources() -> tuple[str, ...]:
  return tuple(sorted(registry.names(TOKENIZERS) + registry.names(NETS)))


def _to_net(args: argparse.Namespace, source: types.ModuleType) -> None:
  """Writes the weights of a net that a loss reads."""
  _check_file(args)
  arrays = source.convert(_read(args, source))
  tree = weight_file.fit(arrays, source.shapes(), _what(args))
  weight_file.write(args.out, tree_utils.named(tree), source.NOTES)
  print(
    f"{args.out}: {tree_utils.count(tree):,} numbers in {len(arrays)} arrays\n"
    f"train with {source.USE.format(out=args.out)}"
  )


def _to_tokenizer(args: argparse.Namespace, source: types.ModuleType) -> None:
  """Writes the folder of a tokenizer."""
  out = exporting.check_out(args.out)
  model = source.MODELS[args.model]
  tree = tokenizer_folder.to_ours(
    source, _read(args, source), model, _what(args)
  )
  tokenizer_folder.write(out, model, tree)
  print(
    f"{args.out}: {tree_utils.count(tree):,} numbers; open it with "
    f"magvit_jax.load_tokenizer({args.out!r})"
  )


def _to_public(args: argparse.Namespace) -> int:
  """Writes a tokenizer of ours in a public layout."""
  messages.check_choice("--to", args.to, registry.names(TOKENIZERS))
  source = registry.load_module(TOKENIZERS, args.to)
  if len(args.input or ()) != 1:
    raise ValueError(
      f"--from={OURS} reads one folder, and there are {len(args.input or ())}; "
      "give --input=DIR once"
    )
  _check_file(args)
  stage, arrays = tokenizer_folder.read(args.input[0])
  public = source.public(arrays, stage)
  weight_file.write(args.out, public, {"layout": args.to})
  print(f"{args.out}: {len(public)} arrays in the layout of {args.to}")
  return 0


def _check_file(args: argparse.Namespace) -> None:
  if pathlib.Path(args.out).suffix != ".safetensors":
    raise ValueError(f"--out={args.out!r} must end in .safetensors")
  token_file.check_target(args.out, args.overwrite)


def _read(
  args: argparse.Namespace, source: types.ModuleType
) -> tokenizer_folder.Arrays:
  for path in args.input:
    print(public_file.checksum_text(path, source.FILES))
  return reading.read_all(args.input)


def _what(args: argparse.Namespace) -> str:
  return f"the arrays of {', '.join(args.input)}"


def _about(
  name: str, source: types.ModuleType, models: dict[str, Model]
) -> str:
  """What the source is, its tokenizers and its public files."""
  lines = [f"{name}: {source.__doc__.strip()}", ""]
  if models:
    lines += [f"--model is one of {', '.join(models)}", ""]
  for file, public in source.FILES.items():
    known = public.sha256 == public_file.UNKNOWN or len(public.sha256) == 64
    lines += [f"{file}: {public.holds}", f"  {public.url}"]
    lines += [f"  sha256 {public.sha256}{'' if known else '…'}"]
  return "\n".join(lines).rstrip()


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m magvit_jax convert",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  known = ", ".join(_sources())
  parser.add_argument(
    "--from", required=True, dest="source", help=f"{OURS}, or one of {known}"
  )
  parser.add_argument(
    "--to", default=OURS, help=f"{OURS}, or with --from={OURS} a layout"
  )
  parser.add_argument(
    "--model", default="", help="which published tokenizer the files hold"
  )
  parser.add_argument(
    "--input",
    action="append",
    help=f"public file, once for each; a folder with --from={OURS}",
  )
  parser.add_argument(
    "--out", default="", help="*.safetensors, or the folder of a tokenizer"
  )
  parser.add_argument(
    "--overwrite", action="store_true", help="replace an existing file"
  )
  return parser
