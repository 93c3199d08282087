"""A trained model as one checked file, from pixels to results."""
from typing import Any

from mmengine.config import Config

from mmfreq.apis.export.file import Exporter, check_out
from mmfreq.errors import RefusedError

__all__ = ['check_out', 'exporter']


def exporter(cfg: Config, *args: Any) -> Exporter:
    """Return the :class:`~mmfreq.apis.export.file.Exporter` of a config's host, with its arguments."""
    scope = cfg.get('default_scope')
    if scope == 'mmpretrain':
        from mmfreq.apis.export.classifier import ClassifierExporter
        return ClassifierExporter(cfg, *args)
    if scope == 'mmdet':
        from mmfreq.apis.export.detector import DetectorExporter
        return DetectorExporter(cfg, *args)
    raise RefusedError(f"default_scope: expected 'mmpretrain' or 'mmdet', got {scope!r}")
