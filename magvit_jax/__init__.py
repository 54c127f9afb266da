"""magvit_jax: video tokenizers and token-based video generation in JAX.

  load_tokenizer(workdir)    a trained tokenizer: .encode(video), .decode(ids)
  load_generator(workdir)    a trained generator: .sample(label=3), .predict(…)
  build(family, cfg)         one component from its config
  token_file                 reading and writing files of tokens
  compile_cache              compiled programs kept on disk
  __version__

They are imported when first used, so `import magvit_jax` costs nothing.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
  "build": ("magvit_jax.registry", "build"),
  "compile_cache": ("magvit_jax.hardware", "compile_cache"),
  "load_generator": ("magvit_jax.inference.sampler", "load_generator"),
  "load_tokenizer": ("magvit_jax.inference.video_codec", "load_tokenizer"),
  "token_file": ("magvit_jax.files", "token_file"),
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
  """Imports a public name on first use (PEP 562)."""
  if name not in _PUBLIC:
    raise AttributeError(
      f"magvit_jax has no attribute {name!r}; its public names are "
      f"{', '.join(__all__)}"
    )
  module, attribute = _PUBLIC[name]
  found = importlib.import_module(module)
  if not hasattr(found, attribute):  # a module that nothing imported yet
    return importlib.import_module(f"{module}.{attribute}")
  return getattr(found, attribute)


def __dir__() -> list[str]:
  return sorted([*globals(), *_PUBLIC])
