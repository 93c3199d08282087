"""Run Mask R-CNN end to end on demo data; check the evaluation by pycocotools and data that does not fit."""
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import cv2
import numpy as np
import pytest
from mmengine.logging import MMLogger
from numpy.testing import assert_allclose
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tool_runs import ROOT, detector_options, flags, tool

from demo import make_demo_data
from mmfreq.datasets.coco import has_area

CONFIG = 'configs/demo/mask-rcnn_r18-dct24s_demo.py'


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('detection') / 'data'
    make_demo_data(folder, 'detection', train=8, val=3)
    return folder


def options(data: Path, **others: Any) -> list[str]:
    """Two iterations of two small images, a few proposals."""
    values = detector_options(data) | {
        'train_cfg.max_epochs': 1,
        'train_cfg.val_interval': 1,
        'model.test_cfg.rcnn.score_thr': 0.0,
        'model.test_cfg.rcnn.max_per_img': 5,
    }
    return flags(values | {key.replace('__', '.'): value for key, value in others.items()})


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
    assert '8 of 8 images' in next(trained[0].glob('*/*.log')).read_text()
    assert 'coco/bbox_mAP ' in trained[1].splitlines()[-2]


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


def test_detections_lie_in_the_original_image(data: Path, tested: tuple[dict[str, float], Path]) -> None:
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


def test_pictures_are_drawn_on_the_images(data: Path, tested: tuple[dict[str, float], Path]) -> None:
    pictures = sorted((tested[1] / 'pictures').iterdir())
    photos = sorted((data / 'val').glob('*.jpg'))
    assert [p.name for p in pictures] == [f'{i}-val-{p.stem}_0.png' for i, p in enumerate(photos)]
    for picture, file in zip(pictures, photos):
        photo, drawn = cv2.imread(str(file)), cv2.imread(str(picture))
        # ground truth on the left, predictions on the right
        assert drawn.shape == (photo.shape[0], 2 * photo.shape[1], 3)
        assert np.median(np.abs(drawn[:, :photo.shape[1]].astype(int) - photo)) < 10


def test_multi_scale_training_and_resume(data: Path, trained: tuple[Path, str], tmp_path: Path) -> None:
    for name in ('epoch_1.pth', 'last_checkpoint'):
        (tmp_path / name).symlink_to(trained[0] / name)
    multi_scale = {'train_dataloader__dataset__pipeline__2__type': 'RandomResize',
                   'train_dataloader__dataset__pipeline__2__scale': '[(128,96),(160,120)]'}
    output = tool('train', CONFIG, '--work-dir', tmp_path, '--resume', '--no-validate', '--verbose',
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
    from mmfreq.datasets.coco import CheckedCocoDataset
    classes = arguments.pop('classes', ('box', 'disc', 'star'))
    return CheckedCocoDataset(ann_file=str(ann_file), data_root=str(data), data_prefix=dict(img='train'),
                              metainfo=dict(classes=classes), **{'pipeline': [], **arguments})


SAME_NAMES = [dict(id=i, name='box') for i in range(1, 4)]


@pytest.mark.parametrize(('changes', 'arguments', 'message'), [
    (dict(images=[], annotations=[]), dict(), 'changed.json.* 0 of 0 images'),
    (dict(), dict(filter_cfg=dict(min_size=4000)), "changed.json: 0 of 8 images.*'min_size': 4000"),
    (dict(), dict(classes=('box', 'balloon')), 'expected a category for each of the 2 classes box, balloon'),
    # labels follow the file's order: its first category would bear the name of the first class
    (dict(), dict(classes=('star', 'box', 'disc')), 'classes star, box, disc, in this order, found box, disc, star;'),
    (dict(), dict(classes=('disc', 'box')), 'classes disc, box, in this order, found box, disc, star;'),
    (dict(categories=SAME_NAMES), dict(), 'found box, box, box;'),
])
def test_files_that_do_not_fit_are_refused(data: Path, tmp_path: Path, changes: dict, arguments: dict,
                                           message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataset(data, changed(data, tmp_path, **changes), **arguments)


def test_labels_are_the_classes_of_the_file(data: Path) -> None:
    content = json.loads((data / 'annotations/train.json').read_text())
    names = {category['id']: category['name'] for category in content['categories']}
    classes = ('box', 'star')
    made = dataset(data, data / 'annotations/train.json', classes=classes)
    for info in map(made.get_data_info, range(len(made))):
        expected = [names[a['category_id']] for a in content['annotations'] if a['image_id'] == info['img_id']]
        found = [classes[instance['bbox_label']] for instance in info['instances']]
        assert found == [name for name in expected if name in classes]


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


# What leaves an annotation without anything to train on, where masks are loaded or not.
DROPPED = {
    'no area': dict(area=0),
    'under a pixel': dict(bbox=[10, 10, 0.5, 20]),
    'outside': dict(bbox=[5000, 10, 20, 20]),
    'category': dict(category_id=99),
    'empty polygon': dict(segmentation=[[]]),
    'two points': dict(segmentation=[[10, 10, 50, 60]]),
    'no height': dict(segmentation=[[10, 10, 50, 10, 90, 10]]),
}
MASKS = dict(pipeline=[dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True)])


@pytest.mark.parametrize('change', DROPPED.values(), ids=DROPPED)
def test_dropped_annotations_are_a_warning(data: Path, tmp_path: Path, said: pytest.LogCaptureFixture,
                                           change: dict) -> None:
    annotations = json.loads((data / 'annotations/train.json').read_text())['annotations']
    annotations[3] |= change
    dataset(data, changed(data, tmp_path, annotations=annotations), **MASKS)
    record = summary(said)
    assert f'{len(annotations) - 1} of {len(annotations)} annotations in use' in record.getMessage()
    assert '1 dropped' in record.getMessage()
    assert record.levelno == logging.WARNING


@pytest.mark.parametrize(('bbox', 'beyond'), [
    ([-1.5, 10, 30, 20], 0), ([-3, 10, 30, 20], 1), ([10, 10, 30, 1000], 1), ([10, 10, 1000, 30], 1)])
def test_boxes_beyond_the_image_are_a_warning(data: Path, tmp_path: Path, said: pytest.LogCaptureFixture,
                                              bbox: list[float], beyond: int) -> None:
    """As of corners (x1, y1, x2, y2) that are taken for COCO's x, y, width, height."""
    annotations = json.loads((data / 'annotations/train.json').read_text())['annotations']
    annotations[3]['bbox'] = bbox
    dataset(data, changed(data, tmp_path, annotations=annotations))
    assert ('; 1 boxes reach beyond their image' in summary(said).getMessage()) == bool(beyond)
    assert summary(said).levelno == (logging.WARNING if beyond else logging.INFO)


@pytest.mark.parametrize(('text', 'message'), [
    ('', 'Expecting value'), ('{"images": [', 'Expecting value'), ('[]', 'list'), (None, "an entry without 'id'")])
def test_files_that_are_no_annotations_are_named(text: Optional[str], message: str, data: Path,
                                                 tmp_path: Path) -> None:
    if text is None:
        content = json.loads((data / 'annotations/train.json').read_text())
        del content['annotations'][3]['id']
        text = json.dumps(content)
    (tmp_path / 'odd.json').write_text(text)
    with pytest.raises(ValueError, match=f'odd.json: cannot be read as annotations in COCO.s format: .*{message}'):
        dataset(data, tmp_path / 'odd.json')


def test_annotations_of_unknown_images_are_counted(data: Path, tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    annotations = json.loads((data / 'annotations/train.json').read_text())['annotations']
    annotations[3]['image_id'] = 10**6
    dataset(data, changed(data, tmp_path, annotations=annotations))
    record = summary(said)
    assert f'{len(annotations) - 1} of {len(annotations)} annotations in use' in record.getMessage()
    assert record.levelno == logging.WARNING


def test_an_annotation_id_that_is_there_twice(data: Path, tmp_path: Path) -> None:
    """COCO's evaluation would take the last one for all of them."""
    annotations = json.loads((data / 'annotations/train.json').read_text())['annotations']
    with pytest.raises(ValueError, match=r'changed.json: expected every annotation id once, got \[1, 2'):
        dataset(data, changed(data, tmp_path, annotations=annotations * 2))


@pytest.mark.parametrize('segmentation', ['abc', {}, dict(counts=[3, 4])])
def test_segmentations_that_are_none(segmentation: Any) -> None:
    with pytest.raises(TypeError, match='as segmentation instead of a list of polygons or RLE'):
        has_area(segmentation)


def test_an_image_id_that_is_there_twice(data: Path, tmp_path: Path) -> None:
    images = json.loads((data / 'annotations/train.json').read_text())['images']
    images[1]['id'] = images[0]['id']
    with pytest.raises(ValueError, match=rf"changed.json: expected every image id once, got \[{images[0]['id']}\]"):
        dataset(data, changed(data, tmp_path, images=images))


@pytest.mark.parametrize('test_mode', [False, True])
@pytest.mark.parametrize('change', [*DROPPED.values(), dict(iscrowd=1), dict(ignore=1)])
def test_no_annotation_to_train_on_is_an_error(data: Path, tmp_path: Path, change: dict, test_mode: bool) -> None:
    annotations = json.loads((data / 'annotations/train.json').read_text())['annotations']
    path = changed(data, tmp_path, annotations=[a | change for a in annotations])
    if test_mode:
        assert len(dataset(data, path, test_mode=True, **MASKS)) == 8
    else:
        with pytest.raises(ValueError, match=rf'changed\.json: .* 0 of {len(annotations)} annotations in use'):
            dataset(data, path, **MASKS)


@pytest.mark.parametrize('change', [dict(), dict(iscrowd=1), dict(iscrowd=1, area=0), dict(ignore=1)])
def test_crowds_and_ignored_annotations_are_not_missed(data: Path, tmp_path: Path, said: pytest.LogCaptureFixture,
                                                       change: dict) -> None:
    annotations = json.loads((data / 'annotations/train.json').read_text())['annotations']
    annotations[3] |= change
    dataset(data, changed(data, tmp_path, annotations=annotations))
    assert summary(said).levelno == logging.INFO


def test_images_without_any_annotation_are_no_error(data: Path, tmp_path: Path) -> None:
    assert len(dataset(data, changed(data, tmp_path, annotations=[]))) == 8


@pytest.mark.parametrize(('key', 'value', 'message'), [
    ('segmentation', None, "has no 'mask'"), ('segmentation', [], "has no 'mask'"),
    ('segmentation', 'absent', "has no 'mask'"), ('segmentation', [10, 10, 50, 60, 90, 10], 'has a flat list'),
    ('bbox', None, 'has '), ('bbox', [1, 2, 3], 'has '), ('bbox', 'absent', "has no 'bbox'"),
    ('area', 'absent', "has no 'area'")])
def test_an_annotation_that_is_not_as_coco_has_it_is_named(data: Path, tmp_path: Path, key: str, value: Any,
                                                           message: str) -> None:
    annotations = json.loads((data / 'annotations/train.json').read_text())['annotations']
    bad = annotations[3]
    bad[key] = value
    if value == 'absent':
        del bad[key]
    path = changed(data, tmp_path, annotations=annotations)
    where = rf'changed\.json: annotation {bad["id"]} of image {bad["image_id"]} '
    with pytest.raises(ValueError, match=where + message):
        dataset(data, path, **MASKS)
    if key == 'segmentation':
        boxes = dataset(data, path, pipeline=[dict(type='mmdet.LoadAnnotations', with_bbox=True)])
        assert sum(len(boxes[i]['gt_bboxes']) for i in range(len(boxes))) == len(annotations)


def test_an_image_without_a_width_is_named(data: Path, tmp_path: Path) -> None:
    images = json.loads((data / 'annotations/train.json').read_text())['images']
    del images[2]['width']
    with pytest.raises(ValueError, match=rf"changed\.json: image {images[2]['id']} has no 'width'"):
        dataset(data, changed(data, tmp_path, images=images))


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
