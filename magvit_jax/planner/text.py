"""Plans as text: one plan, two plans side by side, a ranking."""

from collections.abc import Mapping, Sequence
from typing import Any

from magvit_jax.hardware.chips import GIB

KINDS = {
  "matmul": "matmul and convolution",
  "elementwise": "elementwise",
  "movement": "data movement",
}
CHANGED = 0.01  # of a step: smaller changes are not listed
WIDEST = 100  # characters of a shape


def report(plan: Mapping[str, Any]) -> str:
  """The whole plan."""
  lines = [_title(plan), *_memory(plan)]
  if plan["memory"]["fits"]:
    lines += [*_time(plan), *_apart(plan), *_dearest(plan)]
  return "\n".join(lines)


def difference(new: Mapping[str, Any], old: Mapping[str, Any]) -> str:
  """What got cheaper and dearer from `old` to `new`."""
  lines = [f"against {_title(old)}"]
  for name in ("config", "program", "topology", "slices", "batch", "mesh"):
    if new[name] != old[name]:
      lines.append(f"  {name}: {old[name]} -> {new[name]}")
  rows = [
    ("memory per device, GiB", _total(old), _total(new), GIB),
    ("matmul time, ms", old["matmul_time"], new["matmul_time"], 1e-3),
  ]
  both = old["memory"]["fits"] and new["memory"]["fits"]
  if both:
    rows += [
      (f"{_spell(kind)}, ms", old["seconds"][kind], new["seconds"][kind], 1e-3)
      for kind in new["seconds"]
    ]
    rows += [
      (f"step, {_spell(k)}, ms", old["step"][k], new["step"][k], 1e-3)
      for k in new["step"]
    ]
  lines += [_row(*row) for row in rows]
  if both:
    lines += _moves(new, old)
  else:
    lines.append("  one of the two does not fit; there are no times to compare")
  return "\n".join(lines)


def ranking(rows: Sequence[Mapping[str, Any]]) -> str:
  """The choices of a search, best first."""
  head = ("choice", "GiB", "examples/s", "step ms", "x matmul", "fits")
  table = [head]
  for row in rows:
    plan = row["plan"]
    memory = plan["memory"]
    fits = memory["fits"]
    table.append(
      (
        row["choice"],
        f"{_total(plan) / GIB:.2f}",
        f"{plan['examples_per_second']['no_overlap']:,.0f}" if fits else "",
        f"{plan['step']['no_overlap'] * 1e3:,.2f}" if fits else "",
        _times(plan["ratio"]["no_overlap"]) if fits else "",
        "yes" if fits else f"over by {_gib(memory['over'])}",
      )
    )
  return align(table)


def align(table: Sequence[Sequence[str]]) -> str:
  """Columns of text: the first one to the left, the others to the right."""
  widths = [max(map(len, column)) for column in zip(*table, strict=True)]
  return "\n".join(
    "  ".join(
      cell.ljust(w) if i == 0 else cell.rjust(w)
      for i, (cell, w) in enumerate(zip(row, widths, strict=True))
    ).rstrip()
    for row in table
  )


def _title(plan) -> str:
  mesh = " x ".join(f"{k} {v}" for k, v in plan["mesh"].items() if v > 1)
  slices = f", {plan['slices']} slices" if plan["slices"] > 1 else ""
  return (
    f"{plan['config']} {plan['program']} on {plan['topology']}{slices}: "
    f"{plan['devices']} devices (mesh {mesh or 'of one'}), batch "
    f"{plan['batch']}, {plan['dtype']}"
  )


def _memory(plan) -> list[str]:
  memory = plan["memory"]
  parts = ("arguments", "temporaries", "outputs", "aliased", "code")
  shown = [
    f"{part} {_gib(memory[part])}"
    for part in parts
    if memory.get(part) is not None
  ]
  lines = ["", "memory per device: " + ", ".join(shown)]
  capacity = _gib(memory["capacity"])
  if memory["fits"]:
    free = memory["capacity"] - memory["total"]
    lines.append(
      f"  {_gib(memory['total'])} of {capacity}: fits, {_gib(free)} free"
    )
    return lines
  over = memory["over"]
  lines.append(
    f"  DOES NOT FIT in {capacity}: over by "
    + (_gib(over) if over is not None else "an amount libtpu does not tell")
  )
  tensors = memory.get("tensors", ())
  if tensors:
    listed = memory["listed"]
    lines.append(
      "  the biggest allocations, by the compiler's list:"
      if listed
      else "  the biggest tensors of the program, if each is split over all "
      "devices:"
    )
  for row in tensors:
    lines.append(f"    {_gib(row['bytes'])}  {row['what']}  {row['source']}")
  lines.append(
    "  use a smaller batch, more fsdp or context in the mesh, remat, or more "
    "chips"
  )
  return lines


def _time(plan) -> list[str]:
  seconds, cycles = plan["seconds"], plan["cycles"]
  count = plan["flops"]
  lines = [
    "",
    f"FLOPs of dots and convolutions, without remat: {count['matmul']:.4g}; "
    f"at the bf16 peak of {plan['devices']} devices: "
    f"{_ms(plan['matmul_time'])} (the matmul time)",
  ]
  if count["unbounded_loops"]:
    lines.append(
      f"  {count['unbounded_loops']} loop(s) without a known trip count "
      "count once"
    )
  lines += ["", "the compiler's estimate of one device's compute:"]
  total = sum(seconds[kind] for kind in KINDS)
  table = [("  kind", "cycles", "time", "share")]
  for kind, title in KINDS.items():
    share = seconds[kind] / total if total else 0.0
    row = (f"{cycles[kind]:,}", _ms(seconds[kind]), f"{share:.0%}")
    table.append((f"  {title}", *row))
  lines.append(align(table))
  if seconds["without_estimate"] > CHANGED * total:
    lines.append(
      f"  of this, {_ms(seconds['without_estimate'])} have no estimate and are "
      "charged their bytes at the memory bandwidth"
    )
  if plan["unknown_loops"]:
    lines.append(
      "  loops whose trips the program does not tell count once: "
      + ", ".join(plan["unknown_loops"])
    )
  lines.append(
    f"  asynchronous copies beside it: {_ms(seconds['copy'])} at the memory "
    "bandwidth"
  )
  return lines


def _apart(plan) -> list[str]:
  lines = ["", "charged apart (bytes over the link, kernels at half the peak):"]
  table = [("  what", "runs", "sent", "time")]
  for row in plan["collectives"]:
    name = f"kernel {row['what']}" if row["kind"] == "kernel" else row["what"]
    sent = _gib(row["bytes"]) if row["bytes"] else ""
    table.append((f"  {name}", f"{row['runs']:,}", sent, _ms(row["seconds"])))
  lines.append(align(table) if plan["collectives"] else "  none")
  table = [("", "no overlap", "full overlap")]
  rows = {
    "step": ("step", _ms),
    "MFU": ("mfu", "{:.1%}".format),
    "times the matmul time": ("ratio", _times),
    "examples/s": ("examples_per_second", "{:,.1f}".format),
  }
  if "hours" in plan:
    rows[f"hours for {plan['steps']:,} steps"] = ("hours", "{:,.2f}".format)
  for title, (key, show) in rows.items():
    pair = plan[key]["no_overlap"], plan[key]["full_overlap"]
    cells = ["" if value is None else show(value) for value in pair]
    table.append((f"  {title}", *cells))
  return [
    *lines,
    "",
    "predicted, if communication overlaps with nothing or with everything:",
    align(table),
  ]


def _dearest(plan) -> list[str]:
  step = plan["step"]["no_overlap"]
  table = [("  operation", "kind", "runs", "time", "share")]
  notes = []
  for row in plan["dearest"]:
    share = row["seconds"] / step if step else 0.0
    cells = (row["kind"], f"{row['runs']:,}", _ms(row["seconds"]))
    table.append((f"  {row['name']}", *cells, f"{share:.1%}"))
    shape = row["shape"]
    # That of a collective of many arrays would fill the screen.
    shape = shape if len(shape) <= WIDEST else f"{shape[:WIDEST]} …"
    notes.append(f"{row['source'] or row['scope']}  {shape}")
  rows = align(table).splitlines()
  lines = [f"{row}  {note}" for row, note in zip(rows[1:], notes, strict=True)]
  compiled = f"compiled in {plan['compile_seconds']:.1f} s"
  return ["", "the ten dearest operations:", rows[0], *lines, "", compiled]


def _moves(new, old) -> list[str]:
  """Scopes whose time changed, the largest change first."""
  least = CHANGED * old["step"]["no_overlap"]
  names = {*new["scopes"], *old["scopes"]}
  change = {
    n: new["scopes"].get(n, 0.0) - old["scopes"].get(n, 0.0) for n in names
  }
  lines = []
  for title, sign in (("cheaper", -1), ("dearer", 1)):
    rows = [n for n in names if sign * change[n] > least]
    rows.sort(key=lambda n: -sign * change[n])
    lines.append(f"  {title}:" + ("" if rows else " nothing beyond 1 %"))
    lines += [f"    {_ms(change[n])}  {n}" for n in rows[:10]]
  return lines


def _row(name: str, old: float, new: float, unit: float) -> str:
  change = f" ({new / old - 1:+.1%})" if old else ""
  return f"  {name}: {old / unit:,.3f} -> {new / unit:,.3f}{change}"


def _total(plan) -> float:
  memory = plan["memory"]
  if "total" in memory:
    return memory["total"]
  return memory["capacity"] + (memory["over"] or 0)


def _spell(name: str) -> str:
  return KINDS.get(name, name.replace("_", " "))


def _gib(size: float) -> str:
  return (
    f"{size / GIB:.2f} GiB" if size > GIB / 100 else f"{size / 2**20:.2f} MiB"
  )


def _ms(seconds: float) -> str:
  return f"{seconds * 1e3:,.3f} ms"


def _times(ratio: float | None) -> str:
  return "" if ratio is None else f"{ratio:.2f}"
