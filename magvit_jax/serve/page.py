"""The page: what is on it, and which function each part calls.

It works without a network: no analytics, no share link, no font or script of
another machine. An upload is deleted as soon as it has been read; the frames
that were read stay in the memory of the visitor's session, and results are
sent within the page, so that no file is left of either.
"""

import os
import pathlib
import shutil
from typing import Any

# Read by gradio and huggingface_hub when they are imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio as gr  # noqa: E402
import PIL.Image  # noqa: E402

from magvit_jax.inference import edit_tasks
from magvit_jax.report.page import data_uri  # noqa: E402
from magvit_jax.serve import edits, films, looks, markup, models, uploads  # noqa: E402

USER_ERRORS = (ValueError, TypeError, OSError)
SESSIONS = 8  # whose clips are kept in memory
FORGOTTEN = 3600  # seconds after which a clip, or a stray file, is deleted
NO_CLASS = "(none)"
WELCOME = "What the tokenizer makes of a video appears here."

# The box is drawn with the pointer; its value is [top, left, bottom, right] in
# parts of the frame.
_BOX_HTML = """
{{#if picture}}
<div class="mv-pick"><img src="${picture}" draggable="false" alt="first frame">
<div class="mv-box" style="${value
  ? 'top:' + 100 * value[0] + '%;left:' + 100 * value[1] + '%;bottom:'
    + 100 * (1 - value[2]) + '%;right:' + 100 * (1 - value[3]) + '%'
  : 'display:none'}"></div></div>
<div class="mv-hint">Draw a box with the pointer.</div>
{{else}}<div class="mv-hint">Upload a video to draw a box on it.</div>{{/if}}
"""
_BOX_CSS = """
.mv-pick { position: relative; cursor: crosshair; touch-action: none;
  max-width: 320px; user-select: none; }
.mv-pick img { width: 100%; display: block; image-rendering: pixelated; }
.mv-box { position: absolute; border: 2px solid #ffb020; pointer-events: none;
  box-shadow: 0 0 0 1px #000, inset 0 0 0 1px #000; background: #ffb02033; }
.mv-hint { opacity: 0.75; font-size: 13.5px; }
"""
_BOX_JS = """
const at = (event) => {
  const area = element.querySelector('.mv-pick').getBoundingClientRect();
  const part = (x, from, size) => Math.min(1, Math.max(0, (x - from) / size));
  return [part(event.clientY, area.top, area.height),
          part(event.clientX, area.left, area.width)];
};
const around = (a, b) => [Math.min(a[0], b[0]), Math.min(a[1], b[1]),
                          Math.max(a[0], b[0]), Math.max(a[1], b[1])];
let from = null;
element.addEventListener('pointerdown', (event) => {
  if (!event.target.closest('.mv-pick')) return;
  from = at(event);
  event.preventDefault();
});
window.addEventListener('pointermove', (event) => {
  if (!from) return;
  const [top, left, bottom, right] = around(from, at(event));
  element.querySelector('.mv-box').style.cssText =
    `top:${100 * top}%;left:${100 * left}%;` +
    `bottom:${100 - 100 * bottom}%;right:${100 - 100 * right}%`;
});
window.addEventListener('pointerup', (event) => {
  if (!from) return;
  const box = around(from, at(event));
  from = null;
  props.value = box;
});
"""
# The first film leads: the others beside it are kept at its time.
_FILMS_JS = """
for (const kind of ['timeupdate', 'seeked', 'play', 'pause']) {
  element.addEventListener(kind, (event) => {
    const [lead, ...others] = element.querySelectorAll('video');
    if (event.target !== lead) return;
    for (const film of others) {
      if (Math.abs(film.currentTime - lead.currentTime) > 0.1)
        film.currentTime = lead.currentTime;
      if (kind === 'play') film.play();
      if (kind === 'pause') film.pause();
    }
  }, true);
}
"""


def build(
  ready: models.Models, limits: uploads.Limits, folder: str
) -> gr.Blocks:
  """The page of what a workdir holds.

  Args:
    ready: the models.
    limits: of uploads.
    folder: for uploads until they are read; to be deleted at the end.
  """
  # Read by each part of the page when it is made, and by the server.
  os.environ["GRADIO_TEMP_DIR"] = folder
  tok, gen = ready.tokenizer, ready.generator
  st, sh, sw = tok.strides
  with gr.Blocks(
    title=f"magvit_jax: {ready.title}",
    analytics_enabled=False,
    delete_cache=(60, FORGOTTEN),
  ) as blocks:
    gr.Markdown(f"# {ready.title}")
    gr.HTML(
      markup.note(
        f"A token stands for {st} frames of {sh}x{sw} pixels. Of a video, the "
        f"first {limits.seconds:g} s are read, of files of at most "
        f"{limits.megabytes:g} MB. The first video of a size takes longer: "
        "its programs are compiled."
      )
    )
    clip = gr.State(None, time_to_live=FORGOTTEN)
    with gr.Row():
      with gr.Column(scale=1, min_width=240):
        file = gr.File(label="A video or an image", height=150)
      with gr.Column(scale=3):
        result = gr.HTML(
          markup.note(WELCOME), js_on_load=_FILMS_JS, elem_id="look"
        )
    outputs = [file, clip, result]
    if gen is not None:
      outputs.append(_generator(gen, clip))

    def upload(path: str | None):
      return _upload(ready, limits, folder, path)

    _on(file.upload, upload, [file], outputs, "look")
  return blocks


def launch(
  blocks: gr.Blocks, limits: uploads.Limits, *, host: str, port: int
) -> str:
  """Starts the server in a thread; returns its address.

  Args:
    blocks: from `build`.
    limits: of uploads.
    host, port: to listen at.

  Raises:
    OSError: the port is in use.
  """
  blocks.queue(max_size=32, default_concurrency_limit=1)
  _, url, _ = blocks.launch(
    server_name=host,
    server_port=port,
    max_file_size=int(limits.megabytes * 1e6),
    state_session_capacity=SESSIONS,
    theme=gr.themes.Default(
      font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    ),
    css=markup.CSS,
    share=False,
    ssr_mode=False,
    pwa=False,
    mcp_server=False,
    enable_monitoring=False,
    footer_links=[],
    prevent_thread_lock=True,
    quiet=True,
  )
  return url


def _on(event: Any, call: Any, inputs: list, outputs: list, name: str) -> None:
  """Calls a function at an event; one such call runs at a time, of all."""
  event(
    call,
    inputs,
    outputs,
    api_name=name,
    concurrency_id="models",
    concurrency_limit=1,
  )


def _upload(
  ready: models.Models, limits: uploads.Limits, folder: str, path: str | None
) -> tuple[Any, ...]:
  """What an upload changes: the drop zone, the clip, the result and the box."""
  shape = ready.generator and ready.generator.shape
  clip, picture = None, ""
  try:
    if path is None:
      raise ValueError("there is no file; upload a video or an image")
    clip = uploads.read(path, limits, shape)
    html = markup.look(looks.look(ready.tokenizer, clip), clip)
  except USER_ERRORS as error:
    html = markup.problem(error)
  finally:
    _delete(path, folder)
  if ready.generator is None:
    return None, clip, html
  if clip is not None:
    first = PIL.Image.fromarray(films.shown(clip.fitted[0]))
    picture = data_uri(films.png(first), "image/png")
  return None, clip, html, gr.HTML(value=None, picture=picture)


def _delete(path: str | None, folder: str) -> None:
  """Deletes an upload, and the empty files that gradio makes beside it."""
  root = pathlib.Path(folder).resolve()
  for stray in root.glob("*"):
    if stray.is_file():
      stray.unlink(missing_ok=True)
  own = path and pathlib.Path(path).resolve().parent
  if own and root in own.parents:
    shutil.rmtree(own, ignore_errors=True)


def _here(shown: bool) -> bool | str:
  """`visible` of a part that keeps up with changes while it is hidden."""
  return True if shown else "hidden"


def _generator(gen: Any, clip: gr.State) -> gr.HTML:
  """The part of the page for a generator; returns where boxes are drawn."""
  choices = edits.choices(gen)
  first = next(iter(choices))
  method = gen.method
  gr.Markdown("## Generate and edit")
  with gr.Row():
    with gr.Column(scale=1, min_width=240):
      task = gr.Dropdown(
        [(text, name) for name, text in choices.items()],
        value=first,
        label="Task",
      )
      label = gr.Dropdown(
        [NO_CLASS, *gen.labels],
        value=NO_CLASS,
        label="Class",
        visible=edit_tasks.takes_label(gen.model, first),
      )
      box = gr.HTML(
        None,
        picture="",
        html_template=_BOX_HTML,
        css_template=_BOX_CSS,
        js_on_load=_BOX_JS,
        visible=_here(edits.reads_box(first)),
        elem_id="box",
      )
      start = gr.Number(
        0,
        label="Begin at second",
        minimum=0,
        visible=edits.reads_clip(gen, first),
      )
      num = gr.Slider(1, edits.MOST, 1, step=1, label="Samples")
      seed = gr.Number(0, label="Seed", precision=0, minimum=0)
      with gr.Accordion("Decoding", open=False):
        steps = gr.Slider(1, 64, method.steps, step=1, label="Steps")
        heat = gr.Slider(0.05, 2, method.temperature, label="Temperature")
        guidance = gr.Slider(0, 10, method.guidance, label="Guidance")
        gr.HTML(
          markup.note("Other values than before are compiled first, once.")
        )
      button = gr.Button("Make", variant="primary", elem_id="make")
    with gr.Column(scale=3):
      t, h, w, _ = gen.shape
      made = gr.HTML(
        markup.note(
          f"What the generator makes appears here: {t} frames of {w}x{h}. A "
          "video is resized to cover that, and its middle is taken."
        ),
        js_on_load=_FILMS_JS,
        elem_id="edit",
      )

  def make(clip, task, label, box, start, num, seed, steps, heat, guidance):
    wish = edits.Wish(
      task=task,
      label=None if label == NO_CLASS else label,
      start=start or 0,
      box=box and tuple(box),
      num=int(num),
      seed=int(seed or 0),
      method=dict(
        steps=int(steps), temperature=float(heat), guidance=float(guidance)
      ),
    )
    try:
      return markup.edit(edits.edit(gen, clip, wish))
    except USER_ERRORS as error:
      return markup.problem(error)

  def chosen(task):
    return (
      gr.Dropdown(visible=edit_tasks.takes_label(gen.model, task)),
      gr.HTML(visible=_here(edits.reads_box(task))),
      gr.Number(visible=edits.reads_clip(gen, task)),
    )

  settings = [task, label, box, start, num, seed, steps, heat, guidance]
  _on(button.click, make, [clip, *settings], [made], "edit")
  task.change(chosen, [task], [label, box, start], api_name=False, queue=False)
  return box
