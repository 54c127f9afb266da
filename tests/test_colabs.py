"""Every notebook runs to its end, and is stored as a reader should find it."""

import importlib.util
import pathlib

import nbclient
import nbformat
import pytest
from IPython.core import inputtransformer2

from helpers.errors import error_names

COLABS = pathlib.Path(__file__).parent.parent / "colabs"
NOTEBOOKS = sorted(COLABS.glob("*.ipynb"))
CHECKS = {
  "quickstart": """
assert recon.shape == video.shape and generator_run["step"] == cfg.steps
assert tokenizer_run["eval_psnr"] > 5 and share < 0.2
assert set(samples) == {"bigbuckbunny", "bikes", "carphone_pristine"}
assert future.shape == clip.shape
""",
  "tokenize_your_videos": """
assert before.shape == after.shape == (meta.frames, meta.height, meta.width, 3)
assert same and np.abs(before.astype(float) - after).mean() < 60
""",
  "add_a_quantizer": """
assert set(results) == {"fsq", "sine"}
assert all(result["eval_psnr"] > 5 for result in results.values())
""",
  "edit_a_video": """
assert len(gen.tasks) == 10 and len(rows) == 20
assert future.shape == between.shape == larger.shape == mended.shape
assert longer.shape[0] == 2 * len(clip) and len(samples) == 4
""",
}


def read(path):
  return nbformat.read(path, as_version=4)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs_and_installs_first(path):
  notebook = read(path)
  nbformat.validate(notebook)
  code = [cell for cell in notebook.cells if cell.cell_type == "code"]
  assert not any(cell.outputs or cell.execution_count for cell in code)
  assert "%pip install" in code[0].source and notebook.cells[0].source[0] == "#"
  assert "MAGVIT_SMOKE" in code[1].source
  assert "/work/" not in path.read_text() and "/home/" not in path.read_text()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_top_to_bottom(path, tmp_path, monkeypatch):
  monkeypatch.setenv("MAGVIT_SMOKE", "1")
  monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
  notebook = read(path)
  notebook.cells.append(nbformat.v4.new_code_cell(CHECKS[path.stem]))
  client = nbclient.NotebookClient(
    notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}
  )
  client.execute()
  pictures = [
    output
    for cell in notebook.cells
    for output in cell.get("outputs", ())
    if "image/png" in output.get("data", {})
  ]
  assert len(pictures) >= 1 or path.stem == "add_a_quantizer"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_installs_from_the_checkout_it_finds(
  path, tmp_path, monkeypatch
):
  cells = read(path).cells
  source = next(cell.source for cell in cells if cell.cell_type == "code")
  code = inputtransformer2.TransformerManager().transform_cell(source)
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  asked = []

  class Shell:
    def run_line_magic(self, name, line):
      asked.append((name, line))

  def run(folder):
    monkeypatch.chdir(folder)
    names = {"get_ipython": Shell}
    exec(code, names)
    return names["checkout"]

  root = COLABS.parent.resolve()
  (tmp_path / "magvit_jax").symlink_to(root)  # a clone, as in Colab
  assert run(COLABS) == run(tmp_path) == run(root) == root
  assert asked == [("pip", 'install -q "{checkout}[quickstart]"')] * 3
  (tmp_path / "empty").mkdir()
  (tmp_path / "magvit_jax").unlink()
  with error_names(FileNotFoundError, "magvit_jax"):
    run(tmp_path / "empty")
