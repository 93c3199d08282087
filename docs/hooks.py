"""Hook of MkDocs: the ``--help`` of every tool on the tools page, and links to files outside docs/ checked.

The tools page cannot fall behind, and a link to a file of the repository that is not there stops the build.
"""
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
    """Names files of the repository instead of linking to them; adds one section for each tool to tools.md."""
    link = r'\[([^\]]+)\]\(\.\./([^)#]+)(#[^)]*)?\)'
    markdown = re.sub(link, lambda found: named(*found.groups(), page), markdown)
    if page.file.src_uri != 'tools.md':
        return markdown
    sections = [markdown]
    for tool in sorted((ROOT / 'tools').glob('*.py')):
        sections.append(f'## {tool.name}\n\n```text\n{help_text(tool)}\n```')
    return '\n\n'.join(sections)


def help_text(tool: Path) -> str:
    """What a tool prints for ``--help``."""
    printed = io.StringIO()
    with mock.patch.object(sys, 'argv', [tool.name, '--help']), mock.patch.dict(os.environ, COLUMNS='100'), \
            contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        runpy.run_path(str(tool), run_name='__main__')
    return printed.getvalue().strip()


def named(text: str, path: str, anchor: str | None, page: Any) -> str:
    """Return a link to a file of the repository, which the site does not have, as text.

    Raises:
        ValueError: The file is not there, or has no heading of the link's anchor.
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
