"""Run the tools on tiny data sets, without a GPU, in processes that do not have to import the hosts first."""
import gc
import json
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Callable, TextIO

import cv2
import numpy as np
import setuptools  # noqa: F401
import torch
from mmengine.utils import ManagerMixin

import mmfreq.apis.runs
import mmfreq.dct.kernel
import mmfreq.models.cls
import mmfreq.models.det  # noqa: F401

import mmdet.utils  # isort: skip
import mmpretrain.utils  # isort: skip

for host in (mmpretrain, mmdet):  # the runs find it imported
    host.utils.register_all_modules(init_default_scope=False)

ROOT = Path(__file__).parents[1]
DEMO24 = 'configs/demo/resnet18-dct24s_demo.py'
ENVIRONMENT = {**os.environ, 'PYTHON': sys.executable}  # of processes that import anew


# Processes


def execute(*command: Any, succeeds: bool = True, **environment: str) -> str:
    """Return what a command prints."""
    result = subprocess.run([str(part) for part in command], cwd=ROOT, env={**ENVIRONMENT, **environment}, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600, check=False)
    assert (result.returncode == 0) == succeeds, result.stdout[-6000:]
    return result.stdout


def tool(name: str, *arguments: Any, succeeds: bool = True) -> str:
    """Return what a tool prints."""
    (code, text), = forked(call_of(f'tools/{name}.py', *arguments))
    assert (code == 0) == succeeds, text[-6000:]
    return text


def call_of(file: Any, *arguments: Any, **environment: Any) -> Callable[[], None]:
    """Return a call that runs a Python file as the main module, for ``forked``."""
    return partial(_run_file, str(file), [str(argument) for argument in arguments], environment)


def forked(*calls: Callable[[], Any], folder: Path = ROOT) -> list[tuple[int, str]]:
    """Run calls at once, each in a copy of this process; return exit codes, and what was printed."""
    with ExitStack() as stack:
        running = []
        for call in calls:
            file = stack.enter_context(tempfile.TemporaryFile('w+'))
            process = multiprocessing.get_context('fork').Process(target=_in_copy, args=(call, file, folder))
            process.start()
            running.append((process, file))
        ended = []
        for process, file in running:
            process.join()
            file.seek(0)
            ended.append((process.exitcode, file.read()))
    return ended


def _in_copy(call: Callable[[], Any], out: TextIO, folder: Path) -> None:
    """Make the copy as a new process would be, but for what is imported, and call."""
    gc.freeze()  # collecting would copy the memory that the processes share
    signal.alarm(300)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    out.reconfigure(line_buffering=True)
    sys.stdout = sys.stderr = out
    for number in (1, 2):
        os.dup2(out.fileno(), number)
    warnings.showwarning = lambda *warning: out.write(warnings.formatwarning(*warning[:4]))  # pytest's own keeps them
    warnings.simplefilter('default')
    warnings.simplefilter('ignore', ResourceWarning)  # as in a new process, of files that earlier tests left open
    _forget(ManagerMixin)
    os.chdir(folder)
    call()


def _forget(kind: type) -> None:
    """Drop mmengine's loggers, visualizers and scopes of earlier tests."""
    kind._instance_dict.clear()
    for child in kind.__subclasses__():
        _forget(child)


def _run_file(file: str, arguments: list[str], environment: dict[str, Any]) -> None:
    os.environ.update({key: str(value) for key, value in environment.items()})
    sys.argv = [file, *arguments]
    runpy.run_path(file, run_name='__main__')


def free_port() -> str:
    with socket.socket() as bound:
        bound.bind(('127.0.0.1', 0))
        return str(bound.getsockname()[1])


def ranks(name: str, *arguments: Any) -> list[tuple[int, str]]:
    """Run a tool in two processes, as torchrun would start them."""
    group = dict(WORLD_SIZE=2, MASTER_ADDR='127.0.0.1', MASTER_PORT=free_port())
    return forked(*(call_of(f'tools/{name}.py', *arguments, '--launcher', 'pytorch', RANK=rank, LOCAL_RANK=rank,
                            **group) for rank in range(2)))


# A tiny data set, and the demo config fitted to it


def picture(label: int, seed: int) -> np.ndarray:
    """64 x 64 BGR: stripes (rows for class 0, columns for class 1), a tint, noise."""
    rng = np.random.default_rng((label, seed))
    stripes = np.sin(np.indices((64, 64))[label] / rng.uniform(1, 3) + rng.uniform(0, 6))
    image = 128 + 60 * stripes[:, :, None] * rng.uniform(0.5, 1, 3) + rng.normal(0, 15, (64, 64, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


def write_data(root: Path) -> Path:
    """Class folders rows and columns: 8 images of each to train on, 4 to evaluate."""
    for split, count in (('train', 8), ('val', 4)):
        for label, name in enumerate(('rows', 'columns')):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                image = picture(label, index + 100 * (split == 'val'))
                cv2.imwrite(str(root / split / name / f'{index}.jpg'), image)
    return root


def data_options(data: Path) -> dict[str, Any]:
    """What a user with own data sets: folders and classes. A narrow network, no workers, 8 x 8 blocks."""
    options = {'model.head.num_classes': 2, 'data_preprocessor.num_classes': 2,
               'model.backbone.base_channels': 8, 'model.head.in_channels': 64}
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        options |= {f'{name}.dataset.data_root': str(data), f'{name}.num_workers': 0, f'{name}.batch_size': 4,
                    f'{name}.persistent_workers': False, f'{name}.dataset.pipeline.1.scale': 64}
    for name in ('val_dataloader', 'test_dataloader'):
        options[f'{name}.dataset.pipeline.2.crop_size'] = 64
    return options


def run_options(data: Path) -> dict[str, Any]:
    """Two epochs of four iterations, nothing random in the pipeline, so that runs can be compared."""
    return data_options(data) | {
        'train_dataloader.dataset.pipeline.1.resize': 'ResizeEdge',
        'train_dataloader.dataset.pipeline.2.prob': 0.0,
        'train_cfg.max_epochs': 2,
        'param_scheduler.total_steps': 2,
        'default_hooks.logger.interval': 1,
    }


def detector_options(data: Path) -> dict[str, Any]:
    """A narrow network on demo data, two iterations of four images, no workers."""
    options = {'model.backbone.base_channels': 8, 'model.neck.in_channels': '[8,16,32,64]',
               'train_dataloader.batch_size': 4, 'default_hooks.logger.interval': 1}
    for name in ('train', 'val', 'test'):
        options |= {f'{name}_dataloader.dataset.data_root': f'{data}/', f'{name}_dataloader.num_workers': 0,
                    f'{name}_dataloader.persistent_workers': False}
    for name in ('val', 'test'):
        options[f'{name}_evaluator.ann_file'] = data / 'annotations/val.json'
    return options


def flags(options: dict[str, Any]) -> list[str]:
    return ['--cfg-options', *(f'{key}={value}' for key, value in options.items())]


# What a run leaves


def scalars(work_dir: Path) -> list[dict[str, Any]]:
    """What the (only) run in a work dir logged, training iterations only."""
    file, = work_dir.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [line for line in lines if 'loss' in line]


def checkpoint(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=False)  # written by these tests


class Reduces:
    """An object whose unpickling calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call
