"""Export a trained model: its graph from pixels to results as one checked file."""
from typing import Any, Callable
from unittest import mock

import numpy as np
import torch
from mmengine.config import Config

from mmfreq.apis.export_file import Arrays, Differences, Exporter
from mmfreq.apis.export_graph import Classifier, Coefficients, PixelSteps, window_reverse

INPUTS = 'image', 'channels'
TOLERANCE = {False: 1e-4, True: 2e-2}  # of scores, by whether they are computed in float16
PIPELINE_TOLERANCE = 0.05  # resizing differs by one level in some pixels from OpenCV and Pillow


class ClassifierExporter(Exporter):
    """Export a classifier of mmpretrain; arguments as of :class:`Exporter`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._samples = list(map(self.packed, self.images))
        self._expected = list(map(self._reference, self._samples))  # before the weights are halved
        preprocessor = self.model.data_preprocessor
        front = (PixelSteps(self.cfg, preprocessor, self.order) if self.kind == 'image'
                 else Coefficients(self.cfg, preprocessor))
        self.network = Classifier(front, self.model, self.half).eval().requires_grad_(False)

    def _reference(self, packed: dict[str, Any]) -> Arrays:
        batch = dict(inputs=packed['inputs'][None], data_samples=[packed['data_samples']])
        with torch.no_grad():
            return [self.model.test_step(batch)[0].pred_score[None].numpy()]

    def inputs(self) -> list[torch.Tensor]:
        """Return the check images as inputs of the file, (1, ...)."""
        if self.kind == 'image':
            return list(map(self.pixels, self.images))
        return [packed['inputs'][None] for packed in self._samples]

    def batches(self) -> list[torch.Tensor]:
        """Return inputs of one and of two images, resized before where the file resizes.

        Runtimes resize with other roundings, so that a pixel here and there is one level off.
        """
        inputs = self.inputs()
        if self.kind == 'image':
            inputs = list(map(self.network.front.resized, inputs))
        return [inputs[0]] + [torch.cat((one, one.flip(1))) for one in inputs]

    def example(self) -> tuple[torch.Tensor, dict]:
        """Return two images; their number is dynamic, and the size if the file resizes or crops."""
        auto = torch.export.Dim.DYNAMIC
        resizes = self.kind == 'image' and self.network.front.steps
        return self.batches()[-1], dict.fromkeys((0, 1, 2) if resizes else (0, ), auto)

    def check(self, run: Callable) -> dict[str, Differences]:
        """Compare with the same graph in PyTorch, and with test pipeline and model."""
        graph = [(inputs, [self.network(inputs).numpy()]) for inputs in self.batches()]
        whole = zip(self.inputs(), self._expected)
        return {name: self.compare(run, cases, name, dict(scores=tolerance))
                for name, cases, tolerance in (
                    ('the same graph in PyTorch', graph, TOLERANCE[self.half]),
                    ('test pipeline and model', whole, PIPELINE_TOLERANCE))}

    def differences(self, made: Arrays, expected: Arrays) -> Differences:
        """Return the largest difference of scores, relative to the largest score."""
        return dict(scores=float(np.abs(made[0] - expected[0]).max() / expected[0].max()))

    def program(self) -> torch.export.ExportedProgram:
        """Return the graph, in which a Swin has no constant batch."""
        from mmpretrain.models.utils import ShiftWindowMSA
        with mock.patch.object(ShiftWindowMSA, 'window_reverse', staticmethod(window_reverse)):
            return super().program()


def exporter(cfg: Config, *args: Any) -> Exporter:
    """Return the :class:`Exporter` of a config's host, made with the given arguments."""
    scope = cfg.get('default_scope')
    if scope == 'mmdet':
        from mmfreq.apis.export_detector import DetectorExporter
        return DetectorExporter(cfg, *args)
    if scope != 'mmpretrain':
        raise ValueError(f"default_scope: expected 'mmpretrain' or 'mmdet', got {scope!r}")
    return ClassifierExporter(cfg, *args)
