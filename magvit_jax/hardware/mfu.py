"""Model FLOPs utilization: how much of the devices' peak a step uses.

FLOPs are those of the dots and convolutions of the step's jaxpr, nothing
computed twice (hardware/flops.py), a frozen tokenizer included; the peak is the
published dense bfloat16 one, whatever the step computes in. Where the peak is
not known (CPUs, other GPUs) there is no figure rather than a wrong one.
"""

from collections.abc import Callable, Iterable

import jax
from jax.extend import core

from magvit_jax.hardware import chips, flops

# What JAX calls a device, and the chip of hardware/chips.py.
TPUS = {
  "TPU v4": "v4",
  "TPU v5 lite": "v5e",
  "TPU v5e": "v5e",
  "TPU v5": "v5p",
  "TPU v5p": "v5p",
  "TPU v6 lite": "v6e",
  "TPU v6e": "v6e",
  "TPU7x": "tpu7x",
}
# Dense bfloat16 FLOP/s of NVIDIA's data sheets (SXM modules), by exact name.
GPUS = {
  "NVIDIA A100-SXM4-40GB": 312e12,
  "NVIDIA A100-SXM4-80GB": 312e12,
  "NVIDIA H100 80GB HBM3": 989e12,
  "NVIDIA H200": 989e12,
}


def peak(devices: Iterable[jax.Device]) -> float | None:
  """bfloat16 FLOP/s of the devices together, or None if one is not known."""
  total = 0.0
  for device in devices:
    kind = device.device_kind
    if kind in TPUS:
      total += chips.CHIPS[TPUS[kind]].peak
    elif kind in GPUS:
      total += GPUS[kind]
    else:
      return None
  return total


def meter(
  step: core.ClosedJaxpr, devices: Iterable[jax.Device]
) -> Callable[[float], dict[str, float]]:
  """What a step of some seconds uses: (seconds) -> {'mfu': share} or {}.

  Args:
    step: jaxpr of a step.
    devices: those the step runs on.
  """
  most = peak(devices)
  if most is None:
    return lambda seconds: {}
  count = flops.model_flops(step)
  ideal = (count.matmul + count.kernel) / most
  return lambda seconds: {"mfu": ideal / seconds}
