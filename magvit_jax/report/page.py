"""The page: a few helpers that make HTML, and the one style sheet.

Everything is inside the file: no script, no font, no address of another
machine, so that it opens from a disk or a mail years later.
"""

import base64
import html
from collections.abc import Iterable, Sequence
from typing import NamedTuple

CSS = """
:root { color-scheme: light dark;
  --page: #f6f7f9; --card: #fff; --ink: #1c2430; --soft: #5d6878;
  --line: #dfe3e9; --accent: #2563a8; --good: #24784a; --bad: #b3412e; }
@media (prefers-color-scheme: dark) { :root {
  --page: #12161c; --card: #1a2029; --ink: #e4e9f0; --soft: #98a4b5;
  --line: #2d3643; --accent: #74aef0; --good: #62c28d; --bad: #ee8a76; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main, header > div { max-width: 1120px; margin: 0 auto; padding: 0 20px; }
header { background: var(--card); border-bottom: 1px solid var(--line);
  padding: 26px 0 16px; }
h1 { font-size: 25px; line-height: 1.25; margin: 0 0 4px;
  overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 0 0 4px; }
h3 { font-size: 14px; margin: 22px 0 6px; overflow-wrap: anywhere; }
p { margin: 0 0 12px; max-width: 80ch; }
.soft, figcaption { color: var(--soft); font-size: 13.5px; }
nav { display: flex; flex-wrap: wrap; gap: 4px 16px; margin-top: 12px;
  font-size: 14px; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
section { background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; padding: 20px 22px; margin: 18px 0; }
.facts { display: flex; flex-wrap: wrap; gap: 2px 22px; }
.facts b { font-weight: 600; }
.badge { display: inline-block; border-radius: 99px; padding: 1px 11px;
  font-size: 12.5px; font-weight: 600; vertical-align: 3px;
  border: 1px solid currentColor; margin-left: 8px; }
.good { color: var(--good); } .bad { color: var(--bad); }
.cards { display: grid; gap: 12px; margin: 12px 0 18px;
  grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }
.cards div { border: 1px solid var(--line); border-radius: 8px;
  padding: 11px 14px; }
.cards b { display: block; font-size: 23px; line-height: 1.25;
  font-variant-numeric: tabular-nums; }
.cards small { color: var(--soft); font-weight: 400; font-size: 14px; }
.cards span { color: var(--soft); font-size: 13px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px;
  font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 6px 14px 6px 0; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; font-size: 13px; }
td.n, th.n { text-align: right; white-space: nowrap; }
tr:last-child td { border-bottom: 0; }
.plots, .minor { display: grid; gap: 16px; margin-bottom: 16px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); }
.minor { grid-template-columns:
  repeat(auto-fill, minmax(min(100%, 290px), 1fr)); }
figure { margin: 0; }
figure svg { width: 100%; height: auto; display: block; }
.strip { display: grid; grid-template-columns: 7.5em minmax(480px, 1fr);
  gap: 3px 8px; align-items: center; }
.strip span { color: var(--soft); font-size: 13px; text-align: right; }
.strip img, .films img { width: 100%; display: block;
  image-rendering: pixelated; }
.films { display: grid; gap: 16px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 310px), 1fr)); }
.bar { display: flex; height: 26px; border-radius: 6px; overflow: hidden;
  margin: 12px 0; background: var(--line); }
.key { display: inline-block; width: 11px; height: 11px; border-radius: 3px;
  margin-right: 8px; }
pre { margin: 8px 0 0; font: 12.5px/1.5 ui-monospace, "DejaVu Sans Mono",
  monospace; overflow-x: auto; }
summary { cursor: pointer; color: var(--accent); }
footer { color: var(--soft); font-size: 13px; text-align: center;
  padding: 4px 0 30px; }
@media print { body { background: #fff; } section { break-inside: avoid; } }
"""
COLOURS = ("#3f7fc4", "#d9822b", "#3f9d68", "#b5589c", "#8b7ad1", "#8a9099")


class Section(NamedTuple):
  """One part of the report.

  Attributes:
    title: heading, plain text.
    body: HTML.
  """

  title: str
  body: str


def apart(section: Section, prefix: str) -> Section:
  """The section with other ids, so that two like it fit into one page."""
  body = section.body
  for mark in (' id="', "url(#", 'href="#'):
    body = body.replace(mark, f"{mark}{prefix}-")
  return section._replace(body=body)


def escape(text: object) -> str:
  """Text that is safe inside HTML and inside quoted attributes."""
  return html.escape(str(text), quote=True)


def data_uri(content: bytes, mime: str) -> str:
  """A data: address holding the bytes themselves."""
  return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def image(content: bytes, mime: str, alt: str) -> str:
  """An <img> that carries its own bytes."""
  uri = data_uri(content, mime)
  return f'<img src="{uri}" alt="{escape(alt)}">'


def paragraph(text: str, style: str = "") -> str:
  """A paragraph of plain text, which is escaped."""
  attribute = f' class="{style}"' if style else ""
  return f"<p{attribute}>{escape(text)}</p>"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
  """A table; numbers stand to the right, cells are escaped unless `Raw`."""
  rows = [list(row) for row in rows]
  right = [
    bool(rows) and all(_numeric(row[k]) for row in rows)
    for k in range(len(head))
  ]

  def line(cells: Sequence[object], tag: str) -> str:
    return "".join(
      f"<{tag}{' class=n' if right[k] else ''}>{_cell(cell)}</{tag}>"
      for k, cell in enumerate(cells)
    )

  body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
  return (
    f'<div class="wide"><table><thead><tr>{line(head, "th")}</tr></thead>'
    f"<tbody>{body}</tbody></table></div>"
  )


class Raw(str):
  """HTML that `table` leaves as it is."""


class Number(str):
  """A number already formatted; stands to the right in a table."""


def number(value: float, digits: int = 2, unit: str = "") -> Number:
  """'24.13 dB', or a dash where there is no number."""
  if value != value:
    return Number("–")
  return Number(f"{value:,.{digits}f}{unit and ' ' + unit}")


def _numeric(cell: object) -> bool:
  return isinstance(cell, (int, float, Number))


def _cell(cell: object) -> str:
  if isinstance(cell, Raw):
    return cell
  return f"{cell:,}" if isinstance(cell, int) else escape(cell)


def page(title: str, header: str, sections: Sequence[Section]) -> str:
  """The whole document.

  Args:
    title: of the window, plain text.
    header: HTML of the head of the page.
    sections: parts in the order in which they stand.
  """
  links = "".join(
    f'<a href="#part{k}">{escape(s.title)}</a>' for k, s in enumerate(sections)
  )
  parts = "".join(
    f'<section id="part{k}"><h2>{escape(s.title)}</h2>{s.body}</section>'
    for k, s in enumerate(sections)
  )
  return (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f"<title>{escape(title)}</title><style>{CSS}</style></head><body>"
    f"<header><div>{header}<nav>{links}</nav></div></header>"
    f"<main>{parts}</main><footer>magvit_jax report; one file, no network"
    "</footer></body></html>\n"
  )
