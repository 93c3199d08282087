"""Functions of fixed lengths in place of mmdet's lists whose lengths depend on the image.

mmdet's own ``predict`` is traced. A detection or proposal that is missing has a score <= 0.
"""
import sys
from contextlib import ExitStack, contextmanager
from typing import Any, Iterator, Optional
from unittest import mock

import torch
from mmdet.models import dense_heads, roi_heads
from mmdet.models.layers import multiclass_nms
from mmdet.models.utils import filter_scores_and_topk
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from mmfreq.apis.export import swin


@contextmanager
def fixed_lengths() -> Iterator[None]:
    """Let detectors return ``max_per_img`` detections, best first, and masks that are not pasted."""
    patches = [
        (InstanceData, '__setattr__', BaseDataElement.__setattr__),  # which compares no lengths
        (dense_heads.YOLOXHead, '_bbox_post_process', best_boxes),
        (dense_heads.RPNHead, '_predict_by_feat_single', proposals),
        (dense_heads.base_dense_head.BaseDenseHead, '_bbox_post_process', best_boxes),
        (roi_heads.SingleRoIExtractor, 'forward', pooled),
        (roi_heads.FCNMaskHead, '_predict_by_feat_single', class_masks),
        *swin.PATCHES,
    ]
    for stock, function in ((filter_scores_and_topk, best_priors), (multiclass_nms, best_of_classes)):
        patches += [(module, stock.__name__, function) for name, module in [*sys.modules.items()]
                    if name.startswith('mmdet.') and vars(module).get(stock.__name__) is stock]
    with ExitStack() as stack:
        for owner, name, function in patches:
            stack.enter_context(mock.patch.object(owner, name, function))
        yield


def top(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the best scores, (count, ), -1 where there are fewer, and their places in ``scores``.

    All of them if ``count`` is not positive.
    """
    if count <= 0:
        return scores.sort(descending=True)
    last = scores.shape[0] - 1
    scores, best = F.pad(scores, (0, count), value=-1.).topk(count)
    return scores, torch.minimum(best, torch.scalar_tensor(last, dtype=torch.long))


def suppressed(boxes: Tensor, scores: Tensor, groups: Tensor, nms: dict) -> Tensor:
    """Return the scores (M, ), -1 where a box of the same group is better, as mmcv's batched_nms."""
    chosen = (scores > 0).nonzero()[:, 0]
    extent = F.pad(torch.where(scores > 0, boxes.amax(1), 0.), (0, 1)).amax(0) + 1
    shifted = boxes if nms.get('class_agnostic') else boxes + (groups * extent)[:, None]
    kept = torch.ops.torchvision.nms(shifted[chosen], scores[chosen], nms['iou_threshold'])
    is_kept = torch.zeros_like(scores).index_fill(0, chosen[kept], 1.)
    return torch.where(is_kept > 0, scores, -1.)


def _best(results: InstanceData, groups: Tensor, cfg: Any) -> InstanceData:
    """Return the best boxes after the removal of small ones and NMS."""
    boxes, scores, smallest = results.bboxes, results.scores, cfg.get('min_bbox_size', -1)
    if smallest >= 0:
        is_large = (boxes[:, 2:] - boxes[:, :2] > smallest).all(1)
        scores = torch.where(is_large, scores, -1.)
    scores, best = top(suppressed(boxes, scores, groups, cfg.nms), cfg.get('max_per_img', -1))
    return InstanceData(bboxes=boxes[best], scores=scores, labels=results.labels[best])


def proposals(self: Any, cls_score_list: list[Tensor], bbox_pred_list: list[Tensor],
              score_factor_list: list, mlvl_priors: list[Tensor], img_meta: dict, cfg: Any,
              **_: Any) -> InstanceData:
    """Replace RPNHead._predict_by_feat_single: the best proposal stands for missing ones."""
    cfg, levels = cfg or self.test_cfg, []
    for scores, deltas, priors in zip(cls_score_list, bbox_pred_list, mlvl_priors):
        scores = scores.permute(1, 2, 0).reshape(-1, self.cls_out_channels)
        scores = scores.sigmoid() if self.use_sigmoid_cls else scores.softmax(1)
        scores, best = top(scores[:, 0], cfg.get('nms_pre', -1))
        deltas = deltas.permute(1, 2, 0).reshape(-1, self.bbox_coder.encode_size)[best]
        levels.append((scores, deltas, priors[best], torch.full_like(best, len(levels))))
    scores, deltas, priors, level = map(torch.cat, zip(*levels))
    boxes = self.bbox_coder.decode(priors, deltas, max_shape=img_meta['img_shape'])
    results = InstanceData(bboxes=boxes, scores=scores, labels=torch.zeros_like(level))
    results = _best(results, level, cfg)
    results.bboxes = torch.where(results.scores[:, None] > 0, results.bboxes, results.bboxes[:1])
    return results


def best_boxes(self: Any, results: InstanceData, cfg: Any, **_: Any) -> InstanceData:
    """Replace BaseDenseHead._bbox_post_process."""
    if 'score_factors' in results:
        results.scores = results.scores * results.score_factors
    return _best(results, results.labels, cfg)


def best_priors(scores: Tensor, score_thr: float, topk: int, results: Optional[dict] = None) -> tuple:
    """Replace mmdet's filter_scores_and_topk."""
    flat, best = top(torch.where(scores > score_thr, scores, -1.).flatten(), topk)
    prior = best // scores.shape[1]
    kept = {name: value[prior] for name, value in (results or {}).items()}
    return flat, best % scores.shape[1], prior, kept


def best_of_classes(boxes: Tensor, scores: Tensor, score_thr: float, nms: dict, max_num: int = -1,
                    **_: Any) -> tuple[Tensor, Tensor]:
    """Replace mmdet's multiclass_nms."""
    scores = scores[:, :-1]
    labels = torch.arange(scores.shape[1]).expand_as(scores).flatten()
    boxes = boxes.view(len(boxes), -1, 4).expand(-1, scores.shape[1], -1).reshape(-1, 4)
    scores = torch.where(scores > score_thr, scores, -1.).flatten()
    scores, best = top(suppressed(boxes, scores, labels, nms), max_num)
    return torch.cat((boxes[best], scores[:, None]), 1), labels[best]


def pooled(self: Any, feats: tuple, rois: Tensor, roi_scale_factor: Optional[float] = None) -> Tensor:
    """Replace SingleRoIExtractor.forward, whose branches depend on the levels that have boxes."""
    levels = self.map_roi_levels(rois, len(feats))
    rois = self.roi_rescale(rois, roi_scale_factor) if roi_scale_factor else rois
    regions = feats[0].new_zeros(len(rois), self.out_channels, *self.roi_layers[0].output_size)
    for level, (layer, feature) in enumerate(zip(self.roi_layers, feats)):
        chosen = (levels == level).nonzero()[:, 0]
        part = torch.ops.torchvision.roi_align(feature, rois[chosen], layer.spatial_scale,
                                               *layer.output_size, layer.sampling_ratio, layer.aligned)
        regions = regions.index_put((chosen, ), part)
    return regions


def class_masks(self: Any, mask_preds: Tensor, labels: Tensor, **_: Any) -> Tensor:
    """Replace FCNMaskHead._predict_by_feat_single: the class's mask (K, 28, 28), not pasted."""
    index = torch.zeros_like(labels) if self.class_agnostic else labels
    return mask_preds.sigmoid()[torch.arange(len(labels)), index]
