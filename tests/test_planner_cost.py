"""Accounting of compiled programs, on text as libtpu's compiler writes it."""

import pytest

from helpers.errors import error_names
from magvit_jax.hardware import chips
from magvit_jax.planner import cost, hlo

V5E = chips.CHIPS["v5e"]
TILE = "{1,0:T(8,128)(2,1)}"

# A scan of 6 products inside a scan of 5, recorded from a v5e and shortened.
# The bound of the inner loop comes through the state of the outer one.
LOOPS = """
HloModule jit_f, is_scheduled=true, num_partitions=16

FileNames
1 "/home/me/magvit_jax/nn/attention.py"
2 "/venv/site-packages/flax/linen/module.py"

FunctionNames
1 "f"

FileLocations
1 {file_name_id=1 function_name_id=1 line=15 end_line=15 column=3 end_column=9}
2 {file_name_id=2 function_name_id=1 line=99 end_line=99 column=3 end_column=9}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}


%product (p0: bf16[32,1024], p1: bf16[1024,1024]) -> bf16[32,1024] {
  %p0 = VECTOR parameter(0)
  %p1 = MATRIX parameter(1)
  ROOT %convolution.6 = VECTOR convolution(%p0, %p1), dim_labels=bf_io->bf
}

%in_body (s: (s32[], …)) -> (s32[], …) {
  %one = INT constant(1)
  %s = STATE parameter(0)
  %gte.0 = INT get-tuple-element(%s), index=0
  %copy.7 = s32[]{:T(128)S(6)} copy(%gte.0)
  %add.1 = INT add(%copy.7, %one)
  %gte.1 = VECTOR get-tuple-element(%s), index=1
  %gte.2 = INT get-tuple-element(%s), index=2
  %weights = MATRIX constant({...})
  %fusion.39 = VECTOR fusion(%gte.1, %weights), calls=%product, METADATA, CONFIG
  ROOT %tuple.65 = STATE tuple(%add.1, %fusion.39, %gte.2)
}

%in_test (s.1: (s32[], …)) -> pred[] {
  %s.1 = STATE parameter(0)
  %gte.3 = INT get-tuple-element(%s.1), index=0
  %gte.4 = INT get-tuple-element(%s.1), index=2
  ROOT %lt.1 = PRED compare(%gte.3, %gte.4), direction=LT
}

%fused_step (p: s32[]) -> s32[] {
  %p = INT parameter(0)
  %minus = INT constant(-2)
  ROOT %add.9 = INT add(%p, %minus)
}

%fused_test (q: s32[]) -> pred[] {
  %q = INT parameter(0)
  %zero.1 = INT constant(0)
  ROOT %gt.1 = PRED compare(%q, %zero.1), direction=GT
}

%out_body (t: (s32[], …)) -> (s32[], …) {
  %t = STATE parameter(0)
  %zero = INT constant(0)
  %gte.5 = INT get-tuple-element(%t), index=0
  %gte.6 = VECTOR get-tuple-element(%t), index=1
  %gte.7 = INT get-tuple-element(%t), index=2
  %down = INT fusion(%gte.5), kind=kLoop, calls=%fused_step
  %start = STATE tuple(%zero, %gte.6, %gte.7)
  %while.1 = STATE while(%start), condition=%in_test, body=%in_body
  %gte.8 = VECTOR get-tuple-element(%while.1), index=1
  ROOT %tuple.2 = STATE tuple(%down, %gte.8, %gte.7)
}

%out_test (t.1: (s32[], …)) -> pred[] {
  %t.1 = STATE parameter(0)
  %gte.9 = INT get-tuple-element(%t.1), index=0
  ROOT %test = PRED fusion(%gte.9), kind=kLoop, calls=%fused_test
}

ENTRY %main (x: bf16[32,1024]) -> bf16[32,1024] {
  %x = VECTOR parameter(0)
  %nine = INT constant(9)
  %six = INT constant(6)
  %tuple.5 = STATE tuple(%nine, %x, %six)
  %while.2 = STATE while(%tuple.5), condition=%out_test, body=%out_body
  ROOT %out = VECTOR get-tuple-element(%while.2), index=1
}
"""
for _short, _long in {
  "STATE": "(INT, VECTOR, /*index=2*/INT)",
  "VECTOR": f"bf16[32,1024]{TILE}",
  "MATRIX": f"bf16[1024,1024]{TILE}",
  "INT": "s32[]{:T(128)}",
  "PRED": "pred[]{:T(512)}",
  "METADATA": 'metadata={op_name="jit(f)/while/body/dot_general" '
  "stack_frame_id=2}",
  "CONFIG": 'backend_config={"flag_configs":[],"window_config":{'
  '"kernel_window_bounds":["128","8"],"estimated_cycles":"3000"}}',
}.items():
  LOOPS = LOOPS.replace(_short, _long)


def entry(*lines, before=""):
  body = "\n".join(f"  {line}" for line in lines)
  return f"HloModule m\n{before}\nENTRY %main () -> f32[] {{\n{body}\n}}\n"


def operations(text, devices=16, **kwargs):
  return cost.account(text, V5E, devices, **kwargs).operations


def test_nested_loops_multiply():
  """9, 7, 5, 3, 1 outside times 0 … 5 inside."""
  found = cost.account(LOOPS, V5E, 16)
  product = next(o for o in found.operations if o.name == "fusion.39")
  assert product.runs == 5 * 6
  assert product.kind == cost.MATMUL
  assert product.cycles == 30 * 3000
  assert product.seconds == pytest.approx(30 * 3000 / V5E.clock)
  assert found.seconds(cost.MATMUL) == product.seconds
  assert not found.unknown_loops


def test_a_loop_that_does_not_tell_is_named():
  text = LOOPS.replace("constant(9)", 'custom-call(), custom_call_target="x"')
  found = cost.account(text, V5E, 16)
  assert found.unknown_loops == ("while.2",)
  assert next(o for o in found.operations if o.name == "fusion.39").runs == 6


def test_a_stated_trip_count_is_taken():
  text = LOOPS.replace(
    "body=%out_body",
    'body=%out_body, backend_config={"known_trip_count":{"n":"11"}}',
  )
  product = next(o for o in operations(text) if o.name == "fusion.39")
  assert product.runs == 11 * 6


@pytest.mark.parametrize(
  "start, step, direction, bound, trips",
  [
    (0, 1, "LT", 6, 6),
    (0, 1, "LE", 6, 7),
    (2, 3, "LT", 9, 3),
    (2, 3, "LE", 8, 3),
    (6, -1, "GE", 0, 7),
    (5, 1, "LT", 5, 0),
    (0, 2, "NE", 8, 4),
  ],
)
def test_trip_counts(start, step, direction, bound, trips):
  text = LOOPS.replace("direction=LT", f"direction={direction}")
  text = text.replace("constant(6)", f"constant({bound})")
  text = text.replace(
    "%zero = s32[]{:T(128)} constant(0)",
    f"%zero = s32[]{{:T(128)}} constant({start})",
  )
  text = text.replace(
    "%one = s32[]{:T(128)} constant(1)",
    f"%one = s32[]{{:T(128)}} constant({step})",
  )
  runs = {o.name: o.runs for o in operations(text)}
  assert runs["fusion.39"] == 5 * trips


@pytest.mark.parametrize("shift", [1, 0])
def test_the_source_is_our_own_line(shift):
  """XLA writes a parent's number, or, in some versions, that plus one."""
  text = LOOPS
  if not shift:
    for parent in (1, 2):
      old = f"parent_frame_id={parent}"
      text = text.replace(old, f"parent_frame_id={parent - 1}")
  product = next(o for o in operations(text) if o.name == "fusion.39")
  assert product.source == "magvit_jax/nn/attention.py:15"
  assert product.scope == "jit(f)/while/body/dot_general"


@pytest.mark.parametrize(
  "groups, size",
  [
    ("{{0,1,2,3},{4,5,6,7},{8,9,10,11},{12,13,14,15}}", 4),
    ("[2,8]<=[16]", 8),
    ("[4,4]<=[4,4]T(1,0)", 4),
    (
      "mesh['axis_0'=4,'axis_1'=1,'axis_2'=4], device_ids=([4,4]T(1,0)) "
      "{'axis_0'}",
      4,
    ),
    ("mesh['axis_0'=16,'axis_1'=1] {'axis_0','axis_1'}", 16),
    ("mesh['a'=8,'b'=2] {'a':(1)2,'b'}", 4),
    ("{}", 16),
  ],
)
def test_an_all_reduce_sends_its_bytes_twice_around(groups, size):
  text = entry(
    "%p = f32[1024]{0:T(1024)} parameter(0)",
    f"ROOT %ar = f32[1024]{{0:T(1024)}} all-reduce(%p), channel_id=7, "
    f"replica_groups={groups}, to_apply=%add",
  )
  (op,) = operations(text)
  assert op.kind == cost.COLLECTIVE and op.what == "all-reduce"
  assert op.bytes == pytest.approx(2 * 4096 * (size - 1) / size)
  assert op.seconds == pytest.approx(op.bytes / (2 * V5E.link))


def test_a_gather_sends_its_part_to_all_others_even_if_it_starts_early():
  start = entry(
    f"%p = bf16[32,1024]{TILE} parameter(0)",
    f"%s = (bf16[32,1024]{TILE}, bf16[128,1024]{TILE}) all-gather-start(%p), "
    "replica_groups={{0,1,2,3}}, dimensions={0}",
    f"ROOT %d = bf16[128,1024]{TILE} all-gather-done(%s)",
  )
  (op,) = operations(start)
  assert (op.what, op.bytes) == ("all-gather", 3 * 32 * 1024 * 2)


def test_a_gather_that_runs_beside_fusions_is_charged_once():
  part, whole = f"bf16[32,1024]{TILE}", f"bf16[128,1024]{TILE}"
  gather = f"{whole} all-gather(%p), channel_id=3, replica_groups={{{{0,1}}}}"

  def step(name, target):
    return f"""
%{name} (p: bf16[32,1024]) -> bf16[128,1024] {{
  %p = {part} parameter(0)
  %g = {gather}
  ROOT %c = {whole} custom-call(%g), custom_call_target="{target}"
}}
"""

  names = {
    "a": "AsyncCollectiveStart",
    "b": "Other",
    "c": "AsyncCollectiveDone",
  }
  text = entry(
    f"%p = {part} parameter(0)",
    *(f"%f{n} = {whole} fusion(%p), kind=kCustom, calls=%{n}" for n in names),
    before="".join(step(n, target) for n, target in names.items()),
  )
  found = [o for o in operations(text) if o.kind == cost.COLLECTIVE]
  assert [o.bytes for o in found] == [32 * 1024 * 2]
  # Another one, of another channel, is not a step of it.
  other = text.replace("channel_id=3", "channel_id=4", 1)
  assert sum(o.kind == cost.COLLECTIVE for o in operations(other)) == 3


def test_a_sum_of_which_a_fusion_keeps_its_part_is_a_reduce_scatter():
  text = entry(
    f"%p = bf16[1024,1024]{TILE} parameter(0)",
    f"ROOT %f = bf16[256,1024]{TILE} fusion(%p), kind=kCustom, "
    "calls=%all-reduce-scatter.clone.1",
    before=f"""
%all-reduce-scatter.clone.1 (i: bf16[1024,1024]) -> bf16[256,1024] {{
  %i = bf16[1024,1024]{TILE} parameter(0)
  %ar = bf16[1024,1024]{TILE} all-reduce(%i), replica_groups={{{{0,1,2,3}}}}
  %o = u32[] constant(0)
  ROOT %own = bf16[256,1024]{TILE} dynamic-slice(%ar, %o, %o)
}}
""",
  )
  (op,) = operations(text)
  assert op.what == "reduce-scatter"
  assert op.bytes == 1024 * 1024 * 2 * 3 / 4


def test_what_goes_between_slices_is_charged_to_the_slow_network():
  text = entry(
    "%p = f32[256,128]{1,0:T(8,128)} parameter(0)",
    "%a = token[] after-all()",
    "%send.1 = (f32[256,128]{1,0:T(8,128)}, u32[], token[]) send(%p, %a), "
    "channel_id=4, is_host_transfer=true, frontend_attributes={"
    '_xla_host_transfer_handler_name="xla_megascale_runtime",'
    '_xla_megascale_transfer_type="ALL_REDUCE"}',
    "ROOT %d = token[] send-done(%send.1), channel_id=4",
  )
  (op,) = operations(text, devices=64, slices=4)
  assert op.what == "all-reduce (DCN)"
  assert op.bytes == 256 * 128 * 4 * 2 * 3 / 4
  assert op.seconds == pytest.approx(op.bytes / V5E.dcn)


@pytest.mark.parametrize("stated", [True, False])
def test_a_kernel_runs_at_half_the_peak(stated):
  estimate = '"cost_estimate":{"flops":"12345"},' if stated else ""
  text = entry(
    f"%p = bf16[32,1024]{TILE} parameter(0)",
    f"%k = bf16[32,1024]{TILE} custom-call(%p), "
    'custom_call_target="tpu_custom_call", backend_config={'
    f'"custom_call_config":{{"body":"abc",{estimate}"x":1}}}}',
    f"ROOT %b = bf16[32,1024]{TILE} custom-call(), "
    'custom_call_target="AllocateBuffer"',
  )
  (op,) = operations(text, kernel_flops=777)
  assert op.kind == cost.KERNEL
  flops = 12345 if stated else 777
  assert op.seconds == pytest.approx(flops / (0.5 * V5E.peak))


def test_what_has_no_estimate_is_charged_its_padded_bytes():
  shape = "bf16[16,9,3]{2,1,0:T(8,128)(2,1)}"
  text = entry(f"%p = {shape} parameter(0)", f"ROOT %c = {shape} copy(%p)")
  (op,) = operations(text)
  assert not op.estimated and op.kind == cost.MOVEMENT
  moved = 2 * 16 * 16 * 128 * 2  # 9 rows fill two tiles, 3 columns one
  assert op.seconds == pytest.approx(moved / V5E.hbm_bandwidth)


@pytest.mark.parametrize(
  "line, kind",
  [
    (f"%r = bf16[32,1024]{TILE} multiply(%i, %i)", cost.ELEMENTWISE),
    ("%r = f32[]{:T(128)} reduce(%i, %z), to_apply=%add", cost.ELEMENTWISE),
    (f"%r = bf16[1024,32]{TILE} transpose(%i)", cost.MOVEMENT),
    (f"%r = bf16[32,1024]{TILE} gather(%i, %z)", cost.MOVEMENT),
    ("%r = s32[]{:T(128)} add(%z, %z)", cost.MOVEMENT),
  ],
)
def test_kinds_of_fusions(line, kind):
  text = entry(
    f"%p = bf16[32,1024]{TILE} parameter(0)",
    f"ROOT %f = bf16[32,1024]{TILE} fusion(%p), kind=kLoop, calls=%c, "
    'backend_config={"window_config":{"estimated_cycles":"700"}}',
    before=f"""
%c (i: bf16[32,1024]) -> bf16[32,1024] {{
  %i = bf16[32,1024]{TILE} parameter(0)
  %z = s32[]{{:T(128)}} constant(0)
  ROOT {line}
}}
""",
  )
  (op,) = operations(text)
  assert (op.kind, op.cycles) == (kind, 700)


@pytest.mark.parametrize("opcode, rows", [("copy", 32), ("slice", 16)])
def test_copies_beside_the_cores_are_kept_apart(opcode, rows):
  moved = f"bf16[{rows},1024]{TILE}"
  text = entry(
    f"%p = bf16[32,1024]{TILE} parameter(0)",
    f"%s = ((bf16[32,1024]{TILE}), {moved}, u32[]) {opcode}-start(%p)",
    f"ROOT %d = {moved} {opcode}-done(%s)",
  )
  found = cost.account(text, V5E, 1)
  size = rows * 1024 * 2
  assert found.seconds(cost.COPY) == pytest.approx(
    size / V5E.hbm_bandwidth, rel=1e-3
  )
  assert found.seconds(cost.MOVEMENT) == 0


def test_sizes_of_shapes():
  both = "(f32[2,3]{0,1:T(8,128)}, /*index=1*/pred[8]{0}, token[])"
  assert hlo.shape_bytes(both) == 24 + 8
  assert hlo.shape_bytes(both, padded=True) == 8 * 128 * 4 + 8
  assert hlo.shape_bytes("s4[3]") == 2


def test_another_text_is_refused():
  with error_names(ValueError, "ENTRY"):
    hlo.parse("module @jit_f {}")
