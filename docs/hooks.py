"""Hook of MkDocs that adds the ``--help`` of every tool to the tools page and checks links to files outside docs/."""
import contextlib
import io
import os
import re
import runpy
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from markdown.extensions.toc import slugify

ROOT = Path(__file__).parents[1]


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Replace links to files outside docs/ by their names; add a section for each tool to tools.md."""
    link = r'\[([^\]]+)\]\(\.\./([^)#]+)(#[^)]*)?\)'
    markdown = re.sub(link, lambda match: named(*match.groups(), page), markdown)
    if page.file.src_uri != 'tools.md':
        return markdown
    sections = [markdown]
    for tool in sorted((ROOT / 'tools').glob('*.py')):
        sections.append(f'## {tool.name}\n\n```text\n{help_text(tool)}\n```')
    return '\n\n'.join(sections)


def help_text(tool: Path) -> str:
    """Return the output of a tool's ``--help``."""
    printed = io.StringIO()
    with mock.patch.object(sys, 'argv', [tool.name, '--help']), mock.patch.dict(os.environ, COLUMNS='100'), \
            contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        runpy.run_path(str(tool), run_name='__main__')
    return printed.getvalue().strip()


def named(text: str, path: str, anchor: str | None, page: Any) -> str:
    """Return the text of a link to a file that is not part of the site, with the path of the file.

    Raises:
        ValueError: The file does not exist, or none of its headings has the anchor.
    """
    file = ROOT / path
    if not file.exists():
        raise ValueError(f'{page.file.src_uri}: no such file: ../{path}')
    if anchor and anchor[1:] not in anchors(file):
        raise ValueError(f'{page.file.src_uri}: no such heading: ../{path}{anchor}')
    return f'{text} (`{path}`)'


def anchors(file: Path) -> list[str]:
    """Return the anchors of a Markdown file's headings."""
    headings = re.findall(r'^#+ (.+)$', file.read_text(encoding='utf-8'), re.MULTILINE)
    return [slugify(heading, '-') for heading in headings]
