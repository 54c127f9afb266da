"""Prompts: which task serves a request, and what is given; no network runs."""

import numpy as np
import pytest

from helpers.errors import error_names
from magvit_jax.inference import prompts
from magvit_jax.tasks import regions, tables

SHAPE, GRID = (9, 16, 24, 3), (3, 4, 6)
TASKS = dict(
  class_cond={},
  frame_prediction={},
  five=dict(name="frame_prediction", frames=5),
  told=dict(name="class_cond_frame_prediction", frames=1),
  interpolation={},
  outpaint_central={},
  outpaint_vertical={},
  inpaint_central={},
  inpaint_dynamic={},
)


def model(*names):
  tasks = {name: TASKS[name] for name in names or TASKS}
  return prompts.Model(SHAPE, GRID, tables.build(tasks, SHAPE, GRID))


def clip(frames=9, height=16, width=24, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (frames, height, width, 3), np.uint8)


def test_tasks_are_found_by_what_they_give():
  own = model()
  assert prompts.class_task(own) == "class_cond"
  assert prompts.by_frames(own, prompts.prefix) == {
    1: "frame_prediction",
    5: "five",
  }
  told = prompts.by_frames(own, prompts.prefix, labelled=True)
  assert told == {1: "told", 5: "five"}
  assert prompts.by_frames(own, prompts.ends) == {1: "interpolation"}
  assert prompts.predict(own, clip(), None, labelled=True).task == "told"
  assert prompts.predict(own, clip(), 5, labelled=False).task == "five"


def test_ends_come_from_a_video_of_any_length():
  video = clip(30)
  for given in (video, video[[0, -1]]):
    prompt = prompts.interpolate(model(), given, None)
    assert prompt.task == "interpolation"
    pixels = prompts.pixels(video)
    np.testing.assert_array_equal(prompt.video[0, 0], pixels[0])
    np.testing.assert_array_equal(prompt.video[0, -1], pixels[-1])
  filled = prompts.filled(prompt)
  middle = (pixels[0] + pixels[-1]) / 2
  np.testing.assert_allclose(filled[0, 4], middle, atol=1e-6)


def test_a_small_video_lies_in_the_middle():
  for size, task, region in [
    ((8, 12), "outpaint_central", regions.central),
    ((16, 12), "outpaint_vertical", regions.vertical),
  ]:
    own = model()
    small = clip(9, *size)
    prompt = prompts.outpaint(own, small)
    assert prompt.task == task and prompt.tables is own.tasks[task]
    inside = prompt.video[0][region(SHAPE)].reshape(small.shape)
    np.testing.assert_array_equal(inside, prompts.pixels(small))


def test_another_size_is_served_by_the_nearest_region():
  own = model()
  prompt = prompts.outpaint(own, clip(9, 16, 16))
  assert prompt.task == "outpaint_vertical"
  seen = prompt.tables.seen
  assert seen[:, :, 4:20].all() and seen.sum() == 9 * 16 * 16
  np.testing.assert_array_equal(
    prompt.tables.known, regions.covered(seen, SHAPE, GRID)
  )
  assert prompt.tables.known.mean() == 4 / 6
  # Its edges are repeated outwards, as the task's are.
  filled = prompts.filled(prompt)[0]
  np.testing.assert_array_equal(filled[:, :, 0], filled[:, :, 4])
  np.testing.assert_array_equal(filled[:, :, 23], filled[:, :, 19])


def test_masks_and_boxes_say_what_is_made_anew():
  own = model()
  exact = prompts.inpaint(own, clip(), box=(4, 6, 12, 18))
  assert exact.task == "inpaint_central"
  assert exact.tables is own.tasks["inpaint_central"]
  mask = np.zeros((16, 24), np.uint8)
  mask[4:12, 4:12] = 200
  mask[0, 0] = 100  # grey below one half is given
  for request in (dict(mask=mask), dict(mask=np.stack([mask >= 128] * 9))):
    prompt = prompts.inpaint(own, clip(), box=(4, 12, 12, 16), **request)
    hidden = np.zeros((16, 24), bool)
    hidden[4:12, 4:16] = True
    np.testing.assert_array_equal(prompt.tables.seen, [~hidden] * 9)
    assert prompt.tables.black and prompt.tables.known.mean() == 18 / 24
    assert (prompts.filled(prompt)[0][:, hidden] == -1).all()
  # A mask that moves as a task's does is served by that task.
  moving = ~regions.around_sliding(SHAPE)
  assert prompts.inpaint(own, clip(), moving).task == "inpaint_dynamic"


def test_what_was_made_last_is_what_goes_on():
  videos = prompts.pixels(clip(18)).reshape(2, *SHAPE)
  prompt = prompts.continued(model(), videos, labelled=False)
  assert prompt.task == "five"
  np.testing.assert_array_equal(prompt.video[:, :5], videos[:, -5:])
  prompt = prompts.continued(model(), videos, labelled=True)
  assert prompt.task == "told"
  np.testing.assert_array_equal(prompt.video[:, :1], videos[:, -1:])


@pytest.mark.parametrize(
  "run, named",
  [
    (
      lambda: prompts.by_task(model("class_cond"), "inpaint_centra"),
      ["inpaint_centra", "class_cond"],
    ),
    (
      lambda: prompts.from_label(model("interpolation")),
      ["interpolation"],
    ),
    (
      lambda: prompts.predict(model("interpolation"), clip(), None, False),
      ["interpolation"],
    ),
    (
      lambda: prompts.interpolate(model("five", "told"), clip(), None),
      ["five", "told"],
    ),
    (
      lambda: prompts.interpolate(model(), clip(), 2),
      ["given=2", 1, 9],
    ),
    (
      lambda: prompts.outpaint(model("five"), clip(9, 8, 12)),
      ["five"],
    ),
    (
      lambda: prompts.inpaint(model("class_cond"), clip(), box=(0, 0, 8, 8)),
      ["class_cond"],
    ),
    (lambda: prompts.outpaint(model(), clip()), ["(9, 16, 24, 3)", "16x24"]),
    (
      lambda: prompts.outpaint(model(), clip(9, 20, 12)),
      ["(9, 20, 12, 3)", "16x24"],
    ),
    (
      lambda: prompts.outpaint(model(), clip(5, 8, 12)),
      ["(5, 8, 12, 3)", "16x24", 9],
    ),
    (lambda: prompts.outpaint(model(), clip(9, 2, 2)), ["video"]),
    (
      lambda: prompts.inpaint(model(), clip()),
      ["box=(top, left, bottom, right)"],
    ),
    (
      lambda: prompts.inpaint(model(), clip(), np.ones((16, 24), bool)),
      ["box=(top, left, bottom, right)"],
    ),
    (
      lambda: prompts.inpaint(model(), clip(), np.ones((16, 16), bool)),
      ["(16, 16)", "(16, 24)", "(9, 16, 24)"],
    ),
    (
      lambda: prompts.inpaint(model(), clip(), np.zeros((9, 16, 24))),
      ["float64"],
    ),
    (
      lambda: prompts.inpaint(model(), clip(), box=(8, 0, 4, 8)),
      ["box", "(8, 0, 4, 8)"],
    ),
    (
      lambda: prompts.inpaint(model(), clip(12), box=(0, 0, 8, 8)),
      [],
    ),
    (
      lambda: prompts.inpaint(model(), clip(5), box=(0, 0, 8, 8)),
      ["(5, 16, 24, 3)", "[t 16 24 3]", 9],
    ),
  ],
)
def test_what_no_task_serves_is_refused(run, named):
  with error_names(ValueError, *named):
    run()
