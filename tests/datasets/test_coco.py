"""CheckedCocoDataset refuses files whose labels would shift, and counts what it leaves out."""
import json
import logging
from pathlib import Path
from typing import Any

import pytest

import mmfreq.models.det  # noqa: F401  before anything of mmdet
from mmfreq.datasets.coco import CheckedCocoDataset
from mmfreq.errors import RefusedError

NAMES = ('box', 'disc', 'star')
MASKS = dict(pipeline=[dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True)])


def content(changed: int = 0, **change: Any) -> dict[str, Any]:
    """Annotations of 4 images, one instance of each category in each; the first few are changed."""
    annotations = [dict(id=i, image_id=i // 3, category_id=1 + i % 3, bbox=[10, 10, 40, 30],
                        area=600, segmentation=[[10, 10, 50, 10, 50, 40]]) for i in range(12)]
    for annotation in annotations[:changed]:
        annotation.update(change)
    images = [dict(id=i, file_name=f'{i}.jpg', width=100, height=80) for i in range(4)]
    categories = [dict(id=i, name=name) for i, name in enumerate(NAMES, 1)]
    return dict(images=images, annotations=annotations, categories=categories)


def dataset(folder: Path, values: dict, **arguments: Any) -> CheckedCocoDataset:
    (folder / 'changed.json').write_text(json.dumps(values))
    arguments = dict(metainfo=dict(classes=NAMES), pipeline=[]) | arguments
    return CheckedCocoDataset(ann_file=str(folder / 'changed.json'), data_prefix=dict(img=''),
                              **arguments)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    records: list[tuple] = []
    monkeypatch.setattr('mmfreq.datasets.coco.print_log', lambda *record: records.append(record))
    return records


@pytest.mark.parametrize(('values', 'classes', 'message'), [
    # labels follow the file's order: its first category would get the name of the first class
    (content(), ('star', 'box', 'disc'), 'classes star, box, disc .*order, got box, disc, star'),
    (content(), ('disc', 'box'), 'classes disc, box '),
    (content(), ('box', 'balloon'), 'classes box, balloon '),
    (content() | dict(categories=[dict(id=i, name='box') for i in (1, 2)]), NAMES, 'got box, box'),
    (content() | dict(images=2 * content()['images']), NAMES, '8 images have 4 ids'),
    (content() | dict(images=[], annotations=[]), NAMES, '0 of 0 images'),
    (content(12, image_id=9), NAMES, ' 0 of 12 annotations'),
    (content(12, segmentation=[[]]), NAMES, ' 0 of 12 annotations'),
    (content(12, iscrowd=1), NAMES, ' 0 of 12 annotations .*12 are crowds'),
])
def test_files_that_do_not_fit_are_refused(values: dict, classes: tuple, message: str,
                                           tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=f'changed.json: .*{message}'):
        dataset(tmp_path, values, metainfo=dict(classes=classes), **MASKS)
    if 'annotations' in message:  # only a training needs some
        assert len(dataset(tmp_path, values, test_mode=True, **MASKS)) == 4


def test_labels_are_the_classes_of_the_file(tmp_path: Path) -> None:
    classes = ('box', 'star')
    samples = dataset(tmp_path, content(), metainfo=dict(classes=classes))
    for info in map(samples.get_data_info, range(4)):
        assert [instance['bbox_label'] for instance in info['instances']] == [0, 1]
    assert len(dataset(tmp_path, content() | dict(annotations=[]), **MASKS)) == 4


@pytest.mark.parametrize('change', [
    dict(image_id=99), dict(category_id=99), dict(area=0), dict(bbox=[10, 10, 0.5, 20]), dict(bbox=[500, 10, 20, 20]),
    dict(segmentation=[[]]), dict(segmentation=[[10, 10, 50, 60]]), dict(segmentation=[[10, 10, 50, 10, 90, 10]]),
    dict(segmentation=[[10, 10, 50, 10, 50, 40, 10]]),
    dict(iscrowd=1), dict(iscrowd=1, area=0), dict(ignore=1)])
def test_annotations_that_are_left_out_are_counted(change: dict, tmp_path: Path, log: list) -> None:
    dataset(tmp_path, content(6, **change), **MASKS)
    (text, _, level), = log
    crowds = 'iscrowd' in change or 'ignore' in change
    assert f' 6 of 12 annotations in use, {6 * crowds} are crowds or ignored' in text
    assert level == (logging.INFO if crowds else logging.WARNING)


@pytest.mark.parametrize(('bbox', 'beyond'), [
    ([-1.5, 10, 30, 20], 0), ([-3, 10, 30, 20], 1), ([10, 10, 30, 500], 1), ([10, 10, 500, 30], 1)])
def test_boxes_beyond_the_image_are_a_warning(bbox: list, beyond: int, tmp_path: Path,
                                              log: list) -> None:
    """Such are corners (x1, y1, x2, y2) that are taken for COCO's x, y, width, height."""
    dataset(tmp_path, content(1, bbox=bbox))
    (text, _, level), = log
    assert ('1 boxes reach beyond' in text) == beyond
    assert level == (logging.WARNING if beyond else logging.INFO)
