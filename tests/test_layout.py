"""The house stays in order: imports point one way, and a plain import stays light.

``python tests/test_layout.py | dot -Tpng -o docs/imports.png`` draws the imports, with Graphviz.
"""
import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / 'mmfreq'
MODULES = {}  # dotted name -> file
for file in sorted(PACKAGE.rglob('*.py')):
    if '.mim' not in file.parts:
        name = '.'.join(file.relative_to(PACKAGE.parent).with_suffix('').parts)
        MODULES[name.removesuffix('.__init__')] = file

# The rooms that each room may import, besides itself.
ALLOWED = {
    'errors': set(),
    'version': set(),
    'files': {'errors'},
    'dct': set(),
    'input_spec': {'dct'},
    'transforms': {'dct', 'input_spec'},
    'config': {'dct', 'errors', 'files', 'input_spec'},
    'selection': {'config', 'dct', 'errors', 'files', 'input_spec'},
    'datasets': {'errors'},
    'models': {'config', 'datasets', 'dct', 'errors', 'input_spec', 'selection'},
    'engine': {'config', 'errors', 'input_spec', 'selection'},
    'hosts': {'config', 'errors', 'models'},
    'apis': {'config', 'dct', 'engine', 'errors', 'files', 'hosts', 'input_spec', 'models', 'selection', 'transforms',
             'version'},
    '__main__': {'apis', 'errors', 'version'},
}


def room(module: str) -> str:
    return (module.split('.') + [''])[1]


def imports(module: str) -> set[str]:
    """Modules of mmfreq that a module imports, at its top or inside a function."""
    return imports_of(MODULES[module]) - {module}


def imports_of(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inner = f'{node.module}.{alias.name}'
                found.add(inner if inner in MODULES else node.module)
    return found & set(MODULES)


def graph() -> str:
    """Return the rooms in Graphviz's language; the more imports, the thicker the arrow."""
    arrows = Counter(('tools', room(other)) for file in (PACKAGE.parent / 'tools').glob('*.py')
                     for other in imports_of(file))
    for module in MODULES:
        arrows.update((room(module), room(other)) for other in imports(module))
    lines = ['digraph { dpi=72; nodesep=0.6; node [shape=box, style="rounded,filled", fillcolor="#edf0f6", '
             'color="#2f6db0", fontname="DejaVu Sans"]; edge [color="#5a6374"];']
    for (start, end), count in sorted(arrows.items()):
        if start not in ('', '__main__', end) and end not in ('', 'version'):
            lines.append(f'{start} -> {end} [penwidth={1 + count / 20:.1f}];')
    return '\n'.join([*lines, '}'])


@pytest.mark.parametrize('module', [name for name in MODULES if name != 'mmfreq'])
def test_arrows_point_one_way(module: str) -> None:
    rooms = {room(other) for other in imports(module)} - {room(module)}
    assert rooms <= ALLOWED[room(module)], f'{module} imports {rooms}'


def test_there_is_no_import_circle() -> None:
    graph = {module: imports(module) for module in MODULES}
    while graph:
        leaves = {module for module, others in graph.items() if not others & set(graph)}
        assert leaves, f'a circle among {sorted(graph)}'
        for module in leaves:
            del graph[module]


def test_a_plain_import_is_light() -> None:
    code = ('import sys, mmfreq; print(*sys.modules); '
            'import mmfreq.apis.show_dct, mmfreq.apis.heatmap; print(*sys.modules)')
    command = [sys.executable, '-c', code]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    loaded, with_pictures = (line.split() for line in lines)
    heavy = ('mmpretrain', 'mmdet', 'matplotlib', 'numba', 'mmfreq.apis', 'mmfreq.config.writer')
    for name in heavy:
        assert name not in loaded, f'import mmfreq loads {name}'
    assert 'mmfreq.transforms' in loaded
    for name in ('mmfreq.apis.measure', 'mmfreq.apis.compare', 'mmengine.analysis'):
        assert name not in with_pictures, f'a picture of channels or a gate loads {name}'


if __name__ == '__main__':
    print(graph())
