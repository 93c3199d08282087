"""A config for own data: what is found, what is written, what is refused."""
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from numpy.testing import assert_allclose

from mmfreq.apis.dataset_stats import dataset_statistics
from mmfreq.apis.new_config.data import _size, find_data
from mmfreq.apis.new_config.write import _set_schedule, write_config
from mmfreq.apis.predict import find_images
from mmfreq.config.paths import config_path
from mmfreq.config.writer import plain_config
from mmfreq.dct.stats import load_stats
from mmfreq.files import full_path

ROOT = Path(__file__).parents[2]
SMALL = 'mmfreq::demo/resnet18-dct24s_demo.py'
DETECTION = 'mmfreq::faster_rcnn/faster-rcnn_r50-dct24s_fpn_1x_coco.py'
MASKS = 'mmfreq::demo/mask-rcnn_r18-dct24s_demo.py'


def write_images(folder: Path, count: int, suffix: str = 'png') -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        noise = np.random.default_rng(i).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f'{i}.{suffix}'), noise)


def folders(root: Path, **counts: int) -> Path:
    for name, count in counts.items():
        write_images(root / name.replace('__', '/'), count)
    return root


def coco(root: Path, counts: dict[str, list[str]], file: str = 'train', **changes: Any) -> Path:
    """A COCO file in annotations/: images with one box of each category that is listed for them."""
    write_images(root / file, len(counts))
    names = ['cat', 'dog', 'nothing']
    content = dict(images=[], annotations=[], categories=[
        dict(id=3 * i + 1, name=name) for i, name in enumerate(names)])
    for i, (image, found) in enumerate(counts.items()):
        content['images'].append(dict(id=i, file_name=image, width=60, height=40))
        for name in found:
            box = [5., 5., 30., 20.]
            content['annotations'].append(dict(
                id=len(content['annotations']), image_id=i, bbox=box, area=600., iscrowd=0,
                category_id=3 * names.index(name) + 1,
                segmentation=[[5., 5., 35., 5., 35., 25.]]))
    (root / 'annotations').mkdir(exist_ok=True)
    (root / f'annotations/{file}.json').write_text(json.dumps({**content, **changes}))
    return root


def classes_of(cfg: Config, loader: str) -> list[tuple[str, int]]:
    """What the host's own data set reads: name of each image's folder, and its label."""
    init_default_scope('mmpretrain')
    dataset = DATASETS.build(cfg[loader].dataset)
    samples = [dataset.get_data_info(i) for i in range(len(dataset))]
    return [(Path(sample['img_path']).parent.name, sample['gt_label']) for sample in samples]


def test_numbered_folders_have_one_order_in_both_splits(tmp_path: Path) -> None:
    """A broken image turns train into a list; the host numbers the folders of val by their names as text."""
    counts = {f'{split}__{name}': 4 for split in ('train', 'val') for name in ('1', '2', '10')}
    data = folders(tmp_path / 'data', **counts)
    (data / 'train/2/0.png').write_bytes(b'broken')
    write_config(SMALL, str(data), tmp_path / 'own.py')
    cfg = Config.fromfile(str(tmp_path / 'own.py'))
    labels = [dict(classes_of(cfg, f'{split}_dataloader')) for split in ('train', 'val')]
    assert labels[0] == labels[1] == {'1': 0, '10': 1, '2': 2}
    assert cfg.train_dataloader.dataset.metainfo.classes == ['1', '10', '2']


def csv_list(root: Path, line: str) -> Path:
    """A list of 12 images with a header; ``line`` stands for the first of them."""
    folders(root, a=6, b=6)
    rest = [f'{name}/{i}.png,{name},{part}' for name in 'ab' for i, part in enumerate(['train'] * 4 + ['val'])]
    (root / 'list.csv').write_text('\n'.join(['file,label,split', line, *rest[1:]]))
    return root / 'list.csv'


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="line 2: expected a split of .*, got 'dev'"):
        find_data(csv_list(tmp_path, 'a/0.png,a,dev'))


def test_an_image_that_is_missing_is_named(tmp_path: Path) -> None:
    assert 'a/none.png' in str(find_data(csv_list(tmp_path, 'a/none.png,a,train')).notes)


def test_class_folders_with_a_split(tmp_path: Path) -> None:
    data = folders(tmp_path / 'data', train__b=12, train__a=8, val__a=2, val__b=3)
    write_config(SMALL, str(data), tmp_path / 'own.py')
    assert {path.name for path in tmp_path.iterdir()} == {'data', 'own.py'}
    cfg = Config.fromfile(str(tmp_path / 'own.py'))
    assert sorted(classes_of(cfg, 'train_dataloader')) == [('a', 0)] * 8 + [('b', 1)] * 12
    assert sorted(classes_of(cfg, 'val_dataloader')) == [('a', 0)] * 2 + [('b', 1)] * 3
    assert cfg.test_dataloader == cfg.val_dataloader
    assert (cfg.model.head.num_classes, cfg.data_preprocessor.num_classes) == (2, 2)
    stock = Config.fromfile(str(ROOT / 'configs/demo/resnet18-dct24s_demo.py'))
    assert cfg.train_dataloader.dataset.pipeline == stock.train_dataloader.dataset.pipeline
    assert cfg.val_dataloader.dataset.pipeline == stock.val_dataloader.dataset.pipeline
    text = (tmp_path / 'own.py').read_text()
    assert 'pipeline' not in text
    assert 'test_dataloader = val_dataloader' in text
    assert text.count(str(data)) == 2  # in the comment and in data_root


def test_a_missing_split_is_stratified_fixed_and_listed(tmp_path: Path) -> None:
    data = folders(tmp_path / 'data', a=20, b=10, c=2)
    (data / 'a/broken.jpg').write_bytes(b'no image')
    for name in ('one', 'two'):
        notes = write_config(SMALL, str(data), tmp_path / f'{name}.py')
    assert 'unreadable, left out: a/broken.jpg' in notes
    lists = {}
    for split in ('train', 'val'):
        lists[split], again = ((tmp_path / f'{name}-{split}.txt').read_text().splitlines()
                               for name in ('one', 'two'))
        assert lists[split] == again
    assert sorted(line.split('/')[0] for line in lists['val']) == ['a'] * 4 + ['b'] * 2 + ['c']
    every = {line.rsplit(' ', 1)[0] for part in lists.values() for line in part}
    assert len(every) == 32
    assert every == {path.relative_to(data).as_posix() for path in data.rglob('*.png')}
    assert 'pipeline=_base_.train_pipeline' in (tmp_path / 'one.py').read_text()
    moved = tmp_path / 'moved'
    moved.mkdir()
    for file in tmp_path.glob('one*'):
        file.rename(moved / file.name)
    cfg = Config.fromfile(str(moved / 'one.py'))  # lists go with their config
    assert sorted(set(classes_of(cfg, 'val_dataloader'))) == [('a', 0), ('b', 1), ('c', 2)]


@pytest.mark.parametrize(('name', 'text'), [
    ('all.csv', 'filename,size,Label,split\n{}'), ('all.txt', None)])
def test_lists(name: str, text: Any, tmp_path: Path) -> None:
    folders(tmp_path, photos=12)
    rows = [(f'photos/{i}.png', 'left' if i % 3 else 'right hand', 'val' if i > 8 else 'train')
            for i in range(12)]
    if text:
        text = text.format(''.join(f'{file},9,"{label}",{part}\n' for file, label, part in rows))
    else:
        text = ''.join(f'{file} {label.split()[0]}\n' for file, label, _ in rows)
    (tmp_path / name).write_text(text)
    data = find_data(str(tmp_path / name))
    assert data.classes == (['left', 'right hand'] if name == 'all.csv' else ['left', 'right'])
    if name == 'all.csv':
        assert data.splits['val'].images == [f'photos/{i}.png' for i in (9, 10, 11)]
    assert {name: len(split.images) for name, split in data.splits.items()} == (
        {'train': 9, 'val': 3} if name == 'all.csv' else {'train': 9, 'val': 3})
    write_config(SMALL, str(tmp_path / name), tmp_path / 'own.py')
    cfg = Config.fromfile(str(tmp_path / 'own.py'))
    assert {label for _, label in classes_of(cfg, 'train_dataloader')} == {0, 1}


def test_rate_and_schedule_follow(tmp_path: Path) -> None:
    data = folders(tmp_path / 'data', a=20, b=20)
    config = 'mmfreq::resnet/resnet50-dct24s_8xb32_in1k.py'
    write_config(config, str(data), tmp_path / 'own.py', batch_size=16, epochs=10, weights='stock')
    cfg = Config.fromfile(str(tmp_path / 'own.py'))
    assert cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 16
    assert_allclose(cfg.optim_wrapper.optimizer.lr, 0.1 * 16 / 256)
    assert cfg.param_scheduler.milestones == [3, 6, 9]
    assert cfg.train_cfg.max_epochs == 10
    assert cfg.model.head.topk == cfg.val_evaluator.topk == (1, )
    assert 'resnet50_8xb32_in1k' in cfg.load_from
    assert cfg.default_hooks.checkpoint.save_best == 'auto'
    write_config('mmfreq::demo/resnet18-dct192-gate_demo.py', str(data), tmp_path / 'few.py')
    few = Config.fromfile(str(tmp_path / 'few.py'))
    assert few.train_dataloader.batch_size == 8
    assert 'save_best' not in few.default_hooks.checkpoint  # of all epochs, the last one has the target


@pytest.mark.parametrize(('config', 'warm_up', 'main'), [
    ('mmpretrain::resnet/resnet50_8xb256-rsb-a3-100e_in1k.py', (False, 0, 6), (0, 1, 1)),
    ('mmpretrain::resnet/resnet50_32xb64-warmup-coslr_in1k.py', (False, 0, 6), (0, 1, 1)),
    ('mmfreq::swin_transformer/swin-tiny-dct24s_16xb64_in1k.py', (False, 0, 6), (0, None, None)),
    ('mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py', (False, 0, 6), (0, 1, None))])
def test_one_epoch_is_not_all_warm_up(config: str, warm_up: tuple, main: tuple) -> None:
    target = plain_config(config_path(config))
    target['train_dataloader']['batch_size'] = 1
    _set_schedule(target, 60, 1)
    first, second = target['param_scheduler']
    assert (first.get('by_epoch', True), first.get('begin', 0), first['end']) == warm_up
    assert (second.get('begin', 0), second.get('end'), second.get('T_max')) == main


def test_warm_up_and_what_follows_fill_few_epochs() -> None:
    target = plain_config(config_path('mmpretrain::resnet/resnet50_32xb64-warmup-coslr_in1k.py'))
    _set_schedule(target, 60, 10)
    first, second = target['param_scheduler']
    assert (first['by_epoch'], first['end'], second['begin'], second['end'], second['T_max']) == (True, 1, 1, 10, 9)


def test_folders_and_images_that_are_links(tmp_path: Path) -> None:
    folders(tmp_path / 'real', one=3, two__deep=3)
    (tmp_path / 'data/two').mkdir(parents=True)
    (tmp_path / 'data/one').symlink_to(tmp_path / 'real/one')
    (tmp_path / 'data/two/inner').symlink_to(tmp_path / 'real/two')
    (tmp_path / 'real/two/circle').symlink_to(tmp_path / 'real/two')
    found = find_data(str(tmp_path / 'data'))
    images = [image for split in found.splits.values() for image in split.images]
    assert sorted(images) == [f'{part}/{i}.png' for part in ('one', 'two/inner/deep') for i in range(3)]
    assert len(find_images([str(tmp_path / 'data')], str(tmp_path / 'out'))) == 6


@pytest.mark.parametrize('shape', [(1, 1), (2, 400), (7, 7)])
def test_small_images_are_images(shape: tuple[int, int], tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / 'x.png'), np.zeros((*shape, 3), np.uint8))
    assert _size(tmp_path / 'x.png') == shape[::-1]


def test_paths_are_written_without_dots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders(tmp_path / 'data', a=2, b=2)
    (tmp_path / 'here').mkdir()
    (tmp_path / 'x.pth').touch()
    (tmp_path / 'far/er').mkdir(parents=True)
    (tmp_path / 'here/link').symlink_to(tmp_path / 'far/er')
    monkeypatch.chdir(tmp_path / 'here')
    write_config(SMALL, '../data', Path('../here/own.py'), weights='../x.pth')
    text = Path('own.py').read_text()
    assert '..' not in text
    assert f"data_root = '{tmp_path}/data'" in text
    assert f"load_from = '{tmp_path}/x.pth'" in text
    assert full_path('link/../x') == tmp_path / 'far/x'
    assert full_path('link/x') == tmp_path / 'here/link/x'


def test_text_in_another_encoding_and_folders_with_quotes(tmp_path: Path) -> None:
    data = folders(tmp_path / 'data', a=2, b=2)
    with pytest.raises(ValueError, match="--out: .*it's: mmengine takes no quotes"):
        write_config(SMALL, str(data), tmp_path / "it's/own.py")
    (data / 'list.csv').write_bytes('0.png,a\n'.encode('utf-16'))
    with pytest.raises(ValueError, match='list.csv: expected text in UTF-8: '):
        find_data(str(data / 'list.csv'))


def test_coco(tmp_path: Path) -> None:
    data = coco(tmp_path / 'data', {f'{i}.png': ['dog', 'cat'][:1 + i % 2] for i in range(10)})
    coco(data, {'0.png': ['cat'], '1.png': ['dog']}, 'val')
    notes = write_config(DETECTION, str(data), tmp_path / 'own.py')
    assert 'categories without annotations, left out: nothing' in notes
    cfg = Config.fromfile(str(tmp_path / 'own.py'))
    init_default_scope('mmdet')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert len(dataset) == 10
    assert dataset.metainfo['classes'] == ['cat', 'dog']
    assert Path(dataset.get_data_info(0)['img_path']).is_file()
    assert cfg.model.roi_head.bbox_head.num_classes == 2
    assert cfg.val_evaluator.ann_file == f'{data}/annotations/val.json'
    assert cfg.model.backbone.init_cfg is None  # the classifier of the recipe is not there
    assert cfg.model.backbone.frozen_stages == -1
    assert 'faster_rcnn_r50_fpn_1x_coco' in cfg.load_from
    iterations = 12 * 10 / 2
    assert cfg.param_scheduler[0].end == iterations / 10  # the recipe's 500 would never end


def test_coco_without_a_split(tmp_path: Path) -> None:
    data = coco(tmp_path / 'data', {f'{i}.png': ['dog', 'cat'][:1 + (i < 5)] for i in range(20)})
    write_config(MASKS, str(data / 'annotations/train.json'), tmp_path / 'own.py')
    parts = {}
    for split in ('train', 'val'):
        content = json.loads((tmp_path / f'own-{split}.json').read_text())
        parts[split] = {image['file_name'] for image in content['images']}
        assert {entry['image_id'] for entry in content['annotations']} == {
            image['id'] for image in content['images']}
    assert (len(parts['train']), len(parts['val'])) == (16, 4)
    assert len(parts['val'] & {f'{i}.png' for i in range(5)}) == 1  # of those with a cat
    cfg = Config.fromfile(str(tmp_path / 'own.py'))
    init_default_scope('mmdet')
    assert len(DATASETS.build(cfg.val_dataloader.dataset)) == 4
    assert cfg.val_evaluator.ann_file == str(tmp_path / 'own-val.json')


def test_statistics_are_those_of_the_data(tmp_path: Path) -> None:
    data = folders(tmp_path / 'data', train__a=2, train__b=2, val__a=1, val__b=1)
    write_config(SMALL, str(data), tmp_path / 'own.py', stats=True)
    cfg = Config.fromfile(str(tmp_path / 'own.py'))
    file = str(tmp_path / 'own-stats.json')
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        assert cfg[loader].dataset.pipeline[-2].stats == file
    assert_allclose(load_stats(file).mean, dataset_statistics(cfg, 0)[0].mean, rtol=1e-6)


@pytest.mark.parametrize(('make', 'message'), [
    (lambda root: root / 'none', 'none: no such file or folder'),
    (lambda root: folders(root, photos=0).joinpath('photos'), 'for each class, found no folders'),
    (lambda root: folders(root, photos=2).joinpath('photos'), 'found 2 images and no folders'),
    (lambda root: folders(root, a=0, b=0), 'no images .* in 2 folders'),
    (lambda root: folders(root, a=3, b=0), 'folders without images: b;'),
    (lambda root: folders(root, a=3), 'expected images of at least two classes, found a alone$'),
    (lambda root: folders(root, a=3, b=1), 'class b has 1 image; it takes 2'),
    (lambda root: folders(root, a=2, b=2, A=2), 'classes that differ in case only: a'),
    (lambda root: folders(root, train__a=2, train__b=2, val__a=1, val__c=1),
     'val has classes that train has not: c'),
    (lambda root: folders(root, train__a=2, training__b=2), 'both train and training may be train'),
])
def test_folders_are_refused(make: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        find_data(str(make(tmp_path)))
    assert '\n' not in str(refused.value)


@pytest.mark.parametrize(('text', 'message'), [
    ('file,label\n', 'expected lines with a file and a label'),
    ('0.png,a\n1.png,b\n0.png,b\n', '0.png is there twice, in lines 1 and 3'),
    ('0.png,a\n1.png\n', "line 2: expected a file and a label, got '1.png'"),
    ('0.png,\n1.png,b\n', "line 1: expected a file and a label, got '0.png,'"),
    ('0.png,a\n1.png,a\nx.png,b\ny.png,b', 'two classes, found a alone; unreadable, left out: x.png, y.png$'),
    ('x.png,a\ny.png,b\nz.png,b\n', 'none of 3 images can be read: x.png, y.png, z.png'),
])
def test_lists_are_refused(text: str, message: str, tmp_path: Path) -> None:
    write_images(tmp_path, 2)
    (tmp_path / 'all.csv').write_text(text)
    with pytest.raises(ValueError, match=message):
        find_data(str(tmp_path / 'all.csv'))


@pytest.mark.parametrize(('changes', 'message'), [
    (dict(annotations=[]), 'found no annotations'),
    (dict(categories=[dict(id=1, name='cat'), dict(id=4, name='cat')]), 'every name .*got cat'),
    (dict(images=[dict(id=0, file_name='0.png'), dict(id=0, file_name='1.png')]), 'every id .*got 0'),
    (dict(categories=[dict(name='cat'), dict(id=4, name='dog')]), 'every id in categories once'),
    (dict(annotations=[dict(id=0, image_id=0, bbox=[1, 1, 5, 5])]), 'with image_id, category_id .* got .*1, 5, 5'),
    (dict(annotations=[dict(id=0, image_id=0, category_id=5, bbox=[1, 1, 5, 5])]), 'got .*id.: 5'),
    (dict(annotations=[dict(id=0, image_id=0, category_id=1, bbox=None)]), 'bbox .4 numbers., got'),
    (dict(annotations=[dict(id=0, image_id=0, category_id=1, bbox=[float('nan')] * 4)]), 'got .*nan'),
    (dict(annotations=[dict(id=0), dict(id=0)]), 'every id in annotations once'),
    (dict(images=[dict(id=0, file_name='x.png')]), 'its first image, x.png, is in no folder'),
])
def test_coco_is_refused(changes: dict, message: str, tmp_path: Path) -> None:
    data = coco(tmp_path, {'0.png': ['cat'], '1.png': ['dog']}, **changes)
    with pytest.raises(ValueError, match=message):
        find_data(str(data))


def test_a_class_missing_in_val_is_said(tmp_path: Path) -> None:
    data = folders(tmp_path / 'data', train__a=2, train__b=2, train__c=2, val__a=1, val__c=1)
    notes = write_config(SMALL, str(data), tmp_path / 'own.py')
    assert 'val has no image of b: no figure will speak of it' in notes
    cfg = Config.fromfile(str(tmp_path / 'own.py'))
    assert classes_of(cfg, 'val_dataloader') == [('a', 0), ('c', 2)]  # the folders alone give 0, 1


@pytest.mark.parametrize(('arguments', 'message'), [
    (['mmfreq::demo/resnet18-dct24_demo.py'], 'did you mean mmfreq::demo/resnet18-dct24s_demo.py'),
    (['resnet50-dct24s_8xb32'], 'did you mean mmfreq::resnet/resnet50-dct24s_8xb32_in1k.py'),
    ([DETECTION], 'is a config for mmdet, but .* has classes of images'),
    ([SMALL, '--weights', 'x.pth'], 'expected stock, random or a checkpoint, no such file: x.pth'),
    ([SMALL, '--batch-size', '0'], '--batch-size: expected an integer >= 1, got 0'),
    ([SMALL, '--out', 'own.txt'], '--out: expected a .py file'),
    (['mmpretrain::resnet/resnet18_8xb16_cifar10.py', '--stats'], '--stats: expected a config with'),
])
def test_the_tool_refuses_in_one_line(arguments: list[str], message: str, tmp_path: Path, run_tool: Any,
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    data = folders(tmp_path / 'data', a=2, b=2)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message) as refused:
        run_tool('new', arguments[0], data, *arguments[1:])
    assert '\n' not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ['data']  # nothing is written


def test_masks_need_segmentations(tmp_path: Path) -> None:
    data = coco(tmp_path, {'0.png': ['cat'], '1.png': ['dog']})
    file = data / 'annotations/train.json'
    file.write_text(file.read_text().replace('"segmentation"', '"outline"'))
    with pytest.raises(ValueError, match='have no segmentation, .* take one for boxes'):
        write_config(MASKS, str(data), tmp_path / 'own.py')
