"""The command ``mmfreq TOOL ...``, also ``python -m mmfreq``: every tool of ``tools/``."""
import ast
import os
import sys
from pathlib import Path
from types import ModuleType

from mmfreq.apis.terminal import run_tool
from mmfreq.version import __version__

TOOLS = Path(__file__).parent / '.mim' / 'tools'
GROUPS = {
    'To look around': ('show_dct', 'list', 'make_demo_data'),
    'A config': ('new', 'freqify', 'browse_dataset', 'dataset_stats'),
    'Training and evaluation': ('train', 'dist_train', 'test', 'dist_test', 'compare'),
    'The trained model': ('predict', 'export'),
    'Which channels': ('gate_heatmap', 'select_channels'),
}  # in the order in which a user meets them; other tools follow

_CLOSING = """CONFIG is a path, a shipped file such as mmfreq::resnet/resnet50-dct24s_8xb32_in1k.py,
mmpretrain::... or mmdet::..., or the name of a config that ships with mmfreq.

Data of your own:
  mmfreq new resnet50-dct24s_8xb32_in1k MY_IMAGES -o my_config.py
  mmfreq train my_config.py
  mmfreq predict my_config.py work_dirs/my_config IMAGES --out predictions"""


def find_tools() -> dict[str, Path]:
    """Return the files of the tools by name; raise ValueError if there are none."""
    tools = {path.stem: path for path in sorted(TOOLS.glob('*.[ps][yh]'))}
    if not tools:
        raise ValueError(f'no tools in {TOOLS}; in a checkout, this is a link, which git makes with '
                         'core.symlinks=true')
    return tools


def summary(tool: Path) -> str:
    """Return the first line of what a tool says about itself."""
    text = tool.read_text(encoding='utf-8')
    if tool.suffix == '.py':
        return (ast.get_docstring(ast.parse(text)) or '').partition('\n')[0]
    return text.split('\n')[1].removeprefix('# ')  # below the line that names the shell


def help_text(tools: dict[str, Path]) -> str:
    """Return what ``mmfreq --help`` prints."""
    lines = ['usage: mmfreq TOOL ...', '',
             'Learning in the frequency domain. "mmfreq TOOL --help" explains a tool.']
    rest = [name for name in tools if not any(name in names for names in GROUPS.values())]
    for title, names in {**GROUPS, 'Other': rest}.items():
        known = [name for name in names if name in tools]
        lines += ['', f'{title}:'] if known else []
        for name in known:
            lines.append(f'  {name:{max(map(len, tools))}}  {summary(tools[name])}')
    return '\n'.join([*lines, '', _CLOSING])


def run(name: str, tool: Path, arguments: list[str]) -> None:
    """Run a tool under the command's name: Python in this process, a shell script instead of it."""
    if tool.suffix == '.sh':
        os.environ.setdefault('PYTHON', sys.executable)
        os.execvp('bash', ['bash', str(tool), *arguments])
    sys.argv = [f'mmfreq {name}', *arguments]
    module = sys.modules['__main__'] = ModuleType('__main__')
    module.__file__ = str(tool)
    exec(compile(tool.read_bytes(), str(tool), 'exec', dont_inherit=True), vars(module))


def find_and_run() -> None:
    """Find the tool and run it."""
    name, *arguments = sys.argv[1:] or ['--help']
    try:
        tools = find_tools()
    except ValueError as error:
        raise SystemExit(str(error)) from error
    if name in ('-h', '--help'):
        print(help_text(tools))
    elif name == '--version':
        print(__version__)
    elif name in tools:
        run(name, tools[name], arguments)
    else:
        raise SystemExit(f'expected a tool, one of {", ".join(tools)}, got {name!r}')


def main() -> None:
    """Run a tool under the command's name."""
    sys.argv[0] = 'mmfreq'
    run_tool(find_and_run)


if __name__ == '__main__':
    main()
