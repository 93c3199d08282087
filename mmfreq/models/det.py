"""What mmfreq registers in mmdet: modified backbones, a preprocessor that keeps geometry in pixels, a checked data set.

Name this module under ``custom_imports`` in a config. Importing it also makes mmdet run where mmcv has no compiled ops
(:mod:`mmfreq.hosts.ops`).
"""
import logging
from pathlib import Path
from typing import Any, Optional, Sequence

import mmengine.fileio as fileio
import torch
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmengine.structures import InstanceData

from mmfreq.config.reader import DEFAULT_STRIDE
from mmfreq.hosts.ops import provide_ops
from mmfreq.image_files import decode_image_file

provide_ops()  # before mmdet imports mmcv.ops

from mmcv.ops import batched_nms  # noqa: E402
from mmdet.datasets import CocoDataset  # noqa: E402
from mmdet.engine.hooks import DetVisualizationHook  # noqa: E402
from mmdet.models.backbones import (  # noqa: E402
    MobileNetV2,
    RegNet,
    Res2Net,
    ResNeSt,
    ResNet,
    ResNetV1d,
    ResNeXt,
    SwinTransformer,
)
from mmdet.models.data_preprocessors import DetDataPreprocessor  # noqa: E402
from mmdet.models.test_time_augs import DetTTAModel  # noqa: E402
from mmdet.registry import DATASETS, HOOKS, MODELS  # noqa: E402
from mmdet.structures import DetDataSample  # noqa: E402

from mmfreq.models.mobilenet_v2_stem import StemlessMobileNetV2Mixin  # noqa: E402
from mmfreq.models.preprocessor import PlacementMixin  # noqa: E402
from mmfreq.models.stem import PatchMixin, StemlessResNetMixin  # noqa: E402


@MODELS.register_module()
class FreqResNet(StemlessResNetMixin, ResNet):
    """mmdet's ResNet without its stem, for C DCT channels; see :class:`~mmfreq.models.stem.StemlessResNetMixin`.

    Args:
        depth (int): Depth of the network, from {18, 34, 50, 101, 152}.
        in_channels (int): Number of DCT channels C.
        entry_stage (int): Stage that takes the channels, 1 or 2. Defaults to 1.
        **kwargs: Every other argument of :class:`mmdet.models.backbones.ResNet`.

    Example:
        >>> import torch
        >>> from mmfreq.models.det import FreqResNet
        >>> model = FreqResNet(50, in_channels=24)
        >>> [tuple(level.shape) for level in model(torch.rand(1, 24, 64, 80))]
        [(1, 256, 64, 80), (1, 512, 32, 40), (1, 1024, 16, 20), (1, 2048, 8, 10)]
    """


@MODELS.register_module()
class FreqResNetV1d(StemlessResNetMixin, ResNetV1d):
    """mmdet's ResNetV1d without its deep stem, for C DCT channels; keyword arguments as :class:`FreqResNet`."""


@MODELS.register_module()
class FreqResNeXt(StemlessResNetMixin, ResNeXt):
    """mmdet's ResNeXt without its stem, for C DCT channels; keyword arguments as :class:`FreqResNet`."""


@MODELS.register_module()
class FreqRes2Net(StemlessResNetMixin, Res2Net):
    """mmdet's Res2Net without its deep stem, for C DCT channels; keyword arguments as :class:`FreqResNet`."""


@MODELS.register_module()
class FreqResNeSt(StemlessResNetMixin, ResNeSt):
    """mmdet's ResNeSt without its deep stem, for C DCT channels; keyword arguments as :class:`FreqResNet`."""


@MODELS.register_module()
class FreqRegNet(StemlessResNetMixin, RegNet):
    """mmdet's RegNet without its stem, for C DCT channels; see :class:`~mmfreq.models.stem.StemlessResNetMixin`.

    Args:
        arch (str | dict): As :class:`mmdet.models.backbones.RegNet`.
        in_channels (int): Number of DCT channels C.
        strides (Sequence[int]): Strides of the stages. Defaults to (1, 2, 2, 2): a stock RegNet halves the grid in its
            first stage, to the size at which the DCT channels come.
        **kwargs: Every other argument of :class:`mmdet.models.backbones.RegNet`.
    """

    def __init__(self, *args: Any, strides: Sequence[int] = (1, 2, 2, 2), **kwargs: Any) -> None:
        super().__init__(*args, strides=strides, **kwargs)


@MODELS.register_module()
class FreqSwinTransformer(PatchMixin, SwinTransformer):
    """mmdet's SwinTransformer for C DCT channels; see :class:`~mmfreq.models.stem.PatchMixin`.

    Args:
        in_channels (int): Number of DCT channels C.
        **kwargs: Every other argument of :class:`mmdet.models.backbones.SwinTransformer`; sizes in pixels.
    """
    projection = 'patch_embed.projection'

    def init_weights(self) -> None:
        """Initialises as the stock class does, which draws every linear layer anew, but leaves the gate its start."""
        super().init_weights()
        if self.gate is not None and self.init_cfg is None:
            self.gate.init_weights()


@MODELS.register_module()
class FreqMobileNetV2(StemlessMobileNetV2Mixin, MobileNetV2):
    """mmdet's MobileNetV2 without its stem, for C DCT channels.

    See :class:`~mmfreq.models.mobilenet_v2_stem.StemlessMobileNetV2Mixin`. A cell of the input covers 2 pixels:
    ``FusedBlockDCT(..., upscale=4)``, and ``stride=2`` in :class:`FreqDetDataPreprocessor`.

    Args:
        in_channels (int): Number of DCT channels C.
        **kwargs: Every other argument of :class:`mmdet.models.backbones.MobileNetV2`.

    Example:
        >>> import torch
        >>> from mmfreq.models.det import FreqMobileNetV2
        >>> model = FreqMobileNetV2(in_channels=12)
        >>> [tuple(level.shape) for level in model(torch.rand(1, 12, 64, 80))]
        [(1, 24, 32, 40), (1, 32, 16, 20), (1, 96, 8, 10), (1, 1280, 4, 5)]
    """


@MODELS.register_module()
class FreqDetDataPreprocessor(PlacementMixin, DetDataPreprocessor):
    """Batches DCT inputs of different sizes; everything but the input tensor stays in pixels.

    A cell of the input covers ``stride`` pixels. ``pad_shape`` and ``batch_input_shape`` of the data samples are the
    padded input's size in pixels, those of the stock preprocessor with the same ``pad_size_divisor``; masks are padded
    to it. ``img_shape``, ``scale_factor`` and boxes are left alone. The inputs come normalised from the pipeline, as
    float32 or int8, or are photos that become DCT channels here; they are padded with 0, each channel's mean.

    Args:
        pad_size_divisor (int): Pixels that the padded image is a multiple of, as in the stock config; a multiple of
            ``stride``. Defaults to 32.
        stride (int): Pixels of the resized image that one DCT block covers: block size / upscale. Defaults to 4.
        mean (Sequence[float], optional): One value for all channels, or one for each of the C: subtracted, to undo
            int8. With ``FreqNormalize(..., dtype='int8', scale=s)`` it is ``[0]``. Defaults to None: nothing to undo.
        std (Sequence[float], optional): As many; divided by. For that transform it is ``[s]``.
        placement (str): Where photos become DCT channels, see :class:`~mmfreq.models.preprocessor.PlacementMixin`.
            Defaults to ``'cpu'``: in the pipeline.
        freq (dict, optional): See there; needed with ``placement='device'``.
        **kwargs: ``pad_mask``, ``mask_pad_value``, ``pad_seg``, ``seg_pad_value``, ``boxtype2tensor`` and
            ``non_blocking`` of :class:`mmdet.models.DetDataPreprocessor`.

    Raises:
        ValueError: ``pad_size_divisor`` is not a multiple of ``stride``; a normalisation of RGB pixels (three values)
            or a colour conversion is asked for, or ``batch_augments``, which resize pixels; with
            ``placement='device'``, ``stride`` is not that of ``freq``.
    """

    def __init__(self,
                 pad_size_divisor: int = 32,
                 stride: int = DEFAULT_STRIDE,
                 mean: Optional[Sequence[float]] = None,
                 std: Optional[Sequence[float]] = None,
                 **kwargs: Any) -> None:
        if stride < 1 or pad_size_divisor % stride:
            raise ValueError(f'pad_size_divisor: expected a multiple of stride={stride} pixels, got {pad_size_divisor}')
        if (mean is None) != (std is None) or len(mean or ()) != len(std or ()) or len(mean or ()) == 3:
            raise ValueError('mean: expected none, since the pipeline normalises DCT channels, or to '
                             f'undo its int8 as many values as std, one or C; got mean={mean!r}, std={std!r}')
        for key in ('bgr_to_rgb', 'rgb_to_bgr'):
            if kwargs.get(key):
                raise ValueError(f'{key}: expected none, since the inputs are DCT channels; got {kwargs[key]!r}')
        if kwargs.get('batch_augments'):
            raise ValueError('batch_augments: expected none, since they resize pixels and the inputs are DCT channels '
                             f'(augment in the pipeline, before the DCT); got {kwargs["batch_augments"]!r}')
        if mean is not None and kwargs.get('placement') == 'device':
            raise ValueError(f"mean, std: expected none with placement='device'; got mean={mean!r}, std={std!r}")
        super().__init__(pad_size_divisor=pad_size_divisor // stride, **kwargs)
        self.stride = stride
        if self.to_channels is not None and self.to_channels.map.stride != stride:
            raise ValueError(f'stride: expected {self.to_channels.map.stride}, block_size / upscale of freq, got '
                             f'{stride}')
        if mean is not None:  # the stock class takes one or three values only
            self._enable_normalize = True
            for name, values in (('mean', mean), ('std', std)):
                self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Stacks and pads the inputs (N, C, h, w); sets the samples' shapes in pixels.

        Args:
            data (dict): ``inputs`` (list of (C, h, w) tensors, or one (N, C, h, w); with ``placement='device'`` uint8
                photos (3, H, W)) and ``data_samples``.
            training (bool): Whether to pad masks. Defaults to False.

        Returns:
            dict: ``inputs`` (float32 (N, C, h, w)) and ``data_samples``.

        Raises:
            ValueError: An input is not as many cells as its sample's ``img_shape`` has at this ``stride``.
        """
        data = self.placed(data)
        self._check_cells(data)
        data = super().forward(data, training=False)  # leaves padding the masks to us
        inputs, samples = data['inputs'], data['data_samples']
        if samples is not None:
            batch_input_shape = tuple(self.stride * side for side in inputs.shape[-2:])
            for sample in samples:
                sample.set_metainfo(dict(batch_input_shape=batch_input_shape))
            if training and self.pad_mask:
                self.pad_gt_masks(samples)
            if training and self.pad_seg:
                self.pad_gt_sem_seg(samples)
        return dict(inputs=inputs, data_samples=samples)

    def _check_cells(self, data: dict) -> None:
        values = len(self.mean) if self._enable_normalize else 1
        if any(len(cells) != values for cells in data['inputs'] if values > 1):
            raise ValueError(f'mean, std: expected one value or as many as the inputs have channels, got {values} for '
                             f'inputs of {len(data["inputs"][0])} channels')
        for cells, sample in zip(data['inputs'], data.get('data_samples') or ()):
            pixels = sample.get('img_shape')
            expected = pixels and tuple(-(-side // self.stride) for side in pixels[:2])
            if expected and tuple(cells.shape[-2:]) != expected:
                raise ValueError(f'FreqDetDataPreprocessor: expected {expected} cells for img_shape={pixels} at '
                                 f'stride={self.stride}, got an input of shape {tuple(cells.shape)}; stride must be '
                                 'block_size / upscale of the DCT in the pipeline')

    def _get_pad_shape(self, data: dict) -> list[tuple[int, int]]:
        return [tuple(self.stride * side for side in shape) for shape in super()._get_pad_shape(data)]


@DATASETS.register_module()
class CheckedCocoDataset(CocoDataset):
    """mmdet's CocoDataset that says what it leaves out, and refuses annotations that do not fit its classes.

    Arguments and samples are those of :class:`mmdet.datasets.CocoDataset`. One log line counts the images and
    annotations of the file, and those that are not used: images without instances or too small (``filter_cfg``),
    annotations without area or of other categories. It is a warning if annotations are dropped that are neither crowds
    nor marked as ``ignore``.

    Raises:
        ValueError: The annotation file's categories are not the classes in their order (labels follow the file's); an
            annotation has no segmentation and the pipeline loads masks; no image is left, or for training
            (``test_mode=False``) none of the file's annotations. The file is named.
    """

    def COCOAPI(self, annotation_file: str) -> Any:
        """Reads the annotation file, as the stock attribute of this name does; checks its categories."""
        coco = super().COCOAPI(annotation_file)
        classes = self.metainfo['classes']
        found = [category['name'] for category in coco.dataset.get('categories', [])]
        if [name for name in found if name in classes] != list(classes):
            raise ValueError(f'{self.ann_file}: expected a category for each of the {len(classes)} classes '
                             f'{", ".join(classes)}, in this order, found {", ".join(found) or "none"}; set '
                             "metainfo=dict(classes=...) to the file's own category names in the file's order, and "
                             'num_classes of the heads with it')
        return coco

    def load_data_list(self) -> list[dict]:
        """Loads the annotation file."""
        self._annotations = self._wanted = 0
        self._loads_masks = any(getattr(step, 'with_mask', False) for step in self.pipeline.transforms)
        return super().load_data_list()

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Parses one image's annotations, counts them, and checks that they have the masks that the pipeline loads."""
        annotations = raw_data_info['raw_ann_info']
        self._annotations += len(annotations)
        self._wanted += sum(not (a.get('iscrowd') or a.get('ignore')) for a in annotations)
        sample = super().parse_data_info(raw_data_info)
        if self._loads_masks and any('mask' not in instance for instance in sample['instances']):
            bare = next(a['id'] for a in annotations if not a.get('segmentation'))
            raise ValueError(f'{self.ann_file}: expected a segmentation in every annotation, since the pipeline loads '
                             f'masks (with_mask=True); annotation {bare} of image {sample["img_id"]} has none. Boxes '
                             'alone train a detector without masks, such as Faster R-CNN')
        return sample

    def filter_data(self) -> list[dict]:
        """Filters images as ``filter_cfg`` says; logs how many stay."""
        kept = super().filter_data()
        used = [instance for sample in kept for instance in sample['instances']]
        dropped = self._wanted - sum(not instance['ignore_flag'] for instance in used)
        reasons = ('no area, a side under a pixel, outside the image, of a category that is none of the classes, or of '
                   'an image left out')
        print_log(f'{self.ann_file}: {len(kept)} of {len(self.data_list)} images and {len(used)} of '
                  f'{self._annotations} annotations in use (filter_cfg={self.filter_cfg}, test_mode={self.test_mode})'
                  + (f'; {dropped} dropped: {reasons}' if dropped else ''), logger='current',
                  level=logging.WARNING if dropped else logging.INFO)
        if not kept:
            raise ValueError(f'{self.ann_file}: expected images to use, got none of its {len(self.data_list)} '
                             f'(filter_cfg={self.filter_cfg}, folder {self.data_prefix["img"]})')
        if self._annotations and not used and not self.test_mode:
            raise ValueError(f'{self.ann_file}: expected annotations to train on, got none of its {self._annotations}: '
                             f'{reasons}')
        return kept


# Axes of a mask (N, H, W) that each of mmdet's flip directions turns round.
_FLIPPED_AXES = {'horizontal': (2, ), 'vertical': (1, ), 'diagonal': (1, 2)}


@MODELS.register_module()
class InstanceSegTTAModel(DetTTAModel):
    """mmdet's DetTTAModel for instance segmentation too: every box that the merging NMS keeps brings its own mask.

    Arguments and results for detectors without masks are those of :class:`mmdet.models.DetTTAModel`.
    """

    def _merge_single_sample(self, data_samples: list[DetDataSample]) -> DetDataSample:
        views = [sample.pred_instances for sample in data_samples]
        metas = [sample.metainfo for sample in data_samples]
        if 'masks' not in views[0]:
            return super()._merge_single_sample(data_samples)
        boxes, scores = self.merge_aug_bboxes([v.bboxes for v in views], [v.scores for v in views], metas)
        labels = torch.cat([v.labels for v in views])
        masks = torch.cat([unflip(v.masks, meta) for v, meta in zip(views, metas)])
        merged = data_samples[0]
        if len(boxes):
            found, kept = batched_nms(boxes, scores, labels, self.tta_cfg['nms'])
            best = slice(self.tta_cfg['max_per_img'])
            kept = kept[best]
            merged.pred_instances = InstanceData(bboxes=boxes[kept], scores=found[best, -1], labels=labels[kept],
                                                 masks=masks[kept])
        return merged


def unflip(masks: torch.Tensor, meta: dict) -> torch.Tensor:
    """Masks (N, H, W) of a flipped view, as they lie in the photo."""
    return torch.flip(masks, _FLIPPED_AXES[meta['flip_direction']]) if meta.get('flip') else masks


@HOOKS.register_module()
class FreqVisualizationHook(DetVisualizationHook):
    """mmdet's DetVisualizationHook that heeds ``interval`` in testing too: every ``interval``-th photo is drawn.

    Pictures are named after the photo and its folder, so that equal file names in several folders do not overwrite each
    other's; photos are read as :class:`~mmfreq.transforms.CheckedLoadImageFromFile` reads them. Arguments as
    :class:`mmdet.engine.hooks.DetVisualizationHook`.
    """

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: dict,
                       outputs: Sequence[DetDataSample]) -> None:
        """Draws the first photo of every ``interval``-th batch."""
        step = runner.iter + batch_idx
        if self.draw and step % self.interval == 0:
            self._draw_sample(outputs[0], 'val_img', step)

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: dict,
                        outputs: Sequence[DetDataSample]) -> None:
        """Draws every ``interval``-th photo, the first one included."""
        if not self.draw:
            return
        folder = self.test_out_dir and Path(runner.work_dir, runner.timestamp, self.test_out_dir)
        for sample in outputs:
            if self._test_index % self.interval == 0:
                self._draw_sample(sample, 'test_img', self._test_index, folder)
            self._test_index += 1

    def _draw_sample(self, sample: DetDataSample, name: str, step: int, folder: Optional[Path] = None) -> None:
        path = sample.img_path
        photo = decode_image_file(fileio.get(path, backend_args=self.backend_args), path)[:, :, ::-1]
        named = '-'.join(Path(path).parts[-2:])
        self._visualizer.add_datasample(
            named if self.show else name, photo, sample, show=self.show, wait_time=self.wait_time,
            pred_score_thr=self.score_thr, out_file=str(folder / named) if folder else None, step=step)
