"""Mask R-CNN end to end on demo data: training, evaluation by pycocotools, pictures, and data that does not fit."""
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from numpy.testing import assert_allclose
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmfreq.demo_data import make_demo_data

ROOT = Path(__file__).parents[1]
CONFIG = 'configs/demo/mask-rcnn_r18-dct24s_demo.py'
ENVIRONMENT = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('detection') / 'data'
    make_demo_data(folder, 'detection', train=8, val=3)
    return folder


def tool(name: str, *arguments: Any, succeeds: bool = True) -> str:
    command = [sys.executable, f'tools/{name}.py', *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=600, check=False)
    assert (done.returncode == 0) == succeeds, done.stdout[-6000:]
    return done.stdout


def options(data: Path, **others: Any) -> list[str]:
    """Two iterations of two small images, a few proposals."""
    values = {
        'train_dataloader.batch_size': 4,
        'train_cfg.max_epochs': 1,
        'train_cfg.val_interval': 1,
        'default_hooks.logger.interval': 1,
        'model.test_cfg.rcnn.score_thr': 0.0,
        'model.test_cfg.rcnn.max_per_img': 5,
        'val_evaluator.ann_file': data / 'annotations/val.json',
        'test_evaluator.ann_file': data / 'annotations/val.json',
    }
    for name in ('train', 'val', 'test'):
        prefix = f'{name}_dataloader'
        values |= {f'{prefix}.dataset.data_root': f'{data}/', f'{prefix}.num_workers': 0,
                   f'{prefix}.persistent_workers': False}
    values |= {key.replace('__', '.'): value for key, value in others.items()}
    return ['--cfg-options', *(f'{key}={value}' for key, value in values.items())]


@pytest.fixture(scope='module')
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    work_dir = tmp_path_factory.mktemp('run')
    return work_dir, tool('train', CONFIG, '--work-dir', work_dir, *options(data))


@pytest.fixture(scope='module')
def tested(data: Path, trained: tuple[Path, str]) -> tuple[dict[str, float], Path]:
    """Metrics, and the folder with the detections in COCO's format and the pictures."""
    folder = trained[0] / 'tested'
    tool('test', CONFIG, trained[0], '--work-dir', folder, '--out', folder / 'metrics.json', '--show-dir',
         folder / 'pictures', *options(data, test_evaluator__outfile_prefix=folder / 'detections'))
    return json.loads((folder / 'metrics.json').read_text()), folder


def test_two_iterations_of_training_and_a_validation(trained: tuple[Path, str]) -> None:
    file, = trained[0].glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    losses = [line for line in lines if 'loss' in line]
    assert len(losses) == 2
    parts = ('loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox', 'loss_mask')
    for line in losses:
        assert_allclose(sum(line[part] for part in parts), line['loss'], rtol=1e-4)
        assert np.isfinite(line['loss'])
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= set(lines[-1])
    assert '8 of 8 images' in trained[1]


def test_metrics_are_pycocotools_own(data: Path, tested: tuple[dict[str, float], Path]) -> None:
    metrics, folder = tested
    truth = COCO(str(data / 'annotations/val.json'))
    for kind in ('bbox', 'segm'):
        found = truth.loadRes(str(folder / f'detections.{kind}.json'))
        evaluation = COCOeval(truth, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert_allclose(metrics[f'coco/{kind}_mAP'], evaluation.stats[0], atol=1e-3)
        assert_allclose(metrics[f'coco/{kind}_mAP_50'], evaluation.stats[1], atol=1e-3)


def test_detections_lie_in_the_original_photo(data: Path, tested: tuple[dict[str, float], Path]) -> None:
    truth = COCO(str(data / 'annotations/val.json'))
    detections = json.loads((tested[1] / 'detections.segm.json').read_text())
    assert {d['image_id'] for d in detections} == set(truth.imgs)
    for detection in detections:
        image = truth.imgs[detection['image_id']]
        assert detection['segmentation']['size'] == [image['height'], image['width']]
        x, y, width, height = detection['bbox']
        assert min(x, y, width, height) >= 0
        assert x + width <= image['width'] + 1e-2
        assert y + height <= image['height'] + 1e-2


def test_pictures_are_drawn_on_the_photos(data: Path, tested: tuple[dict[str, float], Path]) -> None:
    pictures = sorted((tested[1] / 'pictures').glob('*.jpg'))
    photos = sorted((data / 'val').glob('*.jpg'))
    assert [p.name for p in pictures] == [f'val-{p.name}' for p in photos]
    for picture, file in zip(pictures, photos):
        photo, drawn = cv2.imread(str(file)), cv2.imread(str(picture))
        # ground truth on the left, predictions on the right
        assert drawn.shape == (photo.shape[0], 2 * photo.shape[1], 3)
        assert np.median(np.abs(drawn[:, :photo.shape[1]].astype(int) - photo)) < 10


def best_of(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, threshold: float) -> list[int]:
    """Non-maximum suppression written out: the boxes that no better one of their class overlaps by more."""
    kept: list[int] = []
    for i in np.argsort(-scores):
        for j in kept:
            corner = np.minimum(boxes[i, 2:], boxes[j, 2:]) - np.maximum(boxes[i, :2], boxes[j, :2])
            common = np.clip(corner, 0, None).prod()
            areas = (boxes[[i, j], 2:] - boxes[[i, j], :2]).prod(axis=1).sum()
            if labels[i] == labels[j] and common > threshold * (areas - common):
                break
        else:
            kept.append(i)
    return kept


def detections_of_both_views(work_dir: Path, truth: COCO) -> dict[int, list[tuple]]:
    """(score, class, box, mask) of each image, the best of what the model finds in the photo and in the mirrored one.

    The photo is mirrored after resizing; boxes and masks are mirrored back here.
    """
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.dataset import Compose, pseudo_collate
    from mmengine.registry import init_default_scope

    import mmfreq.models.det  # noqa: F401
    cfg = Config.fromfile(str(work_dir / Path(CONFIG).name))
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model).eval()
    model.load_state_dict(torch.load(work_dir / 'epoch_1.pth', weights_only=False)['state_dict'])
    load, resize, *rest = cfg.test_dataloader.dataset.pipeline
    found = {}
    for number, image in truth.imgs.items():
        parts = []
        for mirror in (False, True):
            path = Path(cfg.test_dataloader.dataset.data_root, 'val', image['file_name'])
            results = Compose([load, resize])(dict(img_path=str(path), img_id=number, instances=[]))
            results['img'] = cv2.flip(results['img'], 1) if mirror else results['img']
            with torch.no_grad():
                instances = model.test_step(pseudo_collate([Compose(rest)(results)]))[0].pred_instances
            boxes, masks = instances.bboxes.numpy(), instances.masks.numpy()
            if mirror:
                boxes = np.array([image['width'], 0, image['width'], 0]) - boxes * (1, -1, 1, -1)
                boxes, masks = boxes[:, [2, 1, 0, 3]], masks[:, :, ::-1]
            parts.append((instances.scores.numpy(), instances.labels.numpy(), boxes, masks))
        scores, labels, boxes, masks = (np.concatenate(part) for part in zip(*parts))
        kept = best_of(boxes, scores, labels, 0.5)
        found[number] = [(scores[i], labels[i], boxes[i], masks[i]) for i in kept]
    return found


def test_flip_augmentation_at_test_time(data: Path, trained: tuple[Path, str], tested: tuple[dict[str, float], Path],
                                        tmp_path: Path) -> None:
    tool('test', CONFIG, trained[0], '--tta', '--work-dir', tmp_path, '--out', tmp_path / 'metrics.json',
         '--show-dir', tmp_path / 'pictures', '--interval', 2,
         *options(data, test_evaluator__outfile_prefix=tmp_path / 'detections'))
    truth = COCO(str(data / 'annotations/val.json'))
    detections = json.loads((tmp_path / 'detections.segm.json').read_text())
    expected = detections_of_both_views(trained[0], truth)
    assert min(map(len, expected.values())) > 1
    for number, best in expected.items():
        made = sorted((d for d in detections if d['image_id'] == number), key=lambda d: -d['score'])
        assert len(made) == len(best)
        for detection, (score, label, box, mask) in zip(made, best):
            assert_allclose(detection['score'], score, rtol=1e-3)
            assert detection['category_id'] == truth.getCatIds()[label]
            assert_allclose(detection['bbox'], [*box[:2], *(box[2:] - box[:2])], atol=0.1)
            assert (truth.annToMask(detection) != mask).mean() < 1e-3
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= set(json.loads((tmp_path / 'metrics.json').read_text()))
    # every second of the three photos, with the same ground truth, on the left, as without augmentation
    pictures = sorted((tmp_path / 'pictures').iterdir())
    assert [picture.name for picture in pictures] == [f'val-{p.name}' for p in sorted((data / 'val').iterdir())[::2]]
    for picture in pictures:
        photo = cv2.imread(str(data / 'val' / picture.name.removeprefix('val-')))
        marks = [np.abs(cv2.imread(str(folder / picture.name))[:, :photo.shape[1]].astype(int) - photo).max(axis=2) > 60
                 for folder in (picture.parent, tested[1] / 'pictures')]  # the colours of masks are random
        assert (marks[0] & marks[1]).sum() > 0.6 * (marks[0] | marks[1]).sum() > 0


class BaseModelStub(torch.nn.Module):
    """As much of a model as a TTA model wants of the one it wraps."""

    def test_step(self) -> None:
        raise NotImplementedError


def test_merged_views_lie_in_the_photo() -> None:
    """Worked case: one object seen in the photo and, mirrored, in its flipped view, and a second one there only."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    from mmfreq.models.det import InstanceSegTTAModel

    def view(boxes: list[list[float]], scores: list[float], flip: bool) -> DetDataSample:
        masks = torch.zeros(len(boxes), 10, 20, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, np.array(boxes, int)):
            mask[y0:y1, x0:x1] = True
        sample = DetDataSample(metainfo=dict(ori_shape=(10, 20), flip=flip, flip_direction='horizontal'))
        sample.pred_instances = InstanceData(bboxes=torch.tensor(boxes), scores=torch.tensor(scores),
                                             labels=torch.zeros(len(boxes), dtype=torch.long), masks=masks)
        return sample

    model = InstanceSegTTAModel(tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=5),
                                module=BaseModelStub())
    merged = model._merge_single_sample([
        view([[1., 2., 5., 8.]], [0.6], flip=False),
        view([[15., 2., 19., 8.], [0., 0., 4., 4.]], [0.9, 0.3], flip=True),
    ]).pred_instances
    assert_allclose(merged.bboxes.numpy(), [[1, 2, 5, 8], [16, 0, 20, 4]])
    assert_allclose(merged.scores.numpy(), [0.9, 0.3])
    assert merged.masks[0].nonzero().min(0).values.tolist() == [2, 1]
    assert merged.masks[0].nonzero().max(0).values.tolist() == [7, 4]
    assert merged.masks[1].nonzero().min(0).values.tolist() == [0, 16]
    assert merged.masks.flatten(1).sum(1).tolist() == [24, 16]


def test_multi_scale_training_and_resume(data: Path, trained: tuple[Path, str], tmp_path: Path) -> None:
    for name in ('epoch_1.pth', 'last_checkpoint'):
        (tmp_path / name).symlink_to(trained[0] / name)
    multi_scale = {'train_dataloader__dataset__pipeline__2__type': 'RandomResize',
                   'train_dataloader__dataset__pipeline__2__scale': '[(128,96),(160,120)]'}
    output = tool('train', CONFIG, '--work-dir', tmp_path, '--resume', '--no-validate',
                  *options(data, train_cfg__max_epochs=2, **multi_scale))
    assert 'resumed epoch: 1' in output
    assert (tmp_path / 'epoch_2.pth').is_file()


def changed(data: Path, tmp_path: Path, **changes: Any) -> Path:
    """The path of a copy of the training annotations with some top-level keys replaced."""
    content = json.loads((data / 'annotations/train.json').read_text())
    path = tmp_path / 'changed.json'
    path.write_text(json.dumps({**content, **changes}))
    return path


def dataset(data: Path, ann_file: Path, **arguments: Any) -> Any:
    from mmfreq.models.det import CheckedCocoDataset
    classes = arguments.pop('classes', ('box', 'disc', 'star'))
    return CheckedCocoDataset(ann_file=str(ann_file), data_root=str(data), data_prefix=dict(img='train'),
                              metainfo=dict(classes=classes), **{'pipeline': [], **arguments})


def test_annotations_without_images_are_named(data: Path, tmp_path: Path) -> None:
    path = changed(data, tmp_path, images=[], annotations=[])
    with pytest.raises(ValueError, match=f'{path.name}.*got none of its 0'):
        dataset(data, path)


def test_all_images_filtered_out_is_an_error(data: Path) -> None:
    with pytest.raises(ValueError, match="train.json.*got none of its 8.*'min_size': 4000"):
        dataset(data, data / 'annotations/train.json', filter_cfg=dict(min_size=4000))


def test_categories_that_do_not_fit_are_named(data: Path) -> None:
    with pytest.raises(ValueError, match=r'train\.json: expected a category for each of the 2 classes box, balloon'):
        dataset(data, data / 'annotations/train.json', classes=('box', 'balloon'))


@pytest.mark.parametrize('classes', [('star', 'box', 'disc'), ('disc', 'box')])
def test_classes_in_another_order_than_the_files_are_refused(data: Path, classes: tuple[str, ...]) -> None:
    """Labels follow the file's order: its first category would bear the name of the first class."""
    with pytest.raises(ValueError, match=rf'train\.json: .* classes {", ".join(classes)}, in this order, found box, '
                       'disc, star;'):
        dataset(data, data / 'annotations/train.json', classes=classes)


def test_labels_are_the_classes_of_the_file(data: Path) -> None:
    content = json.loads((data / 'annotations/train.json').read_text())
    names = {category['id']: category['name'] for category in content['categories']}
    classes = ('box', 'star')
    made = dataset(data, data / 'annotations/train.json', classes=classes)
    for info in map(made.get_data_info, range(len(made))):
        expected = [names[a['category_id']] for a in content['annotations'] if a['image_id'] == info['img_id']]
        found = [classes[instance['bbox_label']] for instance in info['instances']]
        assert found == [name for name in expected if name in classes]


def test_categories_of_one_name_are_refused(data: Path, tmp_path: Path) -> None:
    path = changed(data, tmp_path, categories=[dict(id=i, name='box') for i in range(1, 4)])
    with pytest.raises(ValueError, match='found box, box, box;'):
        dataset(data, path)


def test_missing_annotation_file_is_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='absent.json'):
        dataset(data, tmp_path / 'absent.json')


def test_images_without_instances_and_crowds(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = json.loads((data / 'annotations/train.json').read_text())
    first = content['images'][0]['id']
    annotations = [{**a, 'iscrowd': int(a['image_id'] == 2)} for a in content['annotations'] if a['image_id'] != first]
    path = changed(data, tmp_path, annotations=annotations)
    kept = dataset(data, path, filter_cfg=dict(filter_empty_gt=True))
    assert len(kept) == 7
    assert len(dataset(data, path)) == 8
    flags = {info['ignore_flag'] for i in range(7) for info in kept.get_data_info(i)['instances']
             if kept.get_data_info(i)['img_id'] == 2}
    assert flags == ({1} if any(a['image_id'] == 2 for a in annotations) else set())


def summary(caplog: pytest.LogCaptureFixture) -> logging.LogRecord:
    """The one record of a data set's counts."""
    record, = (record for record in caplog.records if 'annotations in use' in record.getMessage())
    return record


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


# What makes mmdet leave an annotation out without a word.
DROPPED = {
    'no area': dict(area=0),
    'under a pixel': dict(bbox=[10, 10, 0.5, 20]),
    'outside': dict(bbox=[5000, 10, 20, 20]),
    'category': dict(category_id=99),
}


@pytest.mark.parametrize('change', DROPPED.values(), ids=DROPPED)
def test_dropped_annotations_are_a_warning(data: Path, tmp_path: Path, said: pytest.LogCaptureFixture,
                                           change: dict) -> None:
    annotations = json.loads((data / 'annotations/train.json').read_text())['annotations']
    annotations[3] |= change
    dataset(data, changed(data, tmp_path, annotations=annotations))
    record = summary(said)
    assert f'{len(annotations) - 1} of {len(annotations)} annotations in use' in record.getMessage()
    assert '1 dropped' in record.getMessage()
    assert record.levelno == logging.WARNING


@pytest.mark.parametrize('test_mode', [False, True])
@pytest.mark.parametrize('change', DROPPED.values(), ids=DROPPED)
def test_no_annotation_to_train_on_is_an_error(data: Path, tmp_path: Path, change: dict, test_mode: bool) -> None:
    annotations = json.loads((data / 'annotations/train.json').read_text())['annotations']
    path = changed(data, tmp_path, annotations=[a | change for a in annotations])
    if test_mode:
        assert len(dataset(data, path, test_mode=True)) == 8
    else:
        with pytest.raises(ValueError, match=rf'changed\.json: .* none of its {len(annotations)}'):
            dataset(data, path)


@pytest.mark.parametrize('change', [dict(), dict(iscrowd=1), dict(iscrowd=1, area=0), dict(ignore=1)])
def test_crowds_and_ignored_annotations_are_not_missed(data: Path, tmp_path: Path, said: pytest.LogCaptureFixture,
                                                       change: dict) -> None:
    annotations = json.loads((data / 'annotations/train.json').read_text())['annotations']
    annotations[3] |= change
    dataset(data, changed(data, tmp_path, annotations=annotations))
    assert summary(said).levelno == logging.INFO


def test_images_without_any_annotation_are_no_error(data: Path, tmp_path: Path) -> None:
    assert len(dataset(data, changed(data, tmp_path, annotations=[]))) == 8


@pytest.mark.parametrize('segmentation', [None, [], 'absent'])
def test_annotation_without_a_mask_is_named_where_masks_are_loaded(data: Path, tmp_path: Path,
                                                                   segmentation: Any) -> None:
    from mmdet.datasets.transforms import LoadAnnotations
    annotations = json.loads((data / 'annotations/train.json').read_text())['annotations']
    bare = annotations[3]
    bare['segmentation'] = segmentation
    if segmentation == 'absent':
        del bare['segmentation']
    path = changed(data, tmp_path, annotations=annotations)
    with pytest.raises(ValueError, match=rf'changed\.json: .*annotation {bare["id"]} of image {bare["image_id"]} has'):
        dataset(data, path, pipeline=[LoadAnnotations(with_bbox=True, with_mask=True)])
    boxes = dataset(data, path, pipeline=[LoadAnnotations(with_bbox=True)])
    assert sum(len(boxes[i]['gt_bboxes']) for i in range(len(boxes))) == len(annotations)


def test_unreadable_image_stops_training_and_is_named(data: Path, tmp_path: Path) -> None:
    images = tmp_path / 'images'
    images.mkdir()
    for photo in (data / 'train').glob('*.jpg'):
        (images / photo.name).write_bytes(photo.read_bytes())
    broken = sorted(images.iterdir())[0]
    broken.write_bytes(b'')
    output = tool('train', CONFIG, '--work-dir', tmp_path / 'run', *options(
        data, train_dataloader__dataset__data_prefix__img=images), succeeds=False)
    assert f'{broken}: cannot be decoded as an image: the file is empty' in output


def test_wrong_number_of_classes_stops_training(data: Path, tmp_path: Path) -> None:
    output = tool('train', CONFIG, '--work-dir', tmp_path, *options(
        data, model__roi_head__bbox_head__num_classes=5), succeeds=False)
    assert 'num_classes' in output.splitlines()[-1]


def test_image_smaller_than_a_block_goes_through(tmp_path: Path) -> None:
    from mmcv.transforms import Compose
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    import mmfreq.models.det  # noqa: F401
    init_default_scope('mmdet')
    cv2.imwrite(str(tmp_path / 'tiny.png'), np.full((3, 5, 3), 90, np.uint8))
    pipeline = Config.fromfile(str(ROOT / CONFIG)).test_pipeline
    out = Compose(pipeline)(dict(img_path=str(tmp_path / 'tiny.png'), img_id=0, height=3, width=5, instances=[]))
    height, width = out['data_samples'].img_shape
    assert (height, width) == (154, 256)
    assert out['inputs'].shape == (24, -(-2 * height // 8), 64)
