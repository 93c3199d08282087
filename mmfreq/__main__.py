"""The command ``mmfreq TOOL ...``, also ``python -m mmfreq``: every tool of ``tools/``."""
import os
import sys
from pathlib import Path
from types import ModuleType

from mmfreq.apis.terminal import run_tool
from mmfreq.errors import RefusedError
from mmfreq.version import __version__

TOOLS = Path(__file__).parent / '.mim' / 'tools'
_GROUPS = {
    'To look around': ('show_dct', 'list'),
    'A config': ('new', 'freqify', 'browse_dataset', 'dataset_stats'),
    'Training and evaluation': ('train', 'dist_train', 'test', 'dist_test', 'compare'),
    'The trained model': ('predict', 'gate', 'export'),
    'Other': ('gate_heatmap', 'select_channels', 'convert_checkpoint'),
}
_TAIL = """CONFIG is a path, a shipped file such as mmfreq::resnet/resnet50-dct24s_8xb32_in1k.py,
mmpretrain::... or mmdet::..., or the name of a config that ships with mmfreq.

Data of your own:
  mmfreq new resnet50-dct24s_8xb32_in1k MY_IMAGES -o my_config.py
  mmfreq train my_config.py
  mmfreq predict my_config.py work_dirs/my_config IMAGES --out predictions"""


def help_text(tools: dict[str, Path]) -> str:
    """Return the text of ``mmfreq --help``, with the first line that each tool has of itself."""
    lines = ['usage: mmfreq TOOL ...', '', '"mmfreq TOOL --help" explains a tool.', '']
    for title, names in _GROUPS.items():
        summaries = [tools[name].read_text('utf-8').splitlines()[1].strip('"# ') for name in names]
        lines += [f'{title}:', *map('  {:18}  {}'.format, names, summaries), '']
    return '\n'.join([*lines, _TAIL])


def run() -> None:
    """Run a tool: Python in this process as its main module, a shell script instead of it."""
    name, *arguments = sys.argv[1:] or ['--help']
    tools = {path.stem: path for path in sorted(TOOLS.glob('*.[ps][yh]'))}
    if name in ('-h', '--help', '--version'):
        print(__version__ if name == '--version' else help_text(tools))
    elif name not in tools:
        raise RefusedError(f'expected a tool, one of {", ".join(tools)}, got {name!r}')
    elif tools[name].suffix == '.sh':
        os.environ.setdefault('PYTHON', sys.executable)
        os.execvp('bash', ['bash', str(tools[name]), *arguments])
    else:
        sys.argv = [f'mmfreq {name}', *arguments]
        module = sys.modules['__main__'] = ModuleType('__main__')
        module.__file__ = str(tools[name])
        code = compile(tools[name].read_bytes(), module.__file__, 'exec', dont_inherit=True)
        exec(code, vars(module))


def main() -> None:
    """Run a tool under the command's name."""
    sys.argv[0] = 'mmfreq'
    run_tool(run)


if __name__ == '__main__':
    main()
