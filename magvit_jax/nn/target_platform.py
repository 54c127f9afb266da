"""The platform that a program is traced for: 'cpu', 'gpu' or 'tpu'.

Layers choose by it how they compute. It is the platform of this process unless
a program is traced for another one, as `plan` and `export` do. JAX keeps it in
the key of its caches of traces, so a jitted function is traced for each.
"""

from contextlib import AbstractContextManager

import jax

_context = jax.make_user_context(default_value=None)


def current() -> str:
  """The platform that is traced for now, as `jax.default_backend` names it."""
  return _context.value or jax.default_backend()


def tracing_for(platform: str) -> AbstractContextManager[None]:
  """Context in which everything is built and traced for a platform."""
  return _context(platform)
