"""Launch scripts in a folder of their own, with stand-ins for programs."""

import pathlib
import shlex
import shutil
import subprocess

from helpers import TESTS

LAUNCH = TESTS.parent / "launch"
TOOLS = (
  *(
    "basename",
    "bash",
    "cat",
    "dirname",
    "env",
    "git",
    "grep",
    "gzip",
    "mkdir",
  ),
  *("mktemp", "nohup", "rm", "sed", "seq", "setsid", "sleep", "tail", "tar"),
  "touch",
)
# Writes what it was called with, a line of shell words for each call.
RECORD = (
  'printf "%q " "$(basename "$0")" "$@" >>"$TMP/calls"; echo >>"$TMP/calls"\n'
)


class Bench:
  """A copy of launch/ and a folder of programs that write down their calls."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.bin = folder / "bin"
    self.bin.mkdir()
    for name in TOOLS:  # and nothing else of this machine
      (self.bin / name).symlink_to(shutil.which(name))
    shutil.copytree(LAUNCH, folder / "launch")
    self.env = {
      "PATH": str(self.bin),
      "TMP": str(folder),
      "HOME": str(folder),
      "PAUSE_SECONDS": "0",
      "POLL_SECONDS": "0",
    }

  def program(self, name: str, body: str = "") -> str:
    """Adds a program; `body` is bash that runs behind the writing down."""
    path = self.bin / name
    path.write_text(f"#!/usr/bin/env bash\n{RECORD}{body}")
    path.chmod(0o755)
    return str(path)

  def start(self, script: str, *args: str, **env: str) -> subprocess.Popen:
    return subprocess.Popen(
      ["bash", f"launch/{script}", *args],
      cwd=self.folder,
      env={**self.env, **env},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  def run(self, script: str, *args: str, **env: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a launch script."""
    child = self.start(script, *args, **env)
    out, err = child.communicate(timeout=60)
    return child.returncode, out, err

  def dry(self, script: str, *args: str) -> list[list[str]]:
    """The words of each line that a dry run shows, comments left out."""
    code, out, err = self.run(script, *args)
    assert code == 0, err
    assert not (self.folder / "calls").exists()
    lines = [line for line in out.splitlines() if line[:1] not in ("#", "")]
    return [shlex.split(line) for line in lines]

  def calls(self, name: str = "") -> list[list[str]]:
    """What was called, with its arguments, in order."""
    path = self.folder / "calls"
    text = path.read_text() if path.exists() else ""
    words = [_words(line) for line in text.splitlines()]
    return [call for call in words if call[0].startswith(name)]


def _words(line: str) -> list[str]:
  """Arguments of a line that bash's %q wrote."""
  out = subprocess.run(
    ["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True
  )
  return out.stdout.split("\0")[:-1]
