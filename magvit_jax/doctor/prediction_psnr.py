"""A generator's predicted frames against repeating the last given one."""

from magvit_jax.doctor import Finding
from magvit_jax.doctor.run import Run

NAME = "prediction_psnr"


def check(run: Run) -> list[Finding]:
  """PSNR of predicted frames on held-out clips, and of the baseline.

  The baseline has passed through the tokenizer, as predictions have.
  """
  predicted = run.last("eval_psnr_predicted")
  repeat = run.last("eval_psnr_repeat")
  if predicted is None or repeat is None:
    return []
  what = (
    f"predicted frames have {predicted:.2f} dB on held-out clips, repeating "
    f"the last given one has {repeat:.2f} dB"
  )
  if predicted >= repeat:
    return [Finding(NAME, "ok", what)]
  if run.step <= run.steps / 2:
    return [Finding(NAME, "note", f"{what}; it is half way at most")]
  stride = run.get("data.stride")
  moving = f"data.stride={2 * stride}" if stride else "data with more motion"
  return [
    Finding(
      NAME,
      "warn",
      f"{what}: predictions are worse than a still picture",
      f"steps={2 * run.steps}, a larger stage.generator.transformer, or "
      f"{moving}, where a still picture is a worse guess",
    )
  ]
