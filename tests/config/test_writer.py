"""Configs that are written: what they say, and that they amount to what they should."""
from pathlib import Path
from typing import Any

import pytest

from mmfreq.config.writer import child_text, difference, plain_config, render, stock_base

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path.relative_to(ROOT) for path in (ROOT / 'configs').rglob('*.py'))


@pytest.mark.parametrize('path', CONFIGS, ids=str)
def test_a_written_child_of_the_stock_config_amounts_to_the_config(path: Path, tmp_path: Path) -> None:
    base = stock_base(ROOT / path)
    assert base.startswith(('mmpretrain::', 'mmdet::'))
    expected = plain_config(ROOT / path)
    text = child_text(base, expected, 'a comment', tmp_path)
    assert max(map(len, text.splitlines())) <= 120
    (tmp_path / 'child.py').write_text(text)
    assert plain_config(tmp_path / 'child.py') == expected


def test_difference_by_hand() -> None:
    base = dict(a=1, b=dict(c=1, d=[1, 2], e=dict(f=1)), g=None, h=1)
    target = dict(a=1, b=dict(c=2, d=[1, 2], e=dict(f=1, i=2)), g=dict(j=1), h=1.0, k=dict(c=1))
    assert difference(base, target) == dict(b=dict(c=2, e=dict(i=2)), g=dict(_delete_=True, j=1), h=1.0, k=dict(c=1))
    assert difference(base, dict(base, b=dict(c=1))) == dict(b=dict(_delete_=True, c=1))


@pytest.mark.parametrize('value', [
    dict(), [], (), (1, ), None, 'text', dict(a=[dict(b=(1, 2))], c={'x.y': 1, '2': 2}),
    [dict(type='A' * 60, b='B' * 60), 'c' * 200], tuple(range(100)), dict(a=dict(b=dict(c=['d' * 50] * 3))),
])
def test_rendered_values_are_python(value: Any) -> None:
    assert eval(render(value), {'dict': dict}) == value  # noqa: S307  # text of our own making
