"""Exports: one folder that holds a trained model and needs none of this code.

  params.safetensors   the averaged weights, by flat names such as
                       'backbone/encoder/stem/kernel'; those of a generator
                       begin with 'generator/' and 'tokenizer/'
  config.json          `LAYOUT`, what every program takes and gives, the hash of
                       every file, and `config`: what of the run's config says
                       which network it is
  encode.stablehlo     programs of jax.export, (params, …) -> …, for any number
  decode.stablehlo     of clips and, if the tokenizer is causal, of frames
  sample.stablehlo     a generator's
  MODEL_CARD.md        what it is, how it was trained and measured

write.py makes the folder, read.py is how load_tokenizer and load_generator open
it, programs.py traces the programs, card.py writes the card.
"""

CARD = "MODEL_CARD.md"


def program_file(name: str) -> str:
  """The file of the program `name`."""
  return f"{name}.stablehlo"
