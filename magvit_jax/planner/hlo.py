"""Reads the text of a compiled HLO module.

Computations, instructions, trip counts of loops and source lines: what `cost`
needs, from the text alone, so that no TPU library is needed to read it.
"""

import dataclasses
import functools
import math
import re
from typing import NamedTuple

_COMMENT = re.compile(r"/\*.*?\*/")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(
  r"\b([a-z]+\d*[a-z\d]*)\[([\d,]*)\](?:\{([\d,]*):?(?:T\(([\d,]+)\))?)?"
)
_CALLED = re.compile(
  r"(?:calls|body|to_apply|called_computations|branch_computations|"
  r"true_computation|false_computation)=(\{[^}]*\}|%?[\w.\-]+)"
)
_FRAME_ROW = re.compile(r"^(\d+) (?:\{(.*)\}|\"(.*)\")$")
BITS = {"pred": 8, "token": 0, "opaque": 0}


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line: `name = shape opcode(operands), attributes`."""

  name: str
  shape: str
  opcode: str
  operands: tuple[str, ...]
  attributes: str
  literal: str  # the text between the parentheses

  @functools.cached_property
  def bytes(self) -> int:
    """Bytes of the result, without the padding of its tiles."""
    return shape_bytes(self.shape)

  @functools.cached_property
  def padded(self) -> int:
    """Bytes of the result as it lies in memory."""
    return shape_bytes(self.shape, padded=True)

  def attribute(self, pattern: str) -> str | None:
    """The first group of `pattern` in the attributes."""
    found = re.search(pattern, self.attributes)
    return found and found.group(1)

  @property
  def cycles(self) -> int | None:
    """The compiler's estimate, or None where it gives none."""
    found = self.attribute(r'"estimated_cycles":"?(\d+)')
    return None if found is None else int(found)

  @property
  def scope(self) -> str:
    """Where it stands in the code: its op_name."""
    return self.attribute(r'op_name="([^"]*)"') or ""

  @property
  def called(self) -> tuple[str, ...]:
    """Names of the computations it calls (not a loop's condition)."""
    names = []
    for text in _CALLED.findall(self.attributes):
      names += re.findall(r"[\w.\-]+", text)
    return tuple(names)


class Computation(NamedTuple):
  """Instructions by name, in order, and the name of the root."""

  name: str
  instructions: dict[str, Instruction]
  root: str


class Module(NamedTuple):
  """A compiled program.

  Attributes:
    computations: by name.
    entry: name of the first one to run.
    frames: source frames of a stack_frame_id, innermost first, as
      (file, line).
  """

  computations: dict[str, Computation]
  entry: str
  frames: dict[int, tuple[tuple[str, int], ...]]


def parse(text: str) -> Module:
  """Reads a module.

  Raises:
    ValueError: the text has no entry computation.
  """
  computations, entry, current = {}, None, None
  rows: dict[str, list[tuple[int, str]]] = {}
  section = ""
  for line in text.splitlines():
    if current is None:
      header = _HEADER.match(line)
      if header:
        current = Computation(header[2], {}, "")
        entry = current.name if header[1] else entry
      elif found := _FRAME_ROW.match(line.strip()):
        rows.setdefault(section, []).append(
          (int(found[1]), found[2] or found[3] or "")
        )
      else:
        section = line.strip()
    elif line.startswith("}"):
      computations[current.name], current = current, None
    elif found := _LINE.match(line):
      new = _instruction(found[2], _COMMENT.sub("", found[3]))
      current.instructions[new.name] = new
      if found[1]:
        current = current._replace(root=new.name)
  if entry is None:
    raise ValueError("this is not the text of an HLO module: it has no ENTRY")
  return Module(computations, entry, _frames(rows))


def shape_bytes(shape: str, padded: bool = False) -> int:
  """Bytes of 'f32[2,3]{1,0:T(8,128)}' or of all arrays of a tuple.

  Args:
    shape: as the module writes it.
    padded: whether to round the minor axes up to whole tiles.
  """
  total = 0
  for kind, sizes, order, tile in _ARRAY.findall(shape):
    digits = re.search(r"\d+", kind)
    bits = BITS.get(kind, int(digits[0]) if digits else 0)
    shape = _numbers(sizes)
    if padded and tile:
      for axis, size in zip(
        _numbers(order), reversed(_numbers(tile)), strict=False
      ):
        shape[axis] = -(-shape[axis] // size) * size
    total += -(-bits * math.prod(shape) // 8)
  return total


def _numbers(text: str) -> list[int]:
  return [int(n) for n in text.split(",") if n]


def source(module: Module, instruction: Instruction) -> str:
  """'file:line' in our own code, or in the innermost code there is."""
  number = instruction.attribute(r"stack_frame_id=(\d+)")
  frames = module.frames.get(int(number), ()) if number else ()
  own = [f for f in frames if "site-packages" not in f[0]]
  for path, line in own or frames:
    return f"{shorten(path)}:{line}"
  return ""


def shorten(path: str) -> str:
  """The part of a path from magvit_jax on, or its last two names."""
  parts = path.split("/")
  inside = [i for i, part in enumerate(parts) if part == "magvit_jax"]
  return "/".join(parts[inside[-1] :] if inside else parts[-2:])


def trip_count(
  module: Module,
  loop: Instruction,
  caller: Computation,
  known: dict[int, int],
) -> int | None:
  """How often a `while` runs, or None if the text does not tell.

  The condition compares an element of the loop's state with a bound; its
  start is read where the loop is called, its step in the body.

  Args:
    module: the program.
    loop: the `while` instruction.
    caller: the computation it stands in.
    known: elements of the caller's own state that no iteration changes.
  """
  stated = loop.attribute(r"known_trip_count\W+n\W+(\d+)")
  if stated:
    return int(stated)
  condition = module.computations[loop.attribute(r"condition=%?([\w.\-]+)")]
  body = module.computations[loop.attribute(r"body=%?([\w.\-]+)")]
  start = state_values(module, loop, caller, known)
  compare, sides = _arithmetic(module, condition, condition.root)
  if compare is None or compare.opcode != "compare":
    return None
  direction = compare.attribute(r"direction=(\w+)")
  values = [_value(condition, name, start) for name in sides]
  indices = [_element(condition, name) for name in sides]
  for i, other in ((0, 1), (1, 0)):
    step = _step(module, body, indices[i])
    if step and None not in (values[i], values[other]):
      distance = (values[other] - values[i]) / step
      extra = direction in ("LE", "GE")
      return max(0, math.floor(distance) + 1 if extra else math.ceil(distance))
  return None


def state_values(
  module: Module,
  loop: Instruction,
  caller: Computation,
  known: dict[int, int],
) -> dict[int, int]:
  """The integers among the elements a loop starts with."""
  state = caller.instructions.get(loop.operands[0])
  if state is None or state.opcode != "tuple":
    return {}
  values = {
    i: _value(caller, name, known) for i, name in enumerate(state.operands)
  }
  return {i: v for i, v in values.items() if v is not None}


def constants(
  module: Module,
  loop: Instruction,
  caller: Computation,
  known: dict[int, int],
) -> dict[int, int]:
  """The elements of `state_values` that the body hands on as they are."""
  body = module.computations[loop.attribute(r"body=%?([\w.\-]+)")]
  root = body.instructions[body.root]
  start = state_values(module, loop, caller, known)
  return {
    i: value
    for i, value in start.items()
    if root.opcode == "tuple" and _element(body, root.operands[i]) == i
  }


def _instruction(name: str, text: str) -> Instruction:
  end = _closing(text, 0) + 1 if text[0] == "(" else text.index(" ")
  shape, rest = text[:end], text[end:].lstrip()
  opening = rest.index("(")
  closing = _closing(rest, opening)
  literal = rest[opening + 1 : closing]
  operands = re.findall(r"%([\w.\-]+)", literal)
  return Instruction(
    name,
    shape,
    rest[:opening],
    tuple(operands),
    rest[closing + 1 :],
    literal,
  )


def _closing(text: str, opening: int) -> int:
  """Place of the parenthesis that closes the one at `opening`."""
  depth = 0
  for i in range(opening, len(text)):
    depth += {"(": 1, ")": -1}.get(text[i], 0)
    if not depth:
      return i
  raise ValueError(f"no closing parenthesis in the HLO line: {text[:200]}")


def _frames(rows: dict[str, list[tuple[int, str]]]):
  """Resolves the tables FileNames, FileLocations and StackFrames."""
  files = dict(rows.get("FileNames", ()))
  locations, frames, chains = {}, {}, {}
  for number, text in rows.get("FileLocations", ()):
    field = dict(re.findall(r"(\w+)=(\d+)", text))
    name = files.get(int(field.get("file_name_id", 0)), "")
    locations[number] = (name, int(field.get("line", 0)))
  for number, text in rows.get("StackFrames", ()):
    field = dict(re.findall(r"(\w+)=(\d+)", text))
    frames[number] = (
      int(field.get("file_location_id", 0)),
      int(field.get("parent_frame_id", 0)),
    )
  # Some versions of XLA write the parent's number plus one: the first frame
  # would then be its own parent.
  shift = int(any(parent == n for n, (_, parent) in frames.items()))
  for number in frames:
    chain, at, seen = [], number, set()
    while at in frames and at not in seen:
      seen.add(at)
      location, parent = frames[at]
      at = parent - shift
      if location in locations:
        chain.append(locations[location])
    chains[number] = tuple(chain)
  return chains


def _through(
  computation: Computation, name: str | int | None
) -> Instruction | None:
  """The instruction behind copies and bitcasts."""
  found = computation.instructions.get(name)
  while found and found.opcode in ("copy", "bitcast", "convert", "reshape"):
    found = computation.instructions.get(found.operands[0])
  return found


def _element(computation: Computation, name: str | int | None) -> int | None:
  """Index of the loop state's element that `name` is, if it is one."""
  found = _through(computation, name)
  if found is None or found.opcode != "get-tuple-element":
    return None
  owner = computation.instructions.get(found.operands[0])
  if owner is None or owner.opcode != "parameter":
    return None
  index = found.attribute(r"index=(\d+)")
  return None if index is None else int(index)


def _value(
  computation: Computation, name: str | int | None, state: dict[int, int]
) -> int | None:
  """The integer an instruction is, given those of the state."""
  if isinstance(name, int):
    return name
  found = _through(computation, name)
  if found is not None and found.opcode == "constant":
    text = found.literal.strip()
    return int(text) if re.fullmatch(r"-?\d+", text) else None
  return state.get(_element(computation, name))


def _arithmetic(module: Module, place: Computation, name: str):
  """(instruction, its sides), of what is computed there or in a fusion.

  A side is an integer, or a name in `place`; None where nothing is computed.
  """
  found = _through(place, name)
  if found is None or found.opcode != "fusion":
    return found, list(found.operands) if found else []
  inner = module.computations[found.called[0]]
  root = _through(inner, inner.root)
  if root is None:
    return None, []
  return root, [_outside(found, inner, operand) for operand in root.operands]


def _outside(
  fusion: Instruction, inner: Computation, name: str
) -> str | int | None:
  """What an operand inside a fusion is outside of it."""
  found = _through(inner, name)
  if found is not None and found.opcode == "parameter":
    return fusion.operands[int(found.literal)]
  return _value(inner, name, {})


def _step(module: Module, body: Computation, index: int | None) -> int | None:
  """What one iteration adds to an element of the state."""
  root = body.instructions[body.root]
  if index is None or root.opcode != "tuple":
    return None
  found, sides = _arithmetic(module, body, root.operands[index])
  if found is None or found.opcode not in ("add", "subtract"):
    return None
  own = [_element(body, side) == index for side in sides]
  amounts = [_value(body, side, {}) for side in sides]
  if own[0] and amounts[1] is not None:
    return amounts[1] if found.opcode == "add" else -amounts[1]
  return amounts[0] if own[1] and found.opcode == "add" else None
