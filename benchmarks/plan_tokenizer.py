"""Forward and backward of MAGVIT's tokenizer on one TPU chip, by the compiler.

  python benchmarks/plan_tokenizer.py
  python benchmarks/plan_tokenizer.py --remat=none
  python benchmarks/plan_tokenizer.py --plain

The loss is that of reconstruction and of VQ, no discriminator and no update;
bfloat16, no TPU needed (libtpu is). Prints the estimated cycles by kind, the
temporaries and the dearest operations; the targets are 3.0e8 cycles and 8 GiB.
`--plain` puts back what the net was computed with before:
no pairs of frames, axes in the order of the data.
"""

import argparse
import contextlib
import sys
from unittest import mock

import jax
import jax.numpy as jnp

from magvit_jax import registry, run_config, sharding, tokenizers
from magvit_jax.hardware import chips, flops
from magvit_jax.losses import reconstruction
from magvit_jax.nn import conv, pairs, target_platform
from magvit_jax.planner import compile as compiling
from magvit_jax.planner import cost, programs
from magvit_jax.planner.text import align

TARGETS = {"cycles": 3.0e8, "GiB of temporaries": 8.0}
DEAREST = 25


def main() -> int:
  """Returns 0, or 1 where a target is missed."""
  flags = parse()
  topology = chips.parse(flags.topology)
  with compiling.quiet_cpu(), lowering(flags.plain):
    traced = trace(flags, topology)
    matmul = flops.model_flops(traced.jaxpr).matmul
    done = compiling.compile_program(traced)
  found = cost.account(done.text, topology.chip, topology.devices)
  rows = [o for o in found.operations if o.kind != cost.COPY]
  cycles = {
    kind: 0.0 for kind in (cost.MATMUL, cost.ELEMENTWISE, cost.MOVEMENT)
  }
  for row in rows:
    cycles[row.kind] += row.seconds * topology.chip.clock
  ideal = matmul / topology.chip.peak * topology.chip.clock
  measured = dict(
    zip(
      TARGETS,
      (sum(cycles.values()), done.memory.temporaries / chips.GIB),
      strict=True,
    )
  )
  table = [("what", "measured", "target")]
  table += [(f"cycles, {kind}", f"{n:.3g}", "") for kind, n in cycles.items()]
  table += [("cycles at the bf16 peak", f"{ideal:.3g}", "")]
  table += [(k, f"{v:.3g}", f"{TARGETS[k]:.3g}") for k, v in measured.items()]
  print(align(table) + f"\n\ncompiled in {done.seconds:.0f} s; the dearest:")
  rows.sort(key=lambda row: -row.seconds)
  listed = [
    (r.name, r.kind, f"{r.cycles:,}", r.source, r.shape[:50])
    for r in rows[:DEAREST]
  ]
  print(align(listed))
  if flags.hlo:
    with open(flags.hlo, "w", encoding="utf-8") as file:
      file.write(done.text)
  return int(any(measured[k] > TARGETS[k] for k in TARGETS))


def trace(flags, topology):
  """A `jax.stages.Traced` of the loss and its gradients."""
  cfg = run_config.load_config(flags.config)
  if flags.remat:
    cfg.stage.backbone.remat = flags.remat
  mesh = sharding.make_mesh(data=1, devices=compiling.devices(topology))
  shape = programs.clip_shape(registry.plain(cfg.data))
  with target_platform.tracing_for(programs.PLATFORM):
    net = tokenizers.build_tokenizer(registry.plain(cfg.stage))
    start = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    params = jax.eval_shape(net.init, jax.random.key(0), start)
  params = sharding.lay(params, mesh)
  video = jax.ShapeDtypeStruct(
    (flags.batch, *shape),
    jnp.float32,
    sharding=sharding.batch_sharding(mesh, 5),
  )
  weights = cfg.stage.weights

  def loss(params, video):
    recon, quantized = net.apply(params, video, key=jax.random.key(0))
    terms = {"loss_l2": reconstruction.LOSSES["loss_l2"](video, recon)}
    terms |= quantized.aux
    return sum(weights[k] * terms[k] for k in terms if k in weights)

  with target_platform.tracing_for(programs.PLATFORM):
    return jax.jit(jax.value_and_grad(loss)).trace(params, video)


@contextlib.contextmanager
def lowering(plain: bool):
  """As the net is, or as it was."""
  if not plain:
    yield
    return
  with (
    mock.patch.object(pairs, "pay", lambda *_, **__: False),
    mock.patch.object(conv, "order_of_axes", lambda frames: (0, 1, 2)),
  ):
    yield


def parse() -> argparse.Namespace:
  """The command line."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--config", default="tokenizer/ucf101:B,magvit")
  parser.add_argument("--topology", default="v5e:1x1")
  parser.add_argument("--batch", type=int, default=4)
  parser.add_argument("--remat", default="")
  parser.add_argument("--plain", action="store_true")
  parser.add_argument("--hlo", default="", help="where to write the HLO text")
  return parser.parse_args()


if __name__ == "__main__":
  sys.exit(main())
