"""A trained model as one checked file, from pixels to results."""
from typing import Any

from mmfreq.apis.export.file import Exporter, check_out
from mmfreq.apis.inference import Model

__all__ = ['check_out', 'exporter']


def exporter(model: Model, *args: Any) -> Exporter:
    """Return the Exporter of a model's host; see :class:`~mmfreq.apis.export.file.Exporter`."""
    if model.cfg.default_scope == 'mmdet':
        from mmfreq.apis.export.detector import DetectorExporter
        return DetectorExporter(model, *args)
    from mmfreq.apis.export.classifier import ClassifierExporter
    return ClassifierExporter(model, *args)
