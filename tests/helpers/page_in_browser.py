"""Uses the page of `serve` in headless Chromium, as a person would.

  cd tests && python -m helpers.page_in_browser --shots=/tmp/shots \\
    --workdir=../runs/digits/ten --video=../clip.mp4

Uploads a video, reads the figures, asks for each verb that a generator has (a
box is drawn with the mouse), uploads files that are no video, and keeps a
screenshot of each. It fails if something does not appear, if the page asks for
anything from another machine, or if files are left when the server has been
stopped. Needs `pip install selenium` and Debian's chromium and chromium-driver;
pytest does not collect it.
"""

import argparse
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

FLAGS = (
  "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
  "--disable-background-networking --disable-component-update --disable-sync "
  "--window-size=1280,1500"
)
PATIENCE = 400  # seconds for one result on a busy machine
VERBS = ("predict", "interpolate", "inpaint", "outpaint")


class Page:
  """The page in a browser, and what is seen on it."""

  def __init__(self, url: str, shots: pathlib.Path, profile: str):
    options = webdriver.ChromeOptions()
    for flag in [*FLAGS.split(), f"--user-data-dir={profile}"]:
      options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    self.driver = webdriver.Chrome(
      options=options, service=webdriver.ChromeService("/usr/bin/chromedriver")
    )
    self._shots, self._url = shots, url
    self.driver.get(url)
    self.wait("#look")

  def wait(self, css: str, text: str = ""):
    """The element, once it is there and holds the text."""
    end = time.time() + PATIENCE
    while time.time() < end:
      for found in self.driver.find_elements(By.CSS_SELECTOR, css):
        if text.lower() in found.text.lower():
          return found
      time.sleep(0.3)
    self.shot("failed")
    raise TimeoutError(f"{css} with {text!r} did not appear on the page")

  def shot(self, name: str) -> None:
    """Keeps a picture of the whole page."""
    height = self.driver.execute_script(
      "return document.documentElement.scrollHeight"
    )
    self.driver.set_window_size(1280, max(900, height + 150))
    time.sleep(1.5)
    self.driver.save_screenshot(str(self._shots / f"{name}.png"))

  def upload(self, path: str | os.PathLike[str]) -> None:
    """Gives the page a file."""
    field = self.driver.find_element(By.CSS_SELECTOR, "input[type=file]")
    field.send_keys(os.path.abspath(path))

  def choose(self, label: str, text: str) -> bool:
    """Picks an entry of a drop-down list; False if it has none such."""
    field = self.driver.find_element(
      By.CSS_SELECTOR, f"input[aria-label='{label}']"
    )
    field.click()
    time.sleep(1)  # the list is drawn again while it opens
    for entry in self.driver.find_elements(By.CSS_SELECTOR, "[role=option]"):
      if entry.text.strip().lstrip("✓").strip().startswith(text):
        entry.click()
        return True
    field.send_keys(Keys.ESCAPE)
    return False

  def draw(self, top: float, left: float, bottom: float, right: float) -> None:
    """Draws a box on the picture, in parts of it."""
    picture = self.wait("#box .mv-pick")
    size = picture.size
    x, y = (left - 0.5) * size["width"], (top - 0.5) * size["height"]
    wide, high = (right - left) * size["width"], (bottom - top) * size["height"]
    mouse = ActionChains(self.driver).move_to_element_with_offset(picture, x, y)
    mouse.click_and_hold().move_by_offset(wide, high).release().perform()

  def make(self, expected: str) -> None:
    """Presses the button and waits for another result, with a text in it."""
    old = self.wait("#edit").get_attribute("innerHTML")
    self.driver.find_element(By.CSS_SELECTOR, "#make").click()
    end = time.time() + PATIENCE
    while self.wait("#edit").get_attribute("innerHTML") == old:
      if time.time() > end:
        raise TimeoutError("nothing was made")
      time.sleep(0.3)
    self.wait("#edit", expected)

  def strangers(self) -> list[str]:
    """Addresses of other machines that were asked for anything."""
    found = []
    for entry in self.driver.get_log("performance"):
      event = json.loads(entry["message"])["message"]
      if event["method"] == "Network.requestWillBeSent":
        address = event["params"]["request"]["url"]
        if not address.startswith((self._url, "data:", "blob:", "chrome")):
          found.append(address)
    return found


def visit(page: Page, video: str, folder: pathlib.Path) -> None:
  """What a visitor does."""
  page.shot("1_start")
  page.upload(video)
  page.wait("#look", "dB")
  page.shot("2_reconstruction")
  whole = pathlib.Path(video).read_bytes()
  cut = whole[: len(whole) // 2]
  for name, content in (("notes.mp4", b"no video"), ("cut.mp4", cut)):
    bad = folder / name
    bad.write_bytes(content)
    page.upload(bad)
    page.wait("#look", name)
    page.shot(f"3_{bad.stem}")
  if not page.driver.find_elements(By.CSS_SELECTOR, "#make"):
    return
  page.make("upload one first")
  page.upload(video)
  page.wait("#look", "dB")
  for verb in VERBS:
    if not page.choose("Task", verb):
      continue
    time.sleep(1)
    if "paint" in verb:
      page.draw(0.25, 0.2, 0.8, 0.7)
      time.sleep(0.5)
    page.make("tokens")
    page.shot(f"4_{verb}")


def main() -> int:
  """Runs the server and the visit; returns 0, or 1 if something is wrong."""
  parser = argparse.ArgumentParser(description=__doc__)
  for flag in ("--workdir", "--shots", "--video"):
    parser.add_argument(flag, required=True)
  args = parser.parse_args()
  shots = pathlib.Path(args.shots)
  shots.mkdir(parents=True, exist_ok=True)
  with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    temporary = folder / "tmp"
    temporary.mkdir()
    verb = [sys.executable, "-m", "magvit_jax", "serve", f"--port={port}"]
    server = subprocess.Popen(
      [*verb, f"--workdir={args.workdir}"],
      env={**os.environ, "TMPDIR": str(temporary)},
      stdout=subprocess.PIPE,
      text=True,
    )
    page = None
    try:
      line = next(line for line in server.stdout if "open http" in line)
      url = line.split()[1]
      page = Page(url, shots, str(folder / "profile"))
      visit(page, args.video, folder)
      strangers = page.strangers()
    finally:
      if page:
        page.driver.quit()
      server.send_signal(signal.SIGTERM)
      server.wait(60)
    left = [str(path) for path in temporary.rglob("*")]
  print(f"asked of other machines: {strangers or 'nothing'}")
  print(f"files left: {left or 'none'}")
  return int(bool(strangers or left))


if __name__ == "__main__":
  sys.exit(main())
