"""The verbs encode and decode on small written videos.

The tokenizer is the toy of test_api; what is tested is what surrounds it:
rates, sizes, pads, sound, refusals.
"""

import json
from fractions import Fraction

import av
import numpy as np
import PIL.Image
import pytest
from test_api import codec, pixels

from helpers.errors import check_names, error_names
from magvit_jax import __main__ as command
from magvit_jax.cli import decode, encode
from magvit_jax.data import video_io, video_write
from magvit_jax.files import token_file
from magvit_jax.inference import video_codec


@pytest.fixture(scope="module")
def tok():
  return codec()


@pytest.fixture
def run(tok, tmp_path, monkeypatch):
  """Runs a verb in a folder with the toy as the tokenizer of any workdir."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(
    video_codec, "load_tokenizer", lambda folder, **kwargs: tok
  )

  def verb(module, *args):
    return module.main(["--workdir=W", *map(str, args)])

  return verb


def write(path, frames=11, size=(20, 30), fps=Fraction(30000, 1001)):
  smooth = pixels(1, *size)[0] // 2 + 60
  pictures = [np.roll(smooth, i, axis=1) for i in range(frames)]
  video_write.write_video(path, pictures, fps)


def test_length_size_and_rate_survive_the_way_there_and_back(run, tok, capsys):
  write("in.mp4", frames=22)
  assert run(encode, "in.mp4", "out.npz") == 0
  check_names(capsys.readouterr().out, 3, 4, 2)
  ids, meta = token_file.read("out.npz")
  assert ids.shape == (7, 3, 4, 2) and ids.dtype == np.uint32
  assert meta.pad == (3, 4, 2) and meta.rate == Fraction(30000, 1001)
  assert run(decode, "out.npz", "back.mp4") == 0
  info = video_io.probe("back.mp4")
  assert (info.frames, info.height, info.width) == (22, 20, 30)
  assert info.fps == Fraction(30000, 1001)
  video = video_io.read_all("in.mp4")
  np.testing.assert_array_equal(ids, tok.encode(video))


def test_the_file_of_tokens_opens_with_numpy_alone(run):
  write("in.mp4", frames=1)
  run(encode, "in.mp4", "out.npz")
  with np.load("out.npz", allow_pickle=False) as file:
    meta = json.loads(str(file["meta"]))
  assert meta["format"] == 1 and meta["source"] == "in.mp4"


def test_an_image_is_a_video_of_one_frame(run):
  PIL.Image.fromarray(pixels(9, 17)).save("in.png")
  run(encode, "in.png", "out.npz")
  run(decode, "out.npz", "back.png")
  with PIL.Image.open("back.png") as image:
    assert image.size == (17, 9)


def test_loss_of_sound_is_announced(run, capsys):
  write("mute.mkv", frames=4)
  with av.open("loud.mkv", "w") as container:
    video = container.add_stream("libx264", rate=25)
    video.width = video.height = 16
    sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
    frame = av.AudioFrame.from_ndarray(
      np.zeros((1, 800), np.int16), format="s16", layout="mono"
    )
    frame.sample_rate = 8000
    for picture in [*pixels(4, 16, 16), None]:
      made = None if picture is None else av.VideoFrame.from_ndarray(picture)
      container.mux(video.encode(made))
    container.mux([*sound.encode(frame), *sound.encode(None)])
  run(encode, "mute.mkv", "mute.npz")
  assert "mute.mkv" not in capsys.readouterr().err
  run(encode, "loud.mkv", "loud.npz")
  check_names(capsys.readouterr().err, "loud.mkv")


def test_an_existing_output_stays_unless_told(run, tmp_path):
  write("in.mp4", frames=2)
  run(encode, "in.mp4", "out.npz")
  before = (tmp_path / "out.npz").read_bytes()
  write("in.mp4", frames=6)
  with error_names(FileExistsError, "out.npz", "--overwrite"):
    run(encode, "in.mp4", "out.npz")
  assert (tmp_path / "out.npz").read_bytes() == before
  run(encode, "in.mp4", "out.npz", "--overwrite")
  assert token_file.read("out.npz")[1].frames == 6
  with error_names(FileExistsError, "in.mp4"):
    run(decode, "out.npz", "in.mp4")


def test_tokens_of_another_tokenizer_are_refused(run, tok, monkeypatch):
  write("in.mp4", frames=2)
  run(encode, "in.mp4", "out.npz")
  monkeypatch.setattr(tok, "fingerprint", "0123456789abcdef")
  with error_names(ValueError, "out.npz", "0123456789abcdef"):
    run(decode, "out.npz", "back.mp4")


@pytest.mark.parametrize(
  "module,args,named",
  [
    (encode, ["in.mp4", "out.mp4"], ["out.mp4", ".npz"]),
    (encode, ["in.mp4", "no/out.npz"], ["no/out.npz", "no"]),
    (encode, ["none.mp4", "out.npz"], ["none.mp4"]),
    (encode, ["text.mp4", "out.npz"], ["text.mp4"]),
    (decode, ["in.mp4", "back.mp4"], ["in.mp4"]),
    (decode, ["good.npz", "back.png"], ["back.png", 2]),
    (decode, ["good.npz", "back.xyz"], ["back.xyz", ".mp4"]),
    (decode, ["newer.npz", "back.mp4"], ["newer.npz"]),
  ],
)
def test_what_cannot_be_done_is_said_and_leaves_nothing(
  run, tmp_path, module, args, named
):
  write("in.mp4", frames=2)
  (tmp_path / "text.mp4").write_text("not a video")
  run(encode, "in.mp4", "good.npz")
  np.savez("newer.npz", ids=np.zeros(3), meta=np.array('{"format": 2}'))
  before = sorted(path.name for path in tmp_path.iterdir())
  with error_names((ValueError, OSError), *named):
    run(module, *args)
  assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("verb", ["encode", "decode"])
def test_help_shows_an_example(verb, capsys):
  with pytest.raises(SystemExit) as stop:
    command.main([verb, "--help"])
  assert stop.value.code == 0
  out = capsys.readouterr().out
  assert f"python -m magvit_jax {verb} --workdir=runs/quickstart" in out
