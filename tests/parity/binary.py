"""Cases of quantizers without a table, and of residual and multi-scale ones.

The peer's LFQ has the first number as the *highest* bit of an index; ids are
stored here as in this project, with the first number as the lowest bit. FSQ has
the first number fastest in both.
"""

import torch
from vector_quantize_pytorch import (
  FSQ,
  LFQ,
  GroupedResidualFSQ,
  HierarchicalVQ,
  ResidualFSQ,
  ResidualLFQ,
  ResidualVQ,
)

BITS = 9
LEVELS = [7, 6, 5]


def arrays(**tensors):
  """Tensors as numpy arrays."""
  return {k: v.detach().numpy().copy() for k, v in tensors.items()}


def lowest_first(ids, bits):
  """Indices with the bits of the peer turned round."""
  return sum(((ids >> i) & 1) << (bits - 1 - i) for i in range(bits))


def run(peer, z, cotangent):
  """(codes, ids, gradient of sum(cotangent * codes)) of the peer."""
  z = z.clone().requires_grad_()
  codes, ids = peer(z)[:2]
  (grad,) = torch.autograd.grad(torch.sum(cotangent * codes), z)
  return codes, ids, grad


def lfq(spherical):
  """Codes, entropies, commitment and the gradient of each, temperature 1.25."""
  peer = LFQ(
    codebook_size=2**BITS,
    dim=BITS,
    spherical=spherical,
    commitment_loss_weight=1.0,
  )
  z = torch.randn(2, 40, BITS) * 0.2
  cotangent = torch.randn(2, 40, BITS)
  codes, ids, grad = run(peer, z, cotangent)
  z.requires_grad_()
  _, terms = peer(z, inv_temperature=0.8, return_loss_breakdown=True)
  token, batch, commitment = terms
  (entropy_grad,) = torch.autograd.grad(token - batch, z, retain_graph=True)
  (commitment_grad,) = torch.autograd.grad(commitment, z)
  return arrays(
    z=z,
    cotangent=cotangent,
    codes=codes,
    ids=lowest_first(ids, BITS),
    grad=grad,
    token=token,
    batch=batch,
    commitment=commitment,
    entropy_grad=entropy_grad,
    commitment_grad=commitment_grad,
  )


def fsq(**args):
  """Forms of FSQ."""
  peer = FSQ(LEVELS, **args)
  z = torch.randn(2, 60, len(LEVELS)) * 1.5
  cotangent = torch.randn_like(z)
  codes, ids, grad = run(peer, z, cotangent)
  return arrays(z=z, cotangent=cotangent, codes=codes, ids=ids, grad=grad)


def residual_lfq():
  """Signs at scales 1, 1/2, 1/4."""
  peer = ResidualLFQ(dim=BITS, codebook_size=2**BITS, num_quantizers=3).eval()
  z = torch.randn(2, 30, BITS)
  codes, ids, _ = peer(z)
  return arrays(z=z, codes=codes, ids=lowest_first(ids, BITS))


def residual_fsq():
  """Hard-clamped levels behind the soft clamp."""
  peer = ResidualFSQ(levels=LEVELS, num_quantizers=3, bound_hard_clamp=True)
  z = torch.randn(2, 30, len(LEVELS)) * 1.5
  codes, ids = peer.eval()(z)
  return arrays(z=z, codes=codes, ids=ids)


def grouped_residual_fsq():
  """Two groups of them; group after group in the ids."""
  peer = GroupedResidualFSQ(
    dim=2 * len(LEVELS),
    groups=2,
    levels=LEVELS,
    num_quantizers=2,
    bound_hard_clamp=True,
  )
  z = torch.randn(2, 20, 2 * len(LEVELS))
  codes, ids = peer.eval()(z)
  return arrays(z=z, codes=codes, ids=torch.cat(list(ids), dim=-1))


def residual_vq():
  """Three codebooks of 20 rows."""
  peer = ResidualVQ(
    dim=5, codebook_size=20, num_quantizers=3, rotation_trick=False
  )
  tables = torch.stack([layer._codebook.embed[0] for layer in peer.layers])
  z = torch.randn(2, 30, 5)
  codes, ids, _ = peer.eval()(z)
  out = arrays(z=z, tables=tables, codes=codes, ids=ids)
  *_, losses = peer.train()(z, freeze_codebook=True)
  return out | arrays(losses=losses)


def multiscale_vq():
  """One codebook over four grids, trilinear, without the convolution."""
  peer = HierarchicalVQ(
    dim=5,
    codebook_size=20,
    scales=[(1, 1, 1), (1, 2, 2), (2, 3, 2), (3, 4, 5)],
    channel_first=False,
    kmeans_init=False,
    quant_resi=0.0,
    accept_3d_fmap=True,
  ).eval()
  z = torch.randn(2, 3, 4, 5, 5)
  codes, ids, _ = peer(z)
  return arrays(
    z=z,
    table=peer.vq._codebook.embed[0],
    codes=codes,
    ids=torch.cat([i.flatten(1) for i in ids], dim=1),
  )


CASES = {
  "lfq": lambda: lfq(spherical=False),
  "bsq": lambda: lfq(spherical=True),
  "fsq_tanh": fsq,
  "fsq_symmetric": lambda: fsq(preserve_symmetry=True),
  "fsq_clipped": lambda: fsq(preserve_symmetry=True, bound_hard_clamp=True),
  "residual_lfq": residual_lfq,
  "residual_fsq": residual_fsq,
  "grouped_residual_fsq": grouped_residual_fsq,
  "residual_vq": residual_vq,
  "multiscale_vq": multiscale_vq,
}
