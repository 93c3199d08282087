"""Write a trained classifier as one self-contained file, checked before it appears."""
import importlib.util
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any, Callable
from unittest import mock

import numpy as np
import torch
from matplotlib.cbook import get_sample_data
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import load_checkpoint
from PIL import Image
from torch import nn

from mmfreq.apis.checks import check_checkpoint
from mmfreq.apis.export_graph import Classifier, Coefficients, PixelSteps, window_reverse
from mmfreq.apis.measure import build_model
from mmfreq.config.inspect import pipelines
from mmfreq.files import atomic_write_bytes
from mmfreq.version import __version__

INPUTS = 'image', 'channels'
TOLERANCE = {False: 1e-4, True: 2e-2}  # of scores, by whether they are computed in float16
PIPELINE_TOLERANCE = 0.05  # resizing differs by one level in some pixels from OpenCV and Pillow


class Exporter:
    """Build the graph of a config's model, write it, and compare what it computes.

    Args:
        cfg (Config): Config of mmpretrain.
        checkpoint (str): Checkpoint file.
        kind (str): ``'image'``: the file takes pixels, uint8 (N, H, W, 3), of any size that the
            test pipeline resizes. ``'channels'``: it takes what the test pipeline gives.
        order (str): Order of the colours in pixels, ``'rgb'`` or ``'bgr'``.
        half (bool): Whether the network computes in float16.

    Raises:
        ValueError: The model or its pipeline cannot be exported; the message says why.
    """

    def __init__(self, cfg: Config, checkpoint: str, kind: str = 'image', order: str = 'rgb',
                 half: bool = False) -> None:
        if cfg.get('default_scope') != 'mmpretrain':
            raise ValueError('expected a classifier of mmpretrain; detectors cannot be exported yet, '
                             f'got default_scope={cfg.get("default_scope")!r}')
        if not pipelines(cfg, 'test_dataloader'):
            raise ValueError('expected a test_dataloader whose data set has a pipeline')
        init_default_scope(cfg.default_scope)
        self.cfg, self.kind, self.order, self.half = cfg, kind, order, half
        model = build_model(cfg).eval()
        loaded = load_checkpoint(model, checkpoint, map_location='cpu')
        check_checkpoint(checkpoint, cfg, model)
        self.classes = ((loaded.get('meta') or {}).get('dataset_meta') or {}).get('classes')
        if kind == 'channels' and getattr(model.data_preprocessor, 'to_channels', None) is not None:
            raise ValueError("--input channels: the config's preprocessor computes the channels; "
                             'export it with --input image')
        self.pipeline = Compose(pipelines(cfg, 'test_dataloader')[0])
        self.images, self.source = check_images(cfg)
        self.packed = [self._packed(image) for image in self.images]
        self.expected = self._reference(model)
        front = (PixelSteps(cfg, model.data_preprocessor, order) if kind == 'image'
                 else Coefficients(model.data_preprocessor))
        self.network = Classifier(front, model, half).eval().requires_grad_(False)

    def _packed(self, image: np.ndarray) -> dict[str, Any]:
        """Run the test pipeline on RGB pixels, as if they came from a file."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, 'image.png')
            Image.fromarray(image).save(path)
            return self.pipeline(dict(img_path=str(path)))

    def _reference(self, model: nn.Module) -> np.ndarray:
        scores = []
        for packed in self.packed:
            batch = dict(inputs=packed['inputs'][None], data_samples=[packed['data_samples']])
            with torch.no_grad():
                scores.append(model.test_step(batch)[0].pred_score.numpy())
        return np.stack(scores)

    def inputs(self) -> list[torch.Tensor]:
        """Return the check images as inputs of the file, (1, ...)."""
        if self.kind == 'channels':
            return [packed['inputs'][None] for packed in self.packed]
        flip = 1 if self.order == 'rgb' else -1
        return [torch.tensor(image[None, :, :, ::flip].copy()) for image in self.images]

    def batches(self) -> list[torch.Tensor]:
        """Return inputs of one and of two images, resized before where the file resizes.

        Runtimes resize with other roundings, so that a pixel here and there is one level off.
        """
        inputs = self.inputs()
        if self.kind == 'image':
            inputs = list(map(self.network.front.resized, inputs))
        return [inputs[0]] + [torch.cat((one, one.flip(1))) for one in inputs]

    def metadata(self) -> dict[str, Any]:
        """Return what the file says about itself."""
        example = self.inputs()[0]
        return dict(mmfreq=__version__, classes=self.classes, input=self.kind,
                    colors=self.order if self.kind == 'image' else None,
                    dtype=str(example.dtype).removeprefix('torch.'),
                    network_input=list(self.packed[0]['inputs'].shape),
                    precision='float16' if self.half else 'float32', **self.network.front.described)

    def program(self) -> torch.export.ExportedProgram:
        """Return the graph; the batch is dynamic, and the size where the network allows."""
        example, auto = self.batches()[-1], torch.export.Dim.DYNAMIC
        sizes = {0: auto}
        if self.kind == 'image' and self.network.front.steps:
            sizes.update({1: auto, 2: auto})
        from mmpretrain.models.utils import ShiftWindowMSA
        with mock.patch.object(ShiftWindowMSA, 'window_reverse', staticmethod(window_reverse)), \
                warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of attributes that the gate sets for its hooks
            try:
                return torch.export.export(self.network, (example, ), dynamic_shapes=(sizes, ),
                                           strict=False)
            except Exception as error:  # of any network
                reason = str(error).strip().partition('\n')[0]
                raise ValueError(f'torch.export cannot trace the model: {reason}') from error

    def write(self, out: Path) -> tuple[float, float]:
        """Write the file once it computes what PyTorch does.

        Args:
            out (Path): ``.onnx``, or ``.pt2`` for torch.export.

        Returns:
            tuple[float, float]: Largest difference of scores from the same graph in PyTorch, and
            from test pipeline and model, both relative to the largest score.

        Raises:
            ValueError: The scores differ, or the suffix is another; nothing is written.
        """
        writers = {'.onnx': _write_onnx, '.pt2': _write_pt2}
        if out.suffix not in writers:
            raise ValueError(f'expected a file name with {" or ".join(writers)}, got {out}')
        with tempfile.TemporaryDirectory() as folder:
            draft = Path(folder, f'draft{out.suffix}')
            run = writers[out.suffix](self.program(), draft, self.metadata())
            differences = self._compare(run)
            atomic_write_bytes(out, draft.read_bytes())
        return differences

    def _compare(self, run: Callable) -> tuple[float, float]:
        exact, whole = 0., 0.
        for inputs in self.batches():
            expected = self.network(inputs).numpy()
            exact = max(exact, float(np.abs(run(inputs) - expected).max() / expected.max()))
        for inputs, expected in zip(self.inputs(), self.expected):
            whole = max(whole, float(np.abs(run(inputs)[0] - expected).max() / expected.max()))
        if not exact <= TOLERANCE[self.half]:
            raise ValueError(f'expected the scores of PyTorch within {TOLERANCE[self.half]}, the '
                             f'exported file is {exact:.1e} off; nothing is written')
        if not whole <= PIPELINE_TOLERANCE:
            raise ValueError(f'expected the scores of the test pipeline within {PIPELINE_TOLERANCE},'
                             f' the exported file is {whole:.1e} off; nothing is written')
        return exact, whole


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


def _write_onnx(program: Any, out: Path, metadata: dict[str, Any]) -> Callable:
    import onnx
    import onnxruntime
    torch.onnx.export(program, f=str(out), input_names=['input'], output_names=['scores'],
                      opset_version=18, dynamo=True, external_data=False, verbose=False)
    model = onnx.load(out)
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in metadata.items()})
    onnx.save(model, out)
    session = onnxruntime.InferenceSession(str(out), providers=['CPUExecutionProvider'])
    return lambda inputs: session.run(None, {'input': inputs.numpy()})[0]


def _write_pt2(program: Any, out: Path, metadata: dict[str, Any]) -> Callable:
    torch.export.save(program, out, extra_files={'mmfreq.json': json.dumps(metadata)})
    network = torch.export.load(out).module()
    return lambda inputs: network(inputs).detach().numpy()
