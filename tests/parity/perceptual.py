"""Writes tests/golden/perceptual.npz from lpips, torchvision and MAGVIT.

  pip install '.[parity]' torchvision lpips
  git clone https://github.com/google-research/magvit /tmp/magvit
  python tests/parity/perceptual.py /tmp/magvit

Read at lpips 0.1.4, torchvision 0.28.0, magvit 05e8cfd. The weights are drawn
in the order of the public names (`drawn`), which are kept with their shapes;
tests/test_perceptual.py draws the same, converts them by name and compares.
ResNets have two stages, of one and two blocks; the names and shapes of the
whole one are kept too.
"""

import importlib.util
import json
import pathlib
import sys

import numpy as np

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "perceptual.npz"
BLOCKS, WIDTH, CLASSES = (1, 2), 8, 10
SIZE = 32


def frames(seed, size=SIZE):
  """[2 size size 3] in [-1,1]."""
  shape = (2, size, size, 3)
  return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def drawn(shapes):
  """Weights of {name: shape}, in that order, that keep their input's size."""
  rng = np.random.default_rng(0)
  out = {}
  for name, shape in shapes.items():
    values = rng.standard_normal(shape, np.float32)
    kind = name.replace("/", ".").rpartition(".")[2]
    if name.startswith("lin"):
      values = np.abs(values)
    elif len(shape) > 1:
      ours = kind == "kernel"
      fan_in = np.prod(shape[:-1] if ours else shape[1:])
      values *= np.sqrt(2 / fan_in)
    elif kind in ("running_var", "var", "scale"):
      values = 1 + 0.1 * np.abs(values)
    else:
      values = 0.1 * values + (kind == "weight")
    out[name] = values.astype(np.float32)
  return out


def shapes_of(state):
  """{name: shape} of a state without the counters of batch norms."""
  return {k: tuple(v.shape) for k, v in state.items() if v.ndim}


def torch_net(net):
  """The torch module in evaluation, with drawn weights, and their shapes."""
  import torch

  shapes = shapes_of(net.state_dict())
  weights = {k: torch.from_numpy(v) for k, v in drawn(shapes).items()}
  net.load_state_dict(weights, strict=False)
  return net.eval(), shapes


def channels_first(x):
  import torch

  return torch.from_numpy(x.transpose(0, 3, 1, 2).copy())


def lpips_case():
  """Distances and their gradient; the weights of both public files."""
  import lpips
  import torch

  net = lpips.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False)
  state = {}
  for name, x in net.net.state_dict().items():
    state["features." + name.partition(".")[2]] = x
  state |= {k: v for k, v in net.state_dict().items() if k.startswith("lin")}
  state = {k: v for k, v in state.items() if not k.startswith("lins")}
  shapes = shapes_of(state)
  weights = {k: torch.from_numpy(v) for k, v in drawn(shapes).items()}
  for name, x in net.net.state_dict().items():
    x.copy_(weights["features." + name.partition(".")[2]])
  net.load_state_dict(
    {k: v for k, v in weights.items() if k.startswith("lin")}, strict=False
  )
  y = channels_first(frames(2)).requires_grad_()
  distance = net(channels_first(frames(1)), y)[:, 0, 0, 0]
  (grad,) = torch.autograd.grad(distance.mean(), y)
  return shapes, dict(
    lpips=distance.detach().numpy(),
    lpips_grad=grad.numpy().transpose(0, 2, 3, 1),
  )


def torchvision_case():
  """Logits of a small ResNet; names of the whole one."""
  import torch
  from torchvision.models import resnet

  class Small(resnet.ResNet):
    """Two stages of the four."""

    def __init__(self):
      torch.nn.Module.__init__(self)
      self._norm_layer = torch.nn.BatchNorm2d
      self.inplanes, self.dilation = WIDTH, 1
      self.groups, self.base_width = 1, 64
      self.conv1 = torch.nn.Conv2d(3, WIDTH, 7, 2, 3, bias=False)
      self.bn1 = torch.nn.BatchNorm2d(WIDTH)
      self.relu = torch.nn.ReLU(inplace=True)
      self.maxpool = torch.nn.MaxPool2d(3, 2, 1)
      block = resnet.Bottleneck
      self.layer1 = self._make_layer(block, WIDTH, BLOCKS[0])
      self.layer2 = self._make_layer(block, 2 * WIDTH, BLOCKS[1], stride=2)
      self.layer3 = self.layer4 = torch.nn.Identity()
      self.avgpool = torch.nn.AdaptiveAvgPool2d(1)
      self.fc = torch.nn.Linear(2 * WIDTH * block.expansion, CLASSES)

  net, shapes = torch_net(Small())
  x = (frames(1) + 1) / 2
  x = (x - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
  with torch.no_grad():
    logits = net(channels_first(np.float32(x))).numpy()
  whole = shapes_of(resnet.resnet50(weights=None).state_dict())
  return shapes, whole, dict(torchvision=logits)


def flax_case(folder):
  """MAGVIT's loss of a small ResNet of its own code."""
  import jax
  import jax.numpy as jnp
  from flax import traverse_util

  path = pathlib.Path(folder, "videogvt/train_lib/resnet_v1.py")
  spec = importlib.util.spec_from_file_location("resnet_v1", path)
  module = importlib.util.module_from_spec(spec)
  sys.modules["resnet_v1"] = module
  spec.loader.exec_module(module)
  net = module.ResNet(
    CLASSES, module.BottleneckResNetBlock, BLOCKS, width_factor=1
  )
  abstract = jax.eval_shape(
    lambda k: net.init(k, jnp.zeros((1, 64, 64, 3)), train=False),
    jax.random.key(0),
  )
  flat = traverse_util.flatten_dict(abstract, sep="/")
  shapes = {k: tuple(v.shape) for k, v in flat.items()}
  variables = traverse_util.unflatten_dict(drawn(shapes), sep="/")

  def logits(x):
    x = jax.image.resize((x + 1) / 2, (len(x), 224, 224, 3), "bilinear")
    return net.apply(variables, x, train=False)[1]

  difference = logits(frames(1)) - logits(frames(2))
  return shapes, dict(magvit=jnp.mean(jnp.square(difference)))


def main():
  out = {}
  shapes = {}
  shapes["vgg16_lpips"], arrays = lpips_case()
  out |= arrays
  small, whole, arrays = torchvision_case()
  shapes |= {"resnet50": small, "resnet50_whole": whole}
  out |= arrays
  shapes["resnet50_flax"], arrays = flax_case(sys.argv[1])
  out |= arrays
  np.savez_compressed(
    GOLDEN,
    shapes=np.array(json.dumps(shapes)),
    **{k: np.asarray(v, np.float32) for k, v in out.items()},
  )
  print({k: np.asarray(v).ravel()[:4] for k, v in out.items()})
  print(f"{GOLDEN}: {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
  main()
