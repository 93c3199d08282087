"""Export classifiers of mmpretrain: from pixels or DCT channels to scores."""
from typing import Any
from unittest import mock

import numpy as np
import torch
from mmpretrain.models import MultiLabelClsHead
from mmpretrain.models.utils import ShiftWindowMSA
from torch import Tensor, nn

from mmfreq.apis.export import swin
from mmfreq.apis.export.file import Arrays, Differences, Exporter, Reference
from mmfreq.apis.export.inputs import ChannelInput, ClassifierInput


class Classifier(nn.Module):
    """From the file's input through ``front``, its conversion, and mmpretrain's classifier to scores."""
    outputs = 'scores',

    def __init__(self, front: nn.Module, model: nn.Module) -> None:
        super().__init__()
        self.front, self.model = front, model
        self.multi_label = isinstance(model.head, MultiLabelClsHead)

    def forward(self, images: Tensor) -> Tensor:
        """Return scores, float32 (N, classes)."""
        logits = self.model.head(self.model.extract_feat(self.front(images)))
        return logits.sigmoid() if self.multi_label else logits.softmax(1)


class ClassifierExporter(Exporter):
    """Export a classifier of mmpretrain; arguments as of :class:`Exporter`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        front = (ClassifierInput(self.model.cfg, self.order) if self.kind == 'image'
                 else ChannelInput(self.model.cfg, self.model.module.data_preprocessor))
        self.network = Classifier(front, self.model.module).eval()

    def results(self, sample: Any) -> Arrays:
        """Return the scores (1, classes) of a data sample."""
        return [sample.pred_score[None].numpy()]

    def inputs(self) -> list[Tensor]:
        """Return the check images as inputs of the file, (1, ...)."""
        if self.kind == 'image':
            return super().inputs()
        return [packed['inputs'][None] for packed in self.packed]

    def batches(self) -> list[Tensor]:
        """Return inputs of one and of two images, already resized where the file resizes.

        Runtimes resize with other roundings, so that a pixel here and there is one level off.
        """
        inputs = self.inputs()
        if self.kind == 'image':
            inputs = list(map(self.network.front.resized, inputs))
        return [inputs[0]] + [torch.cat((one, one.flip(1))) for one in inputs]

    def example(self) -> tuple[Tensor, dict]:
        """Return two images; their number is dynamic, and the size if the file resizes or crops."""
        resizes = self.kind == 'image' and self.network.front.steps
        axes = (0, 1, 2) if resizes else (0, )
        return self.batches()[-1], dict.fromkeys(axes, torch.export.Dim.DYNAMIC)

    def references(self) -> list[Reference]:
        """Return the same graph in PyTorch, and test pipeline and model."""
        graph = [(inputs, [self.network(inputs).numpy()]) for inputs in self.batches()]
        coarse = getattr(self.network.front, 'int8_scale', None)
        return [('the same graph in PyTorch', graph, dict(scores=2e-2 if coarse else 1e-4)),
                ('test pipeline and model', zip(self.inputs(), self.expected), dict(scores=0.05))]

    def differences(self, outputs: Arrays, expected: Arrays, allowed: Differences) -> Differences:
        """Return the largest difference of scores, relative to the largest score."""
        return dict(scores=float(np.abs(outputs[0] - expected[0]).max() / expected[0].max()))

    def metadata(self) -> dict[str, Any]:
        """Return the file's metadata; ``threshold`` or ``topk`` says which labels the head names."""
        head, labels = self.model.module.head, dict(topk=1)
        if self.network.multi_label:
            labels = dict(topk=head.topk) if head.thr is None else dict(threshold=head.thr)
        return {**super().metadata(), **labels}

    def program(self) -> torch.export.ExportedProgram:
        """Return the graph, in which the batch of a Swin stays dynamic."""
        reverse = staticmethod(swin.window_reverse)
        with mock.patch.object(ShiftWindowMSA, 'window_reverse', reverse):
            return super().program()
