# SPDX-License-Identifier: Apache-2.0
"""Makes the texts and the API reference as web pages: python docs/build.py FOLDER."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it.token import Token

ROOT = Path(__file__).parent.parent
PACKAGES = ("npusim", "spaces", "searchers")
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{css}
pre {{ overflow: auto; background: var(--card); border: 1px solid var(--line); padding: 10px 14px;
  border-radius: 8px; font-size: .84rem; }}
img {{ max-width: 100%; background: #fff; border-radius: 8px; }} main {{ max-width: 860px; }}
main > table {{ display: block; overflow: auto; }}</style></head>
<body><header><nav aria-label="pages"><a href="index.html">documentation</a>
<a href="tour.html">tour</a> <a href="api/index.html">API reference</a></nav></header>
<main>{body}</main></body></html>
"""


def anchor(title: str) -> str:
    """The name of a heading in links, as GitHub makes it.

    >>> anchor("Add an NPU"), anchor("`npusim`: what, why?")
    ('add-an-npu', 'npusim-what-why')
    """
    kept = re.sub(r"[^\w\- ]", "", title.lower())
    return kept.strip().replace(" ", "-")


def page_name(link: str) -> str:
    """Where a link of a text leads among the pages.

    >>> page_name("how_to.md#add-an-npu"), page_name("../README.md"), page_name("README.md")
    ('how_to.html#add-an-npu', 'tour.html', 'index.html')
    >>> page_name("https://example.org/a.md")
    'https://example.org/a.md'
    """
    path, hash_, name = link.partition("#")
    if "://" in path or not path.endswith(".md"):
        return link
    special = {"../README.md": "tour.html", "README.md": "index.html"}
    return special.get(path, Path(path).with_suffix(".html").name) + hash_ + name


def page(text: str) -> str:
    """A text of Markdown as a web page."""
    from markdown_it import MarkdownIt

    markdown = MarkdownIt("commonmark").enable("table")
    tokens = markdown.parse(text)
    title = "npusim"
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            heading = tokens[place + 1].content
            token.attrSet("id", anchor(heading))
            title = heading if token.tag == "h1" else title
        for child in token.children or ():
            _relink(child)
    css = (ROOT / "npusim" / "report" / "page_template" / "page.css").read_text("utf-8")
    body = markdown.renderer.render(tokens, markdown.options, {})
    return _PAGE.format(title=title, css=css, body=body)


def _relink(token: Token) -> None:
    if token.type == "link_open":
        token.attrSet("href", page_name(str(token.attrs["href"])))


def build(folder: Path) -> list[Path]:
    """Write the texts and their pictures; returns the pages."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {path.stem: path for path in sorted((ROOT / "docs").glob("*.md"))}
    texts = {"index": names.pop("README"), "tour": ROOT / "README.md", **names}
    found = []
    for name, path in texts.items():
        text = path.read_text("utf-8").replace("(docs/", "(") if name == "tour" else None
        found.append(folder / f"{name}.html")
        found[-1].write_text(page(text or path.read_text("utf-8")), encoding="utf-8")
    shutil.copytree(ROOT / "docs" / "pictures", folder / "pictures", dirs_exist_ok=True)
    return found


def main(folder: Path) -> None:
    """Write everything, the API reference below ``api``."""
    import pdoc
    import pdoc.render

    pages = build(folder)
    pdoc.render.configure(docformat="google", footer_text="npusim", search=True)
    pdoc.pdoc(*PACKAGES, output_directory=folder / "api")
    print(f"{len(pages)} pages and the API reference in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "docs"))
