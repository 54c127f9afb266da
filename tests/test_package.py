"""What is installed is what is in the checkout."""

import ast
import pathlib
import re
import subprocess
import sys
import zipfile

import pytest

import magvit_jax

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Folders that import what only their extra installs.
ONLY_IN = {"convert": {"torch"}, "serve": {"gradio"}}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
  """A wheel built from a copy of what git would clone."""
  source = tmp_path_factory.mktemp("source")
  for name in ("setup.py", "pyproject.toml", "LICENSE"):
    (source / name).write_bytes((ROOT / name).read_bytes())
  for name in ("magvit_jax", "configs"):
    for path in (ROOT / name).rglob("*.py"):
      target = source / path.relative_to(ROOT)
      target.parent.mkdir(parents=True, exist_ok=True)
      target.write_bytes(path.read_bytes())
  out = tmp_path_factory.mktemp("wheel")
  pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
  done = subprocess.run(
    [*pip, "--no-build-isolation", "--wheel-dir", str(out), str(source)],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  return zipfile.ZipFile(next(out.glob("*.whl")))


def test_a_wheel_carries_every_module_and_config(wheel):
  names = set(wheel.namelist())
  for path in (ROOT / "magvit_jax").rglob("*.py"):
    assert str(path.relative_to(ROOT)) in names
  for path in (ROOT / "configs").rglob("*.py"):
    assert f"magvit_jax/{path.relative_to(ROOT)}" in names
  assert not [n for n in names if n.startswith(("configs/", "tests/"))]


def test_the_wheel_says_what_it_is(wheel):
  info = next(n for n in wheel.namelist() if n.endswith("METADATA"))
  text = wheel.read(info).decode()
  assert f"Version: {magvit_jax.__version__}" in text
  assert "Apache-2.0" in text
  extras = re.findall(r"^Provides-Extra: (.*)$", text, re.MULTILINE)
  assert {"quickstart", "test", "convert", "plan", "gcs", "serve"} <= {*extras}
  for extra in extras:
    assert f'; extra == "{extra}"' in text, f"{extra} installs nothing"


def test_every_third_party_import_is_declared_and_pinned():
  setup = (ROOT / "setup.py").read_text()
  pins = (ROOT / "launch" / "constraints.txt").read_text().lower()
  core = re.search(r"^CORE = \[(.*?)^\]", setup, re.DOTALL | re.MULTILINE)
  declared = set(re.findall(r'"([A-Za-z_-]+)', core.group(1)))
  assert declared
  for name in declared:
    pattern = rf"^{re.escape(name.lower()).replace('_', '[-_]')}=="
    assert re.search(pattern, pins, re.MULTILINE), name
  known = {name.lower().replace("-", "_") for name in declared}
  # Import names that differ from the name of the distribution.
  known |= {"absl", "orbax", "pil", "sklearn"}
  for path in (ROOT / "magvit_jax").rglob("*.py"):
    known_here = known | ONLY_IN.get(path.parent.name, set())
    for name in _imports(path):
      stdlib = name in sys.stdlib_module_names or name == "magvit_jax"
      assert stdlib or name.lower() in known_here, f"{path.name}: {name}"


def test_importing_the_package_imports_nothing_heavy():
  code = (
    "import sys, magvit_jax; "
    "print([m for m in ('jax', 'flax', 'tensorflow') if m in sys.modules])"
  )
  out = subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    text=True,
    check=True,
    cwd=ROOT,
  )
  assert out.stdout.strip() == "[]"


def test_no_file_is_longer_than_400_lines():
  for folder in ("magvit_jax", "configs", "tests", "benchmarks"):
    for path in (ROOT / folder).rglob("*.py"):
      lines = path.read_text().count("\n")
      assert lines <= 400, f"{path.relative_to(ROOT)} has {lines} lines"


def _imports(path):
  """Top-level names of the modules that a file imports anywhere."""
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
    if isinstance(node, ast.Import):
      yield from (alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield (node.module or "").partition(".")[0]


def test_library_code_patches_nothing_and_asks_one_place_for_the_platform():
  found = {"mock": [], "clear_caches": [], "default_backend": []}
  for path in sorted((ROOT / "magvit_jax").rglob("*.py")):
    for word, files in found.items():
      if re.search(rf"\b{word}\b", path.read_text()):
        files.append(path.name)
  assert found["mock"] == found["clear_caches"] == []
  assert found["default_backend"] == ["target_platform.py"]


def test_flax_is_imported_by_families_of_modules_and_the_reader_of_its_files():
  """As CONTRIBUTING.md says."""
  package = ROOT / "magvit_jax"
  found = {
    path.relative_to(package).as_posix()
    for path in package.rglob("*.py")
    if "flax" in set(_imports(path))
  }
  families = "nn nets quantizers tokenizers discriminators transformers".split()
  others = {name for name in found if name.split("/")[0] not in families}
  assert others == {"convert/reading.py"}
