"""One HTML file with everything inside it: no script, no server, nothing fetched."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from string import Template


@dataclass(frozen=True)
class Part:
    """A section of the page."""

    anchor: str
    title: str
    body: str
    """HTML."""


def render(title: str, lead: str, parts: Sequence[Part]) -> str:
    """The page; `lead` is a paragraph of HTML under its title."""
    links = "".join(f'<a href="#{p.anchor}">{html.escape(p.title)}</a>' for p in parts)
    sections = "".join(
        f'<section id="{p.anchor}"><h2>{html.escape(p.title)}</h2>{p.body}</section>' for p in parts
    )
    return _PAGE.substitute(title=html.escape(title), lead=lead, links=links, sections=sections, style=_STYLE)


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Names and values side by side."""
    rows = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in pairs)
    return f'<dl class="facts">{rows}</dl>'


_STYLE = """
:root { --ink: #1c2430; --soft: #5d6876; --line: #d9dee5; --paper: #ffffff; --shade: #f4f6f9;
        --accent: #1f5fa8; }
* { box-sizing: border-box; }
body { margin: 0; font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: var(--ink);
       background: var(--paper); }
header, section, nav { max-width: 1180px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 36px; }
h1 { font-size: 27px; margin: 0 0 6px; letter-spacing: -.01em; }
h2 { font-size: 20px; margin: 44px 0 12px; padding-top: 10px; border-top: 2px solid var(--ink); }
h3 { font-size: 15px; margin: 26px 0 8px; }
p { max-width: 78ch; }
nav { position: sticky; top: 0; background: var(--paper); border-bottom: 1px solid var(--line);
      padding-top: 10px; padding-bottom: 10px; display: flex; flex-wrap: wrap; gap: 4px 20px; z-index: 1; }
nav a { color: var(--accent); text-decoration: none; }
nav a:hover { text-decoration: underline; }
.soft, figcaption, caption { color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums;
        margin: 8px 0 20px; }
caption { text-align: left; padding-bottom: 8px; max-width: 92ch; }
th { text-align: left; border-bottom: 1.5px solid var(--ink); padding: 5px 12px 5px 0; white-space: nowrap; }
td { border-bottom: 1px solid var(--line); padding: 4px 12px 4px 0; white-space: nowrap; }
th.number, td.number { text-align: right; }
tr.ours td { background: #eaf2fb; font-weight: 600; }
tr.paper td { color: var(--soft); font-style: italic; }
figure { margin: 0; }
figure.drawn { margin: 8px 0 22px; overflow-x: auto; }
figure.drawn svg { display: block; }
figcaption { font-size: 13px; padding-top: 6px; max-width: 92ch; }
.note ul { margin: 4px 0 0; padding-left: 20px; }
dl.facts { display: grid; grid-template-columns: max-content 1fr; gap: 3px 18px; font-size: 13.5px; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
pre { background: var(--shade); padding: 14px; overflow-x: auto; font-size: 12.5px; line-height: 1.45; }
.note { border-left: 3px solid var(--accent); background: var(--shade); padding: 8px 14px; max-width: 92ch; }
footer { max-width: 1180px; margin: 48px auto 32px; padding: 0 24px; color: var(--soft); font-size: 12.5px; }
@media print { nav { display: none; } section { break-inside: avoid; } }
"""

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<header><h1>$title</h1>$lead</header>
<nav>$links</nav>
$sections
<footer>Made by xr2ct. For research; not a medical device.</footer>
</body>
</html>
""")
