"""Metrics: values that turn predictions into sums, and sums into numbers.

Each file defines a frozen dataclass `Metric` with

  update(*, valid, frozen=None, **arrays) -> dict of arrays
      a pytree of SUMS over the valid examples (add them over batches and
      devices); `valid` is bool [b]; arrays are what a stage's 'predict' gives
  result(sums) -> dict[str, float]
"""
