"""The built wheel, unpacked and used away from any checkout; and the command that it installs."""
import configparser
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from test_training import ENVIRONMENT, flags, run_options, scalars, write_data

from mmfreq import __main__ as command
from mmfreq.version import __version__

ROOT = Path(__file__).parents[1]
TOOLS = {path.stem: path for path in (ROOT / 'tools').iterdir() if path.suffix in ('.py', '.sh')}
# In a process of its own: where the package is, and what each shipped config trains.
LOAD_ALL = """
import json, sys
import mmfreq
from mmengine.config import Config
from mmfreq.config.reader import check_channels
from mmfreq.config.paths import config_path
backbones = {}
for name in json.load(sys.stdin):
    cfg = Config.fromfile(str(config_path('mmfreq::' + name)))
    check_channels(cfg)
    backbones[name] = [cfg.filename, cfg.model.backbone.type, cfg.model.backbone.get('in_channels')]
print(json.dumps(backbones))
"""


@pytest.fixture(scope='module')
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the unpacked wheel. Its source had lost the links of a checkout, as in a zip archive."""
    source, built, unpacked = (tmp_path_factory.mktemp(name) for name in ('source', 'built', 'unpacked'))
    for folder in ('mmfreq', 'configs', 'tools'):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns('.mim', '__pycache__'))
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE', 'model-index.yml'):
        shutil.copy(ROOT / name, source)
    code = f'from setuptools.build_meta import build_wheel; build_wheel({str(built)!r})'
    subprocess.run([sys.executable, '-c', code], cwd=source, check=True, stdout=subprocess.DEVNULL)
    file, = built.glob('*.whl')
    assert file.name == f'mmfreq-{__version__}-py3-none-any.whl'
    ZipFile(file).extractall(unpacked)
    return unpacked


@pytest.fixture
def elsewhere(wheel: Path, tmp_path: Path) -> dict[str, Any]:
    """Arguments for a process in an empty folder that finds mmfreq in the unpacked wheel."""
    return dict(cwd=tmp_path, env={**ENVIRONMENT, 'PYTHONPATH': str(wheel)}, text=True, stdout=subprocess.PIPE,
                timeout=600, check=False)


def contents(root: Path, *patterns: str) -> dict[str, bytes]:
    """Files by path below ``root``."""
    paths = (path for pattern in patterns for path in root.glob(pattern) if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


# The wheel


def test_configs_tools_and_metafiles_travel(wheel: Path) -> None:
    expected = contents(ROOT, 'model-index.yml', 'configs/*/*.py', 'configs/*/*.yml', 'configs/*/*.md', 'tools/*.py',
                        'tools/*.sh')
    assert {'model-index.yml', 'configs/resnet/resnet50-dct24s_8xb32_in1k.py', 'configs/resnet/metafile.yml',
            'configs/mobilenet_v2/mobilenet-v2-dct6s_8xb32_in1k.py', 'tools/train.py'} <= set(expected)
    found = wheel / 'mmfreq' / '.mim'
    assert contents(found, '**/*') == expected
    assert contents(wheel / 'mmfreq', 'data/*.json') == contents(ROOT / 'mmfreq', 'data/*.json')


def test_the_wheel_installs_the_command(wheel: Path) -> None:
    entries = configparser.ConfigParser()
    entries.read(wheel / f'mmfreq-{__version__}.dist-info' / 'entry_points.txt')
    assert dict(entries['console_scripts']) == {'mmfreq': f'{command.__name__}:{command.main.__name__}'}


def test_every_config_is_found_and_fits_away_from_a_checkout(wheel: Path, elsewhere: dict[str, Any]) -> None:
    names = [path.relative_to(ROOT / 'configs').as_posix() for path in ROOT.glob('configs/*/*.py')]
    result = subprocess.run([sys.executable, '-c', LOAD_ALL], input=json.dumps(names), **elsewhere)
    assert result.returncode == 0
    backbones = json.loads(result.stdout.splitlines()[-1])
    assert list(backbones) == names
    for name, (file, kind, channels) in backbones.items():
        assert Path(file) == wheel / 'mmfreq/.mim/configs' / name
        assert kind.rpartition('.')[2].startswith('Freq') == ('dct' in name)
        assert channels is None or f'dct{channels}' in name


def test_a_config_that_inherits_a_shipped_one_trains(elsewhere: dict[str, Any]) -> None:
    """Without the scope of a host: the demo's data set and transforms are found as they are beside their config."""
    folder = elsewhere['cwd']
    (folder / 'own.py').write_text("_base_ = 'mmfreq::demo/resnet18-dct24s_demo.py'\n"
                                   'train_pipeline = [*_base_.train_pipeline]\n'
                                   'train_dataloader = dict(dataset=dict(pipeline=train_pipeline))\n')
    options = run_options(write_data(folder / 'data')) | {'train_cfg.max_epochs': 1, 'param_scheduler.total_steps': 1}
    result = subprocess.run([sys.executable, '-m', 'mmfreq', 'train', 'own.py', *flags(options)],
                            stderr=subprocess.STDOUT, **elsewhere)
    assert result.returncode == 0, result.stdout[-6000:]
    assert len(scalars(folder / 'work_dirs' / 'own')) == 4
    assert (folder / 'work_dirs/own/epoch_1.pth').is_file()
    assert 'scope "mmfreq"' not in result.stdout


# The command


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, 'argv', ['mmfreq', *arguments])
    monkeypatch.setitem(sys.modules, '__main__', sys.modules['__main__'])  # put back afterwards
    command.main()


def test_links_of_the_checkout() -> None:
    for name in ('configs', 'tools', 'model-index.yml'):
        assert (ROOT / 'mmfreq/.mim' / name).resolve() == ROOT / name


@pytest.mark.parametrize('arguments', [(), ('-h', ), ('--help', )])
def test_help_lists_every_tool(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch,
                               capsys: pytest.CaptureFixture) -> None:
    call(monkeypatch, *arguments)
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.startswith('  ')]
    assert [name for name, _ in lines] == sorted(TOOLS)
    for name, text in lines:
        assert text[0].isupper(), name
        assert f'"""{text}' in TOOLS[name].read_text() or f'\n# {text}\n' in TOOLS[name].read_text()


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    call(monkeypatch, '--version')
    assert capsys.readouterr().out == f'{__version__}\n'


def test_unknown_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match='mmfreq: expected a tool, one of benchmark, .*, train, got .trian.'):
        call(monkeypatch, 'trian')


def test_no_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command, 'TOOLS', tmp_path)
    with pytest.raises(SystemExit, match=f'mmfreq: no tools in {tmp_path}; .*core.symlinks'):
        call(monkeypatch, 'train')


def test_a_tool_runs_under_the_commands_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, 'test', '--no-such-flag')
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith('usage: mmfreq test ')


def test_a_tool_is_the_main_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                   capsys: pytest.CaptureFixture) -> None:
    """Its classes can be pickled, as its file's can."""
    (tmp_path / 'try.py').write_text('import pickle, sys\nclass A:\n    pass\n'
                                     'print(type(pickle.loads(pickle.dumps(A()))) is A, __name__, __file__, *sys.argv)')
    monkeypatch.setattr(command, 'TOOLS', tmp_path)
    call(monkeypatch, 'try', 'a', '--b')
    assert capsys.readouterr().out == f'True __main__ {tmp_path}/try.py mmfreq try a --b\n'


def test_shell_scripts_use_this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(os, 'execvp', lambda *args: calls.append(args) or sys.exit(0))
    monkeypatch.delenv('PYTHON', raising=False)
    with pytest.raises(SystemExit):
        call(monkeypatch, 'dist_train', 'config.py', '2')
    (file, arguments), = calls
    assert (file, arguments[0], arguments[2:]) == ('bash', 'bash', ['config.py', '2'])
    assert Path(arguments[1]).resolve() == ROOT / 'tools/dist_train.sh'
    assert os.environ['PYTHON'] == sys.executable
