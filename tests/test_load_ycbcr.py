"""LoadYCbCrFromFile against the stock loader, with libturbojpeg and without it."""
import logging
import pickle
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from numpy.testing import assert_allclose, assert_array_equal
from test_lazy_resize import CASES, FUSED, lazy, transformed
from test_transforms import ODD_FILES, PICTURE, encoded

from mmfreq import transforms
from mmfreq.dct import planes
from mmfreq.dct.lazy_image import LazyImage
from mmfreq.dct.planes import JpegPlanes, decoder
from mmfreq.transforms import LoadYCbCrFromFile

needs_library = pytest.mark.skipif(decoder() is None, reason='PyTurboJPEG or libturbojpeg is missing')
FILES = {**ODD_FILES, 'jpeg.png': ODD_FILES['color.jpg'], 'png.jpg': encoded(PICTURE, 'PNG'),
         '1x1.jpg': encoded(PICTURE.resize((1, 1)), 'JPEG'), 'cut.jpg': ODD_FILES['color.jpg'][:3000], 'empty.jpg': b''}
SMOOTH = cv2.GaussianBlur(cv2.resize(np.array(PICTURE), (200, 150)), (0, 0), 3) // 2 + 64
SMOOTH = cv2.imencode('.jpg', SMOOTH, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
PLANES = {'color.jpg', 'gray.jpg', 'rotated.jpg', 'jpeg.png', '1x1.jpg'}


@pytest.fixture(params=[pytest.param(True, marks=needs_library), False], ids=['libturbojpeg', 'without'])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether there is a library; taken away where the test runs without."""
    if not request.param:
        monkeypatch.setattr(planes, 'decoder', lambda: None)
        monkeypatch.setattr(transforms, 'decoder', lambda: None)
    return request.param


def loaded(load: Callable, path: Path) -> Any:
    """Return what a loader returns or raises."""
    try:
        return load(dict(img_path=str(path), gt_label=1))
    except Exception as error:
        return re.sub('0x[0-9a-f]+', '', f'{type(error).__name__}: {error}')  # addresses of buffers


@pytest.mark.parametrize(('options', 'colors'), [
    ({}, True), (dict(color_type='color_ignore_orientation'), True), (dict(color_type='grayscale'), False),
    (dict(to_float32=True), False), (dict(imdecode_backend='pillow'), True), (dict(imdecode_backend='turbojpeg'), True),
    (dict(ignore_empty=True), True)], ids=str)
@pytest.mark.parametrize('name', [*FILES, 'missing.jpg'])
def test_every_file_loads_or_fails_as_with_the_stock_loader(name: str, options: dict, colors: bool, library: bool,
                                                            tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if options.get('imdecode_backend') == 'turbojpeg':
        monkeypatch.setattr('mmcv.image.io.jpeg', decoder() or pytest.skip('libturbojpeg is missing'))
    if name in FILES:
        (tmp_path / name).write_bytes(FILES[name])
    stock, results = (loaded(kind(**options), tmp_path / name) for kind in (LoadImageFromFile, LoadYCbCrFromFile))
    if not isinstance(stock, dict):
        assert results == stock
        return
    image, expected = results.pop('img'), stock.pop('img')
    assert results == stock
    assert (image.shape, image.dtype) == (expected.shape, expected.dtype)
    lazily = library and name in PLANES and colors
    assert isinstance(image, LazyImage) == lazily
    if not lazily:
        assert_array_equal(image, expected)
    elif image.size[0] > 1:
        assert np.mean(np.square(np.asarray(image).astype(float) - expected)) < 20


@pytest.mark.parametrize('reduce', [False, True])
@pytest.mark.parametrize('case', CASES)
@needs_library
def test_stock_transforms_work_as_after_the_stock_loader(case: str, reduce: bool, tmp_path: Path) -> None:
    """The same crops, flips, labels and boxes: a shift by a pixel would move coefficients by ten levels."""
    (tmp_path / 'image.jpg').write_bytes(SMOOTH)
    scope, steps = CASES[case]
    ours, stock = ([load, *map(lazy, steps), FUSED] for load in (
        dict(type='LoadYCbCrFromFile', reduce=reduce), dict(type='LoadImageFromFile')))
    for seed in range(3):
        results, expected = (transformed(scope, each, seed, path=str(tmp_path / 'image.jpg')) for each in (ours, stock))
        error = results.pop('img') - expected.pop('img')
        assert np.sqrt(np.mean(np.square(error))) < 1
        assert {key: repr(value) for key, value in results.items()} == {
            key: repr(value) for key, value in expected.items()}


@needs_library
def test_resizes_that_cannot_wait_take_pixels(tmp_path: Path) -> None:
    (tmp_path / 'image.jpg').write_bytes(SMOOTH)
    step = dict(type='RandomResizedCrop', scale=64, interpolation='bicubic')
    results, expected = (transformed('mmpretrain', [load, *steps], 1, path=str(tmp_path / 'image.jpg'))
                         for load, steps in ((dict(type='LoadYCbCrFromFile'), [lazy(step)]),
                                             (dict(type='LoadImageFromFile'), [step])))
    assert_allclose(results['img'].astype(int), expected['img'], rtol=0, atol=4)


@needs_library
def test_reduced_files_are_decoded_when_their_size_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / 'image.jpg').write_bytes(SMOOTH)
    sizes, decode = [], JpegPlanes._decode
    monkeypatch.setattr(JpegPlanes, '_decode', lambda image, n: sizes.append(n) or decode(image, n))
    for scale, expected in (((224, 99), 8), ((101, 75), 8), ((100, 75), 4), ((25, 18), 1), ((26, 18), 2)):
        resize = dict(type='LazyResize', resize='Resize', scale=scale)
        transformed('mmpretrain', [dict(type='LoadYCbCrFromFile', reduce=True), resize, FUSED], 0,
                    path=str(tmp_path / 'image.jpg'))
        assert sizes.pop() == expected
        assert not sizes


def test_a_missing_library_is_named_once(library: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = []
    monkeypatch.setattr(transforms, 'print_log', lambda *line: lines.append(line))
    transforms._warn_without_decoder.cache_clear()
    for load in (LoadYCbCrFromFile(), LoadYCbCrFromFile(reduce=True)):
        assert pickle.loads(pickle.dumps(load)).reduce == load.reduce
        assert repr(load).startswith("LoadYCbCrFromFile(ignore_empty=False, to_float32=False, color_type='color'")
    assert [('apt-get install libturbojpeg0' in text, level) for text, _, level in lines] == (
        [] if library else [(True, logging.WARNING)])
    transforms._warn_without_decoder.cache_clear()


def test_a_library_of_another_version_counts_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (ImportError, OSError, RuntimeError, AttributeError):
        module = ModuleType('turbojpeg')
        module.TurboJPEG = lambda error=error: (_ for _ in ()).throw(error)
        monkeypatch.setitem(sys.modules, 'turbojpeg', module)
        assert decoder.__wrapped__() is None
