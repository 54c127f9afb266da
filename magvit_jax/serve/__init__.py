"""A web page to try a workdir: what `python -m magvit_jax serve` shows.

  uploads.py   a file that came in -> a checked `Clip` of limited length
  models.py    the tokenizer of a workdir, and its generator if it has one
  looks.py     a clip -> what the tokenizer makes of it
  edits.py     a clip and a wish -> what the generator makes of it
  films.py     videos and ids -> bytes that a browser shows
  page.py      the page itself, the only file that imports gradio

All but page.py are functions without a server, which tests call.
"""
