"""Cases of quantizers with a table: vq, simvq, gumbel, ibq, k-means."""

import functools

import torch
import torch.nn.functional as F
from vector_quantize_pytorch import SimVQ, VectorQuantize
from vector_quantize_pytorch.vector_quantize_pytorch import kmeans

SIZE, WIDTH = 24, 6


def arrays(**tensors):
  """Tensors as numpy arrays."""
  return {k: v.detach().numpy().copy() for k, v in tensors.items()}


def vq_ema(cosine):
  """Three updates of a moving-average codebook."""
  peer = VectorQuantize(
    WIDTH,
    SIZE,
    decay=0.8,
    use_cosine_sim=cosine,
    rotation_trick=False,
    commitment_weight=1.0,
  )
  book = peer._codebook
  out = arrays(embedding=book.embed[0])
  z = torch.randn(3, 2, 20, WIDTH)
  cotangent = torch.randn(2, 20, WIDTH)
  rows = []
  for step in z:
    step = step.clone().requires_grad_()
    codes, ids, loss = peer(step)
    (torch.sum(codes * cotangent) + loss.sum()).backward()
    rows.append((codes, ids, loss.sum(), step.grad))
  codes, ids, loss, grad = (torch.stack(x) for x in zip(*rows, strict=True))
  return out | arrays(
    z=z,
    cotangent=cotangent,
    codes=codes,
    ids=ids,
    loss=loss,
    grad=grad,
    count=book.cluster_size[0],
    sum=book.embed_avg[0],
    last=book.embed[0],
  )


def vq_gradient(rotation, code_dim=None):
  """A learnt codebook with the orthogonal term, plain or projected."""
  peer = VectorQuantize(
    WIDTH,
    SIZE,
    codebook_dim=code_dim,
    learnable_codebook=True,
    ema_update=False,
    rotation_trick=rotation,
    commitment_weight=1.0,
    orthogonal_reg_weight=1.0,
  )
  z = torch.randn(2, 20, WIDTH, requires_grad=True)
  cotangent = torch.randn(2, 20, WIDTH)
  codes, ids, loss, parts = peer(z, return_loss_breakdown=True)
  (torch.sum(codes * cotangent) + loss.sum()).backward()
  book = peer._codebook.embed
  out = arrays(
    z=z,
    cotangent=cotangent,
    embedding=book[0],
    codes=codes,
    ids=ids,
    commitment=parts.commitment,
    orthogonal=parts.orthogonal_reg,
    grad=z.grad,
    grad_embedding=book.grad[0],
  )
  if code_dim:
    for name, layer in (("in", peer.project_in), ("out", peer.project_out)):
      layer = layer[0] if isinstance(layer, torch.nn.Sequential) else layer
      out |= arrays(
        **{
          f"{name}_kernel": layer.weight.T,
          f"{name}_bias": layer.bias,
          f"{name}_grad": layer.weight.grad.T,
        }
      )
  return out


def simvq(rotation):
  """SimVQ with a narrower frozen codebook."""
  peer = SimVQ(WIDTH, SIZE, rotation_trick=rotation, frozen_codebook_dim=4)
  z = torch.randn(2, 20, WIDTH, requires_grad=True)
  cotangent = torch.randn(2, 20, WIDTH)
  codes, ids, loss = peer(z)
  (torch.sum(codes * cotangent) + loss).backward()
  weight = peer.code_transform.weight
  return arrays(
    z=z,
    cotangent=cotangent,
    frozen=peer.frozen_codebook,
    kernel=weight.T,
    codes=codes,
    ids=ids,
    loss=loss,
    grad=z.grad,
    grad_kernel=weight.grad.T,
  )


def kmeans_case():
  """Ten iterations from given codes; the last is far from all rows."""
  rows = torch.randn(1, 60, WIDTH)
  start = torch.randn(1, 9, WIDTH)
  start[:, -1] = 100.0
  table, count = kmeans(rows, 9, 10, sample_fn=lambda *_: start)
  return arrays(rows=rows[0], start=start[0], table=table[0], count=count[0])


def gumbel():
  """torch's straight-through Gumbel-softmax, on noise of its own."""
  tau = 0.7
  z = torch.randn(40, WIDTH, requires_grad=True)
  kernel = torch.randn(WIDTH, SIZE, requires_grad=True)
  table = torch.randn(SIZE, WIDTH, requires_grad=True)
  cotangent = torch.randn(40, WIDTH)
  logits = z @ kernel
  torch.manual_seed(1)
  hard = F.gumbel_softmax(logits, tau=tau, hard=True)
  torch.manual_seed(1)
  noise = -torch.empty_like(logits).exponential_().log()
  codes = hard @ table
  torch.sum(codes * cotangent).backward()
  prob = logits.softmax(-1)
  kl = torch.sum(prob * torch.log(prob * SIZE), -1).mean()
  return arrays(
    z=z,
    kernel=kernel,
    table=table,
    cotangent=cotangent,
    noise=noise,
    codes=codes,
    ids=hard.argmax(-1),
    kl=kl,
    grad=z.grad,
    grad_kernel=kernel.grad,
    grad_table=table.grad,
  )


def ibq():
  """IBQ's published lines in torch, with its losses and their gradients."""
  tau = 0.5
  z = torch.randn(40, WIDTH, requires_grad=True)
  table = (0.5 * torch.randn(SIZE, WIDTH)).requires_grad_()
  cotangent = torch.randn(40, WIDTH)
  logits = z @ table.T
  soft = logits.softmax(-1)
  hard = F.one_hot(logits.argmax(-1), SIZE).float()
  codes = (hard + soft - soft.detach()) @ table
  plain = hard @ table
  p = F.softmax(logits / tau, -1)
  token = -torch.sum(p * torch.log(p), -1).mean()
  mean = p.mean(0)
  entropy = token + torch.sum(mean * torch.log(mean))
  parts = dict(
    index=F.mse_loss(codes, z),
    commitment=F.mse_loss(plain.detach(), z),
    codebook=F.mse_loss(plain, z.detach()),
    entropy=entropy,
  )
  total = parts["index"] + parts["commitment"] + 0.25 * parts["codebook"]
  (torch.sum(codes * cotangent) + total + 0.05 * entropy).backward()
  return arrays(
    z=z,
    table=table,
    cotangent=cotangent,
    codes=codes,
    ids=logits.argmax(-1),
    grad=z.grad,
    grad_table=table.grad,
    **parts,
  )


CASES = {
  "vq_ema": functools.partial(vq_ema, False),
  "vq_cosine": functools.partial(vq_ema, True),
  "vq_rotation": functools.partial(vq_gradient, True),
  "vq_straight": functools.partial(vq_gradient, False),
  "vq_projected": functools.partial(vq_gradient, True, 3),
  "simvq_straight": functools.partial(simvq, False),
  "simvq_rotation": functools.partial(simvq, True),
  "kmeans": kmeans_case,
  "gumbel": gumbel,
  "ibq": ibq,
}
