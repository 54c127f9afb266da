"""Whether a perceptual loss is there, and does something."""

from magvit_jax.doctor import Finding
from magvit_jax.doctor.run import Run, ends


def check(run: Run) -> list[Finding]:
  """None, or one that is zero."""
  if not run.is_tokenizer:
    return []
  name = run.get("stage.perceptual.name")
  if name == "none":
    return [
      Finding(
        "perceptual",
        "note",
        "no perceptual loss: reconstructions will be blurred beside published "
        "ones, which all have one",
        "where looks matter, stage.perceptual with weights: the configs of "
        "MAGVIT take the word perceptual=resnet50 or lpips",
      )
    ]
  values = run.values("loss_perceptual")
  if not len(values):
    return []
  late = ends(values)[1]
  if late > 0:
    return [Finding("perceptual", "ok", f"{name}, {late:.3g}")]
  what = f"{name} is {late:g}, as of a network without its weights"
  cure = "stage.perceptual.weights: convert them again from the public file"
  return [Finding("perceptual", "wrong", what, cure)]
