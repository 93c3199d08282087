"""A segmentor on all 48 native channels computes what the stock one does on pixels. Needs mmseg."""
from pathlib import Path
from textwrap import dedent
from typing import Any, Optional

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope

import mmfreq
from mmfreq.config.checks import check_config
from mmfreq.config.pipelines import input_specs
from mmfreq.models.ops import provide_ops
from mmfreq.transforms import FusedBlockDCT

provide_ops()
mmseg = pytest.importorskip('mmseg.models')

from mmengine.structures import PixelData  # noqa: E402
from mmseg.structures import SegDataSample  # noqa: E402

from mmfreq.models import seg  # noqa: E402

PIXELS = dict(type='SegDataPreProcessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
              bgr_to_rgb=True, size=(64, 96))
FREQ = dict(type='FusedBlockDCT', channels='48N', stats='imagenette-224-4x4', block_size=4)


def segmentor(preprocessor: dict, **backbone: Any) -> torch.nn.Module:
    """Return a small FCN with weights that are always the same."""
    head = dict(type='FCNHead', in_channels=128, channels=16, num_convs=1, num_classes=5, norm_cfg=dict(type='BN'))
    model = dict(type='EncoderDecoder', data_preprocessor=preprocessor, decode_head=dict(head, in_index=1),
                 backbone=dict(depth=18, num_stages=2, out_indices=(0, 1), strides=(1, 2), dilations=(1, 1),
                               norm_cfg=dict(type='BN'), contract_dilation=True, **backbone),
                 test_cfg=dict(mode='whole'))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        return mmseg.build_segmentor(ConfigDict(model))


def sample(image: np.ndarray, channels: bool, **options: Any) -> dict:
    """Return a batch of one image (H, W, 3), as pixels or as channels, with labels."""
    labels = PixelData(data=torch.arange(image.shape[0])[None, :, None].expand(1, *image.shape[:2]) // 20)
    data_sample = SegDataSample(gt_sem_seg=labels, metainfo=dict(img_shape=image.shape[:2], ori_shape=image.shape[:2]))
    array = FusedBlockDCT('48N', FREQ['stats'], block_size=4, **options)(dict(img=image))['img'] if channels else image
    return dict(inputs=[torch.tensor(array.transpose(2, 0, 1).copy())], data_samples=[data_sample])


def test_segmentor_is_the_stock_one() -> None:
    stock = segmentor(PIXELS, type='ResNetV1c')
    freq = segmentor(dict(type='FreqSegDataPreProcessor', size=(64, 96)), type='UnpackedResNetV1c', freq=FREQ,
                     pixels=PIXELS)
    freq.load_state_dict(stock.state_dict())
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    expected, values = (model.eval().test_step(sample(image, model is freq))[0].seg_logits.data
                        for model in (stock, freq))
    torch.testing.assert_close(values, expected, rtol=1e-3, atol=1e-4)
    image = image[:55, :70]  # padded in training, and whole cells in tests
    stock_batch, batch = (model.data_preprocessor(sample(image, model is freq), training=True)
                          for model in (stock, freq))
    assert batch['inputs'].shape == (1, 48, 16, 24)
    labels, expected = (one['data_samples'][0].gt_sem_seg.data for one in (batch, stock_batch))
    torch.testing.assert_close(labels, expected)
    int8 = seg.FreqSegDataPreProcessor(size=(64, 96), mean=[0], std=[6])
    values = int8(sample(image, True, dtype='int8', scale=6), training=True)['inputs']
    torch.testing.assert_close(values, batch['inputs'].clamp(-127 / 6, 127 / 6), rtol=0, atol=0.5 / 6 + 1e-5)
    assert freq.test_step(sample(image, True))[0].pred_sem_seg.shape == (55, 70)
    broken = sample(image, True)
    broken['data_samples'][0].set_metainfo(dict(img_shape=(64, 96)))
    with pytest.raises(ValueError, match='expected .16, 24. cells'):
        freq.data_preprocessor(broken)


def test_padding_is_the_stock_one() -> None:
    freq = segmentor(dict(type='FreqSegDataPreProcessor', size=(64, 96)), type='UnpackedResNetV1c', freq=FREQ,
                     in_channels=3, pixels=dict(PIXELS, pad_val=2))
    batch = freq.data_preprocessor(sample(np.full((64, 64, 3), 200, np.uint8), True), training=True)
    pixels = freq.backbone.enter(batch['inputs'])
    assert (pixels[..., 64:] == 2).all()
    assert (pixels[..., :64] != 2).all()


@pytest.mark.parametrize('test_cfg', [dict(size=(61, 73)), dict(size=(50, 60)), dict(size_divisor=2), None])
def test_padding_of_any_size_is_cut_off(test_cfg: Optional[dict]) -> None:
    """Whole cells are a few pixels more than mmseg's padding; labels get them too, and predictions lose them."""
    options = dict(type='FreqSegDataPreProcessor', size=(61, 73), test_cfg=test_cfg)
    model = segmentor(options, type='UnpackedResNetV1c', freq=FREQ, pixels=PIXELS).eval()
    image = np.random.default_rng(0).integers(0, 256, (55, 70, 3), dtype=np.uint8)
    batch = model.data_preprocessor(sample(image, True), training=True)
    labels = batch['data_samples'][0].gt_sem_seg.data
    assert (batch['inputs'].shape[2:], labels.shape) == ((16, 19), (1, 64, 76))
    assert (labels[:, :55, :70] < 255).all()
    assert (labels[:, 55:] == 255).all() and (labels[:, :, 70:] == 255).all()  # noqa: PT018
    tested = model.data_preprocessor(sample(image, True))
    rows, columns = tested['inputs'].shape[2:]
    padding = tested['data_samples'][0].img_padding_size
    assert (rows * 4 - padding[3], columns * 4 - padding[1]) == (55, 70)


def test_the_documented_config(tmp_path: Path) -> None:
    mmfreq.setup()
    file = tmp_path / 'config.py'
    file.write_text(dedent(seg.__doc__.partition('config::\n\n')[2]))
    cfg = Config.fromfile(str(file))
    check_config(cfg)
    assert {(spec.block_size, len(spec.channels)) for spec in input_specs(cfg).values()} == {(4, 24)}
