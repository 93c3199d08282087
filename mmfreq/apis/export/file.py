"""Write a graph as one self-contained file, which appears once its results are those of PyTorch."""
import json
import tempfile
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from matplotlib.cbook import get_sample_data
from mmengine.config import Config
from mmengine.registry import DATASETS
from PIL import Image
from torch import nn

from mmfreq.apis.inference import Model, pixels
from mmfreq.errors import RefusedError
from mmfreq.files import atomic_write_bytes, check_writable
from mmfreq.version import __version__

Arrays = list[np.ndarray]
Differences = dict[str, float]
Reference = tuple[str, Iterable[tuple[torch.Tensor, Any]], Differences]


class Exporter:
    """Build the graph of a model, write it, and compare its results with PyTorch's.

    A subclass for a task builds ``network``, the graph, whose ``outputs`` are the outputs' names and
    whose ``front`` converts the file's input. It has these methods:

    - ``results(sample)``: the predictions in a data sample, in the order of the outputs;
    - ``example()``: an input, and the kind of its dynamic axes;
    - ``references()``: for each reference its name, inputs with the outputs that are expected, and
      the differences that are allowed, by name;
    - ``differences(outputs, expected, allowed)``: the differences by the names in ``allowed``.

    The file takes pixels, uint8 (N, H, W, 3) in the ``order`` 'rgb' or 'bgr', or with
    ``kind='channels'`` the DCT channels (N, C, h, w) that the test pipeline returns. The model is on
    the CPU. It is compared on ``images``, upright RGB pixels from ``source``: their files become
    ``packed`` in the test pipeline, and ``expected`` in the model.
    """
    network: nn.Module

    def __init__(self, model: Model, kind: str = 'image', order: str = 'rgb') -> None:
        self.model, self.kind, self.order = model, kind, order
        model.module.requires_grad_(False)
        with model.scope(), check_images(model.cfg) as (paths, self.source):
            self.images = [np.ascontiguousarray(pixels(path)[:, :, ::-1]) for path in paths]
            files = [pixels(path, load=model.load) for path in paths]
            self.packed = [model.packed(image) for image in files]
            self.expected = [self.results(model.samples([image])[0]) for image in files]

    def inputs(self) -> list[torch.Tensor]:
        """Return the check images as inputs of the file, uint8 (1, H, W, 3)."""
        step = 1 if self.order == 'rgb' else -1
        return [torch.tensor(image[None, :, :, ::step].copy()) for image in self.images]

    def check(self, run: Callable) -> dict[str, Differences]:
        """Return the largest differences of the results of ``run``, by reference, if they are allowed."""
        largest = {}
        for reference, cases, allowed in self.references():
            most = largest[reference] = dict.fromkeys(allowed, 0.)
            for inputs, expected in cases:
                for name, value in self.differences(run(inputs), expected, allowed).items():
                    most[name] = max(most[name], value)
                    if not value <= allowed[name]:
                        raise RefusedError(f'nothing is written: the {name} of the file differ by '
                                           f'{value:.1e} from {reference}, allowed {allowed[name]}')
        return largest

    def metadata(self) -> dict[str, Any]:
        """Return the file's metadata, values for JSON."""
        return dict(mmfreq=__version__, classes=self.model.classes or None, input=self.kind,
                    colors=self.order if self.kind == 'image' else None,
                    outputs=list(self.network.outputs), **self.network.front.about)

    def program(self) -> torch.export.ExportedProgram:
        """Trace the graph."""
        example, axes = self.example()
        return torch.export.export(self.network, (example, ), dynamic_shapes=(axes, ), strict=False)

    def write(self, out: Path) -> dict[str, Differences]:
        """Write the file, ``.onnx`` or ``.pt2``, if it passes :meth:`check`, whose result is returned."""
        with tempfile.TemporaryDirectory() as folder:
            draft = Path(folder, f'draft{out.suffix}')
            differences = self.check(_WRITERS[out.suffix](self, draft))
            atomic_write_bytes(out, draft.read_bytes())
        return differences


def check_out(out: Path) -> None:
    """Raise RefusedError unless ``out`` is the name of a file that can be written."""
    if out.suffix not in _WRITERS:
        raise RefusedError(f'expected a file name with {" or ".join(_WRITERS)}, got {out}')
    if out.suffix == '.onnx' and not (find_spec('onnxscript') and find_spec('onnxruntime')):
        raise RefusedError('an .onnx file needs the extra "export": pip install "mmfreq[export]"')
    check_writable(out)


@contextmanager
def check_images(cfg: Config, count: int = 4) -> Iterator[tuple[Sequence[str], str]]:
    """Yield paths of images and their source: the test data set, or else parts of a sample image."""
    try:
        dataset = DATASETS.build(dict(cfg.test_dataloader.dataset, lazy_init=False))
        paths = [dataset.get_data_info(i)['img_path'] for i in range(min(count, len(dataset)))]
        missing = [path for path in paths if not Path(path).is_file()]
    except OSError as error:
        missing = [' '.join(str(error).split())]
    if not missing:
        yield paths, f'the first {len(paths)} images of the test data set'
        return
    with get_sample_data('grace_hopper.jpg') as file, tempfile.TemporaryDirectory() as folder:
        image = np.array(Image.open(file).convert('RGB'))
        parts = image, image[50:350], image[20:, :317], image[100:301, 111:400]
        paths = [str(Path(folder, f'{i}.png')) for i in range(len(parts))]
        for path, part in zip(paths, parts):
            Image.fromarray(part).save(path)
        yield paths, f'a sample image and three parts, since the test data set is missing: {missing[0]}'


def _write_onnx(exporter: Exporter, out: Path) -> Callable:
    """Write ONNX; return a function that runs the file."""
    import onnx
    import onnxruntime
    torch.onnx.export(exporter.program(), f=str(out), input_names=['input'],
                      output_names=list(exporter.network.outputs), opset_version=18, dynamo=True,
                      external_data=False, verbose=False)
    model = onnx.load(out)
    metadata = {key: json.dumps(value) for key, value in exporter.metadata().items()}
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, out)
    session = onnxruntime.InferenceSession(str(out), providers=['CPUExecutionProvider'])
    return lambda inputs: session.run(None, {'input': inputs.numpy()})


def _write_pt2(exporter: Exporter, out: Path) -> Callable:
    """Write for torch.export; return a function that runs the file."""
    metadata = {'mmfreq.json': json.dumps(exporter.metadata())}
    torch.export.save(exporter.program(), out, extra_files=metadata)
    network = torch.export.load(out).module()

    def run(inputs: torch.Tensor) -> Arrays:
        outputs = network(inputs)
        return [one.numpy() for one in (outputs if isinstance(outputs, tuple) else (outputs, ))]

    return run


_WRITERS = {'.onnx': _write_onnx, '.pt2': _write_pt2}
