"""The built wheel, used away from any checkout; the editable one; and the command it installs."""
import configparser
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from email import message_from_bytes
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from tool_runs import ENVIRONMENT, flags, run_options, scalars, write_data

from mmfreq import __main__ as command
from mmfreq.version import __version__

ROOT = Path(__file__).parents[1]
TOOLS = {path.stem: path for path in (ROOT / 'tools').iterdir() if path.suffix in ('.py', '.sh')}
# In a process of its own: call tools; where the package is, and what each shipped config trains.
CALL_AND_LOAD = """
import functools, json, sys, time
import mmengine.config.utils
mmengine.config.utils.load = functools.cache(mmengine.config.utils.load)
from mmfreq.__main__ import main
for line in open('calls.txt'):
    sys.argv = ['mmfreq', *line.split()]
    second = int(time.time())
    main()
    while int(time.time()) == second:  # mmengine names a run by the second, and its writers are the process's by name
        time.sleep(0.05)
from mmengine.config import Config
from mmfreq.config.checks import check_channels
from mmfreq.config.paths import config_path
backbones = {}
for name in json.load(open('names.json')):
    cfg = Config.fromfile(str(config_path('mmfreq::' + name)))
    check_channels(cfg)
    backbones[name] = [cfg.filename, cfg.model.backbone.type, cfg.model.backbone.get('in_channels')]
json.dump(backbones, open('backbones.json', 'w'))
"""
# A narrow RGB network of the demo, and what a new user does with it, with class folders in data/train and data/val.
NARROW = """_base_ = 'mmfreq::demo/resnet18_demo.py'
model = dict(backbone=dict(base_channels=8), head=dict(in_channels=64))
train_pipeline = [_base_.train_pipeline[0], dict(type='RandomResizedCrop', scale=32), *_base_.train_pipeline[2:]]
test_pipeline = [_base_.test_pipeline[0], dict(type='Resize', scale=(32, 32)), _base_.test_pipeline[-1]]
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
"""
CALLS = """new narrow.py data -o mine.py --epochs 1 --batch-size 4
train mine.py
test mine.py work_dirs/mine
predict mine.py work_dirs/mine data/val/rows --out predictions
freqify mine.py --channels 24N --weights work_dirs/mine
gate mine.py work_dirs/mine data/train --target 12 --steps 2
compare work_dirs/mine gate --no-timing
show_dct data/val/rows/0.jpg
list demo
export gate/mine-dct12-learned.py gate/mine-dct12-learned.pth mine.onnx
"""
# The packages are there, but no .pth file is read but those of the argument.
FIND = """
import importlib.util, site, sys
sys.path.append(sys.argv[1])
site.addsitedir(sys.argv[2])
print(importlib.util.find_spec('mmfreq').origin)
"""


def build(kind: str, folder: Path) -> tuple[Path, Path]:
    """Build a wheel of a copy without links, as in a zip archive; return clone and wheel."""
    clone, built, unpacked = folder / 'mmfreq', folder / 'built', folder / 'unpacked'
    for name in ('mmfreq', 'configs', 'tools'):
        shutil.copytree(ROOT / name, clone / name,
                        ignore=shutil.ignore_patterns('.mim', '__pycache__'))
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE', 'model-index.yml'):
        shutil.copy(ROOT / name, clone)
    built.mkdir()
    code = f'from setuptools import build_meta; build_meta.build_{kind}({str(built)!r})'
    subprocess.run([sys.executable, '-c', code], cwd=clone, check=True, stdout=subprocess.DEVNULL)
    file, = built.glob('*.whl')
    assert file.name.startswith(f'mmfreq-{__version__}-')
    ZipFile(file).extractall(unpacked)
    return clone, unpacked


@pytest.fixture(scope='module')
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build('wheel', tmp_path_factory.mktemp('wheel'))[1]


def contents(root: Path, *patterns: str) -> dict[str, bytes]:
    """Files by path below ``root``."""
    paths = (path for pattern in patterns for path in root.glob(pattern) if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


# The wheels


def test_configs_tools_and_metafiles_travel(wheel: Path) -> None:
    expected = contents(ROOT, 'model-index.yml', 'configs/*/*.py', 'configs/*/*.yml',
                        'configs/*/*.md', 'tools/*.py', 'tools/*.sh')
    assert {'model-index.yml', 'configs/resnet/resnet50-dct24s_8xb32_in1k.py',
            'configs/resnet/metafile.yml', 'tools/train.py'} <= set(expected)
    assert contents(wheel / 'mmfreq/.mim', '**/*') == expected
    stats = contents(ROOT / 'mmfreq', 'dct/data/*.json')
    assert stats
    assert contents(wheel / 'mmfreq', 'dct/data/*.json') == stats
    entries = configparser.ConfigParser()
    entries.read(wheel / f'mmfreq-{__version__}.dist-info' / 'entry_points.txt')
    main = f'{command.__name__}:{command.main.__name__}'
    assert dict(entries['console_scripts']) == {'mmfreq': main}
    assert {path.name for path in wheel.iterdir()} == {'mmfreq', f'mmfreq-{__version__}.dist-info'}
    extras = re.search(r'mmfreq\[(.*?)\]', (ROOT / 'docs/tutorial.ipynb').read_text())[1].split(',')
    metadata = message_from_bytes((wheel / f'mmfreq-{__version__}.dist-info/METADATA').read_bytes())
    assert {'hosts', 'demo', 'export'} == {*extras} <= {*metadata.get_all('Provides-Extra')}
    builds = {requirement.split('"')[1] for requirement in metadata.get_all('Requires-Dist')
              if requirement.startswith('onedl-') and 'extra ==' in requirement}
    assert builds == {'hosts', 'segmentation'}  # no other extra brings a host beside the user's own
    assert metadata.get_payload(decode=True).strip() == (ROOT / 'README.md').read_bytes().strip()


def test_an_editable_install_is_found_from_the_folder_that_holds_the_clone(tmp_path: Path) -> None:
    """There the clone, named as the package, is an empty namespace package in the first place."""
    clone, unpacked = build('editable', tmp_path)
    environment = {key: value for key, value in ENVIRONMENT.items() if key != 'PYTHONPATH'}
    arguments = ['-S', '-c', FIND, sysconfig.get_path('purelib'), str(unpacked)]
    found = subprocess.run([sys.executable, *arguments], cwd=tmp_path, env=environment, check=True,
                           text=True, stdout=subprocess.PIPE)
    assert found.stdout.strip() == str(clone / 'mmfreq/__init__.py')


def test_tools_run_away_from_a_checkout(wheel: Path, tmp_path: Path) -> None:
    """A config inherits a shipped one; without a host's scope, its transforms are found. All shipped configs load."""
    (tmp_path / 'own.py').write_text(
        "_base_ = 'mmfreq::demo/resnet18-dct24s_demo.py'\n"
        'train_pipeline = [*_base_.train_pipeline]\n'
        'train_dataloader = dict(dataset=dict(pipeline=train_pipeline))\n')
    names = [path.relative_to(ROOT / 'configs').as_posix() for path in ROOT.glob('configs/*/*.py')]
    (tmp_path / 'names.json').write_text(json.dumps(names))
    options = run_options(write_data(tmp_path / 'data'))
    options |= {'train_cfg.max_epochs': 1, 'param_scheduler.total_steps': 1, 'train_dataloader.dataset.indices': 4,
                'val_dataloader.dataset.indices': 4}
    (tmp_path / 'narrow.py').write_text(NARROW)
    calls = CALLS if importlib.util.find_spec('onnxscript') else CALLS.partition('export')[0]
    (tmp_path / 'calls.txt').write_text(f'train own.py {" ".join(flags(options))}\n{calls}')
    result = subprocess.run(
        [sys.executable, '-c', CALL_AND_LOAD], cwd=tmp_path, timeout=600,
        env={**ENVIRONMENT, 'PYTHONPATH': str(wheel)}, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT)
    assert result.returncode == 0, result.stdout[-6000:]
    assert len(scalars(tmp_path / 'work_dirs' / 'own')) == 1
    assert (tmp_path / 'work_dirs/own/epoch_1.pth').is_file()
    assert 'scope "mmfreq"' not in result.stdout
    assert 'result: accuracy/top1' in result.stdout
    assert re.search(r'mine-dct12-learned +\|.* 0.25 \|', result.stdout)
    assert json.loads((tmp_path / 'predictions/predictions.json').read_text())
    assert 'export' not in calls or (tmp_path / 'mine.onnx').is_file()
    backbones = json.loads((tmp_path / 'backbones.json').read_text())
    assert list(backbones) == names
    for name, (file, kind, channels) in backbones.items():
        assert Path(file) == wheel / 'mmfreq/.mim/configs' / name
        assert kind.rpartition('.')[2].startswith(('Freq', 'Unpacked')) == ('dct' in name)
        assert channels is None or f'dct{channels}' in name


# The command


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Any:
    def call_with(*arguments: str) -> None:
        monkeypatch.setattr(sys, 'argv', ['mmfreq', *arguments])
        monkeypatch.setitem(sys.modules, '__main__', sys.modules['__main__'])  # put back afterwards
        command.main()

    return call_with


def test_links_of_the_checkout() -> None:
    for name in ('configs', 'tools', 'model-index.yml'):
        assert (ROOT / 'mmfreq/.mim' / name).resolve() == ROOT / name


@pytest.mark.parametrize('arguments', [(), ('-h', ), ('--help', )])
def test_help_lists_every_tool(arguments: tuple[str, ...], call: Any,
                               capsys: pytest.CaptureFixture) -> None:
    call(*arguments)
    output = capsys.readouterr().out.splitlines()
    lines = [line.split(maxsplit=1) for line in output if line.startswith('  ') and 'mmfreq' not in line.split()]
    assert sorted(name for name, _ in lines) == sorted(TOOLS)
    for name, text in lines:
        assert text[0].isupper(), name
        source = TOOLS[name].read_text()
        assert f'"""{text}' in source or f'\n# {text}\n' in source


def test_version(call: Any, capsys: pytest.CaptureFixture) -> None:
    call('--version')
    assert capsys.readouterr().out == f'{__version__}\n'


def test_unknown_tools(call: Any, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match='2'):
        call('trian')
    assert re.search("expected a tool, .* train, got 'trian'", capsys.readouterr().err)


def test_a_tool_runs_under_the_commands_name(call: Any, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        call('test', '--no-such-flag')
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith('usage: mmfreq test ')


def test_a_tool_is_the_main_module(call: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                   capsys: pytest.CaptureFixture) -> None:
    """Its classes can be pickled, as its file's can."""
    (tmp_path / 'try.py').write_text(
        'import pickle, sys\nclass A:\n    pass\n'
        'print(type(pickle.loads(pickle.dumps(A()))) is A, __name__, __file__, *sys.argv)')
    monkeypatch.setattr(command, 'TOOLS', tmp_path)
    call('try', 'a', '--b')
    assert capsys.readouterr().out == f'True __main__ {tmp_path}/try.py mmfreq try a --b\n'


def test_an_interruption_is_one_line(call: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                     capsys: pytest.CaptureFixture) -> None:
    (tmp_path / 'try.py').write_text('raise KeyboardInterrupt')
    monkeypatch.setattr(command, 'TOOLS', tmp_path)
    with pytest.raises(SystemExit) as stopped:
        call('try')
    assert (stopped.value.code, capsys.readouterr().err) == (130, 'mmfreq try: interrupted\n')


def test_shell_scripts_use_this_python(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(os, 'execvp', lambda *args: calls.append(args) or sys.exit(0))
    monkeypatch.delenv('PYTHON', raising=False)
    with pytest.raises(SystemExit):
        call('dist_train', 'config.py', '2')
    (file, arguments), = calls
    assert (file, arguments[0], arguments[2:]) == ('bash', 'bash', ['config.py', '2'])
    assert Path(arguments[1]).resolve() == ROOT / 'tools/dist_train.sh'
    assert os.environ['PYTHON'] == sys.executable
