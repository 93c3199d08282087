"""Write a graph as one self-contained file, checked before it appears: what tasks share."""
import importlib.util
import json
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any, Callable, Iterable

import numpy as np
import torch
from matplotlib.cbook import get_sample_data
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image
from torch import nn

from mmfreq.apis.measure import build_model
from mmfreq.config.pipelines import pipelines, transform_type
from mmfreq.engine.checkpoints import load_checked
from mmfreq.files import atomic_write_bytes
from mmfreq.version import __version__

Arrays = list[np.ndarray]
Case = tuple[torch.Tensor, Arrays]
Differences = dict[str, float]


class Exporter:
    """Build the graph of a config's model, write it, and compare what it computes.

    Subclasses make the graph of a task, ``network``, whose ``outputs`` are the names of its
    outputs, and say what it is compared with.

    Args:
        cfg (Config): Config of the task's host.
        checkpoint (str): Checkpoint file.
        kind (str): ``'image'``: the file takes pixels, uint8 (N, H, W, 3), of any size that the
            test pipeline resizes. ``'channels'``: it takes what the test pipeline gives.
        order (str): Order of the colours in pixels, ``'rgb'`` or ``'bgr'``.
        half (bool): Whether the network computes in float16.

    Raises:
        ValueError: The model or its pipeline cannot be exported; the message says why.
    """
    network: nn.Module

    def __init__(self, cfg: Config, checkpoint: str, kind: str = 'image', order: str = 'rgb',
                 half: bool = False) -> None:
        if not pipelines(cfg, 'test_dataloader'):
            raise ValueError('expected a test_dataloader whose data set has a pipeline')
        init_default_scope(cfg.default_scope)
        self.cfg, self.kind, self.order, self.half = cfg, kind, order, half
        self.model = build_model(cfg).eval().requires_grad_(False)
        loaded = load_checked(self.model, checkpoint, cfg)
        self.classes = class_names(cfg, loaded.get('meta') or {})
        self.pipeline = composed(pipelines(cfg, 'test_dataloader')[0])
        self.images, self.source = check_images(cfg)

    def packed(self, image: np.ndarray) -> dict[str, Any]:
        """Run the test pipeline on RGB pixels, as if they came from a file."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, 'image.png')
            Image.fromarray(image).save(path)
            return self.pipeline(dict(img_path=str(path), img_id=0))

    def pixels(self, image: np.ndarray) -> torch.Tensor:
        """Return RGB pixels (H, W, 3) as the file takes them, (1, H, W, 3)."""
        return torch.tensor(image[None, :, :, ::1 if self.order == 'rgb' else -1].copy())

    def example(self) -> tuple[torch.Tensor, dict]:
        """Return an input, and which of its axes are dynamic."""
        raise NotImplementedError

    def check(self, run: Callable) -> dict[str, Differences]:
        """Return the largest differences of what ``run`` computes, by reference and what differs.

        Raises:
            ValueError: One is too large.
        """
        raise NotImplementedError

    def differences(self, made: Arrays, expected: Arrays) -> Differences:
        """Return how far outputs are from the expected ones, by what differs."""
        raise NotImplementedError

    def compare(self, run: Callable, cases: Iterable[Case], reference: str,
                allowed: Differences) -> Differences:
        """Return the largest differences of ``run`` from the outputs in ``cases``, or refuse them."""
        found = dict.fromkeys(allowed, 0.)
        for inputs, expected in cases:
            for name, value in self.differences(run(inputs), expected).items():
                if not value <= allowed[name]:
                    raise ValueError(f'expected the {name} of {reference} within {allowed[name]}, '
                                     f'the exported file is {value:.1e} off; nothing is written')
                found[name] = max(found[name], value)
        return found

    def metadata(self) -> dict[str, Any]:
        """Return what the file says about itself."""
        example, front = self.example()[0], self.network.front
        return dict(mmfreq=__version__, classes=self.classes, input=self.kind,
                    colors=self.order if self.kind == 'image' else None,
                    dtype=str(example.dtype).removeprefix('torch.'),
                    network_input=list(self.packed(self.images[0])['inputs'].shape),
                    precision='float16' if self.half else 'float32',
                    outputs=list(self.network.outputs), **front.described)

    def program(self) -> torch.export.ExportedProgram:
        """Return the graph; the batch is dynamic, and the size where the network allows."""
        example, axes = self.example()
        try:
            return torch.export.export(self.network, (example, ), dynamic_shapes=(axes, ),
                                       strict=False)
        except Exception as error:  # of any network
            reason = str(error).strip().partition('\n')[0]
            raise ValueError(f'torch.export cannot trace the model: {reason}') from error

    def write(self, out: Path) -> dict[str, Differences]:
        """Write the file once it computes what PyTorch does.

        Args:
            out (Path): ``.onnx``, or ``.pt2`` for torch.export.

        Returns:
            dict[str, dict[str, float]]: What :meth:`check` returns.

        Raises:
            ValueError: A result differs, or the suffix is another; nothing is written.
        """
        writers = {'.onnx': _write_onnx, '.pt2': _write_pt2}
        if out.suffix not in writers:
            raise ValueError(f'expected a file name with {" or ".join(writers)}, got {out}')
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of attributes that the gate sets for its hooks, and of torch's own
            draft = Path(folder, f'draft{out.suffix}')
            run = writers[out.suffix](self.program(), draft, self.metadata(), self.network.outputs)
            differences = self.check(run)
            atomic_write_bytes(out, draft.read_bytes())
        return differences


def composed(pipeline: list[dict]) -> Compose:
    """Return the transforms of a pipeline but for those that load annotations."""
    return Compose([step for step in pipeline if transform_type(step) != 'LoadAnnotations'])


def class_names(cfg: Config, meta: dict[str, Any]) -> Any:
    """Return the classes that a checkpoint's ``meta`` or else the test data set names; or None."""
    trained = meta.get('dataset_meta') or {}
    dataset = cfg.test_dataloader.dataset
    with DATASETS.switch_scope_and_registry(None) as registry:
        known = registry.get(dataset.get('type') or '')
    places = trained, dataset.get('metainfo') or {}, getattr(known, 'METAINFO', {})
    for names in places:
        found = names.get('classes') or names.get('CLASSES')
        if found:
            return list(found)
    return None


def check_images(cfg: Config, count: int = 4) -> tuple[list[np.ndarray], str]:
    """Return RGB images, and what they are: the test data set's first ones, or else one photo and parts of it."""
    try:
        dataset = DATASETS.build(dict(cfg.test_dataloader.dataset, lazy_init=False))
        paths = [dataset.get_data_info(i)['img_path'] for i in range(min(count, len(dataset)))]
        images = [np.array(Image.open(path).convert('RGB')) for path in paths]
        return images, f'the first {len(images)} images of the test data set'
    except Exception as error:  # of any data set that is not there
        with get_sample_data('grace_hopper.jpg') as file:
            photo = np.array(Image.open(file).convert('RGB'))
        why = ' '.join(str(error).split())
        return ([photo, photo[50:350], photo[20:, :317], photo[100:301, 111:400]],
                f'a photo and three parts of it, since the test data set has none ({why})')


def check_packages() -> None:
    """Check that what the export needs is installed."""
    missing = [name for name in ('onnx', 'onnxscript', 'onnxruntime')
               if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f'{", ".join(missing)} not installed: pip install "mmfreq[export]"')


def _write_onnx(program: Any, out: Path, metadata: dict[str, Any],
                outputs: tuple[str, ...]) -> Callable:
    import onnx
    import onnxruntime
    logging.getLogger('onnx_ir').setLevel(logging.ERROR)  # it warns of torch's own graphs
    try:
        torch.onnx.export(program, f=str(out), input_names=['input'], output_names=list(outputs),
                          opset_version=18, dynamo=True, external_data=False, verbose=False)
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().partition('\n')[0]
        raise ValueError(f'the model cannot be converted to ONNX: {reason}') from error
    model = onnx.load(out)
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in metadata.items()})
    onnx.save(model, out)
    session = onnxruntime.InferenceSession(str(out), providers=['CPUExecutionProvider'])
    return lambda inputs: session.run(None, {'input': inputs.numpy()})


def _write_pt2(program: Any, out: Path, metadata: dict[str, Any],
               outputs: tuple[str, ...]) -> Callable:
    torch.export.save(program, out, extra_files={'mmfreq.json': json.dumps(metadata)})
    network = torch.export.load(out).module()

    def run(inputs: torch.Tensor) -> Arrays:
        made = network(inputs)
        return [one.detach().numpy() for one in (made if isinstance(made, tuple) else (made, ))]

    return run
