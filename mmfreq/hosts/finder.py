"""Let ``import mmcv._ext`` find torchvision's ops where mmcv has no compiled ones."""
import importlib.util
import sys
import warnings
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, Optional

_EXT = 'mmcv._ext'


class _OpsFinder:
    """Load :mod:`mmfreq.hosts.ops` under the name ``mmcv._ext``."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Optional[ModuleSpec]:
        file = Path(__file__).with_name('ops.py')
        return importlib.util.spec_from_file_location(name, file) if name == _EXT else None


def provide_ops() -> None:
    """Append the finder to ``sys.meta_path``: it is asked last, so a compiled mmcv always wins.

    Warn if mmdet is loaded already and did without ops: it keeps the gaps of its first import.
    """
    sys.meta_path.append(_OpsFinder)
    if 'mmdet.models' in sys.modules and _EXT not in sys.modules:
        warnings.warn('mmdet was imported before mmfreq and stays without nms and RoIAlign: this '
                      'mmcv has no compiled ops. Import mmfreq first', stacklevel=2)
