"""Tasks that users ask for: what each reads, and the prompts they become."""

import numpy as np
import pytest

from helpers import untrained_generator
from helpers.errors import error_names
from magvit_jax.inference import edit_tasks, prompts, sampler


@pytest.fixture(scope="module")
def gen():
  return sampler.load_generator(untrained_generator.folder())


def test_every_task_has_inputs(gen):
  kinds = {edit_tasks.kind(gen.model, task) for task in gen.tasks}
  assert kinds == {"sample", "clip"}
  assert set(edit_tasks.INPUTS) == {*kinds, *edit_tasks.VERBS}


def test_a_task_is_a_trained_one_or_a_verb(gen):
  for task in edit_tasks.VERBS:
    assert edit_tasks.kind(gen.model, task) == task
  with error_names(ValueError, "predct", "predict"):
    edit_tasks.kind(gen.model, "predct")


def test_verbs_are_served_by_trained_tasks(gen):
  assert edit_tasks.served_verbs(gen.model) == edit_tasks.VERBS
  by_class = {k: v for k, v in gen.tasks.items() if not v.seen.any()}
  assert not edit_tasks.served_verbs(gen.model._replace(tasks=by_class))
  with error_names(ValueError, *by_class):
    edit_tasks.frames_needed(gen.model._replace(tasks=by_class), "predict")


def test_the_frames_needed_are_those_that_prompts_take(gen):
  video = untrained_generator.clip()
  for task in ("predict", "interpolate"):
    count = prompts.prefix if task == "predict" else prompts.ends
    for given in (None, *prompts.by_frames(gen.model, count)):
      need = edit_tasks.frames_needed(gen.model, task, given)
      edit_tasks.prompt(gen.model, task, video[:need], given=given)
      with pytest.raises(ValueError):
        edit_tasks.prompt(gen.model, task, video[: need - 1], given=given)


def test_a_mask_of_outpaint_hides_what_is_around_the_inner_video(gen):
  t, h, w, _ = gen.shape
  video = untrained_generator.clip()[:t]
  around = np.ones((h, w), bool)
  around[4:12, 6:18] = False
  inner = np.ascontiguousarray(video[:, 4:12, 6:18])
  whole = edit_tasks.prompt(gen.model, "outpaint", video, mask=around)
  alone = edit_tasks.prompt(gen.model, "outpaint", inner)
  assert whole.task == alone.task
  for a, b in zip(whole.tables, alone.tables, strict=True):
    np.testing.assert_array_equal(a, b)
