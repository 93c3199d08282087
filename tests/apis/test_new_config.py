"""A config for a user's data: what is read, what is written, what is refused."""
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import DATASETS, PARAM_SCHEDULERS, init_default_scope
from numpy.testing import assert_allclose
from PIL import Image

import mmfreq
from mmfreq.apis.new_config import _recipe_batch, _set_schedule, write_config
from mmfreq.apis.new_data import Data, complete, find_data
from mmfreq.config.paths import config_path
from mmfreq.config.writer import plain_config

mmfreq.setup()  # configs inherit mmfreq::file
SMALL = 'mmfreq::demo/resnet18-dct24s_demo.py'
MASKS = 'mmfreq::demo/mask-rcnn_r18-dct24s_demo.py'
RTMDET = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'


def write_images(folder: Path, names: list[str]) -> None:
    """Write 60x40 images, all different."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = int.from_bytes(str(path).encode()[-12:], 'little')
        noise = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        cv2.imwrite(str(path), noise)


def folders(root: Path, **counts: int) -> Path:
    for name, count in counts.items():
        (root / name.replace('__', '/')).mkdir(parents=True)
        write_images(root / name.replace('__', '/'), [f'{i}.png' for i in range(count)])
    return root


def coco(root: Path, file: str = 'annotations/train.json', folder: str = 'train',
         names: tuple[str, ...] = ('0.png', '1.png', '2.png'), **changes: Any) -> Path:
    """Write images, and a COCO file with a cat in the first and a dog in the others."""
    write_images(root / folder, list(names))
    content = dict(
        images=[dict(id=i, file_name=name, width=60, height=40) for i, name in enumerate(names)],
        annotations=[dict(id=i, image_id=i, bbox=[5., 5., 30., 20.], area=600., iscrowd=0,
                          category_id=7 if i else 3, segmentation=[[5., 5., 35., 5., 35., 25.]])
                     for i in range(len(names))],
        categories=[dict(id=3, name='cat'), dict(id=7, name='dog')])
    (root / file).parent.mkdir(exist_ok=True)
    (root / file).write_text(json.dumps({**content, **changes}))
    return root


def read(path: Path, check: bool = True, **images: Path) -> Data:
    data = find_data(str(path), {split: str(folder) for split, folder in images.items()})
    complete(data, check)
    return data


def samples(file: Path, loader: str = 'train_dataloader') -> list[tuple[str, Any]]:
    """Return path and label, or instances, of the samples of the host's own data set."""
    cfg = Config.fromfile(str(file))
    init_default_scope(cfg.default_scope)
    dataset = DATASETS.build(cfg[loader].dataset)
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    assert all(Path(info['img_path']).is_file() for info in infos)
    return [(info['img_path'], info.get('gt_label', info.get('instances'))) for info in infos]


def test_class_folders_with_a_split(tmp_path: Path) -> None:
    data = folders(tmp_path / 'data', train__b=12, train__a=8, val__b=3)
    (data / 'train/a/0.png').write_bytes(b'no image')
    notes = write_config(SMALL, str(data), tmp_path / 'own.py')
    assert any('left out' in note and 'train/a/0.png' in note for note in notes)
    moved = tmp_path / 'moved'
    moved.mkdir()
    for file in tmp_path.glob('own*'):
        file.rename(moved / file.name)  # the lists go with the config
    labels = [(Path(path).parent.name, label) for path, label in samples(moved / 'own.py')]
    assert sorted(labels) == [('a', 0)] * 7 + [('b', 1)] * 12
    assert [label for _, label in samples(moved / 'own.py', 'val_dataloader')] == [1, 1, 1]  # alone, b would be 0
    cfg, stock = Config.fromfile(str(moved / 'own.py')), Config.fromfile(str(config_path(SMALL)))
    assert cfg.test_dataloader == cfg.val_dataloader
    assert cfg.train_dataloader.dataset.metainfo.classes == ['a', 'b']
    assert (cfg.model.head.num_classes, cfg.data_preprocessor.num_classes) == (2, 2)
    for loader in ('train_dataloader', 'val_dataloader'):
        assert cfg[loader].dataset.pipeline == stock[loader].dataset.pipeline
    text = (moved / 'own.py').read_text()
    assert 'FusedBlockDCT' not in text
    assert text.count(f"'{data}'") == 1
    assert '8 train' not in text
    assert '19 train, 3 val' in text


def test_a_missing_split_is_drawn_by_class(tmp_path: Path) -> None:
    data = folders(tmp_path / 'data', a=20, b=10, c=2, d=1)
    shutil.copy(data / 'a/0.png', data / 'a/copy.png')
    lists = [{item.path: item.split for item in read(data).items} for _ in range(2)]
    assert lists[0] == lists[1]
    val = [path for path, split in lists[0].items() if split == 'val']
    assert sorted(path[0] for path in val) == ['a'] * 4 + ['b'] * 2 + ['c']
    assert not {'a/0.png', 'a/copy.png'} & set(val)
    assert len(lists[0]) == 34


def test_numbers_as_classes_are_in_order(tmp_path: Path) -> None:
    assert read(folders(tmp_path, **{'10': 2, '2': 2, '1': 2})).classes == ['1', '2', '10']


def test_lists(tmp_path: Path) -> None:
    write_images(tmp_path, ['photos/a, b.png', 'photos/c.png', 'photos/d.png', 'e.png'])
    (tmp_path / 'l').mkdir()
    (tmp_path / 'l/list.csv').write_text(
        'file,label,split\n"../photos/a, b.png","left, up",train\n../photos/./c.png, right ,train\n\n'
        f'../photos/d.png,right,val\n{tmp_path}/e.png,right,test\n', encoding='utf-8-sig')
    write_config(SMALL, str(tmp_path / 'l/list.csv'), tmp_path / 'own.py')
    for loader, expected in (('train', [('photos/a, b.png', 0), ('photos/c.png', 1)]),
                             ('val', [('photos/d.png', 1)]), ('test', [('e.png', 1)])):
        assert samples(tmp_path / 'own.py', f'{loader}_dataloader') == [
            (f'{tmp_path}/{file}', label) for file, label in expected]


@pytest.mark.parametrize(('text', 'message'), [
    ('a.png,x\nb.png,y', 'header file,label .*got a.png,x'), ('', 'header file,label'),
    ('file,cat,dog\na.png,1,0\nb.png,0,1', 'got file,cat,dog'),
    ('path,width,species\na.png,60,x\nb.png,60,y', 'got path,width,species'),
    ('file,label,label\na.png,x,y', 'got file,label,label'), ('file;label\na.png;x', 'got file;label'),
    ('file,label\na.png,x\nb.png,', 'line 3: expected'), ('file,label\na.png,x,y', 'line 2: expected'),
    ('file,label,split\na.png,x,dev', 'line 2: expected .*dev'),
    ('file,label\na.png,x\nb.png,y\n./a.png,y', 'line 4: ./a.png is in line 2'),
    ('file,label,split\na.png,x,train\nb.png,y,train\na.png,x,val', 'line 4: a.png is in line 2'),
    ('file,label,split\na.png,x,train\nb.png,y,test', 'expected images for train and val'),
    ('file,label\nnone.png,x\nnever.png,y', 'expected images .*none.png, never.png'),
])
def test_lists_are_refused(text: str, message: str, tmp_path: Path) -> None:
    write_images(tmp_path, ['a.png', 'b.png'])
    (tmp_path / 'all.csv').write_text(text)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / 'all.csv')


@pytest.mark.parametrize(('counts', 'message'), [
    ({}, 'expected ROOT/<class>'), (dict(a=3, b=0), 'b: expected images'), (dict(a=3, b__c=3), 'b: expected images'),
    (dict(training__a=2, validation__a=2), 'training: expected images'),
    (dict(train__a=2, valid__a=2), 'folders train, valid'), (dict(train__a=2, val__a=2, b=2), 'folders b, train, val'),
    (dict(train__a=2, train__b=2, val__a=1, val__c=1), 'c are not in train'), (dict(a=6), 'two classes'),
])
def test_folders_are_refused(counts: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        read(folders(tmp_path, **counts))
    assert '\n' not in str(refused.value)


@pytest.mark.parametrize(('file', 'name'), [
    ('Annotations/0.xml', 'VOC'), ('VOC2012/Annotations/0.xml', 'VOC'), ('labels/0.txt', 'YOLO'),
    ('labels/train/0.txt', 'YOLO'), ('train/labels/0.txt', 'YOLO')])
def test_other_formats_are_named_and_nothing_is_deleted(file: str, name: str, tmp_path: Path) -> None:
    write_images(tmp_path, ['JPEGImages/0.png', 'images/0.png'])
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).touch()
    with pytest.raises(ValueError, match=f'{name}.*expected COCO.*supervision') as refused:
        read(tmp_path)
    assert not {'remove', 'delete'} & set(str(refused.value).split())


@pytest.mark.parametrize('parent', ['', 'images/'])
def test_each_coco_split_has_its_own_images(parent: str, tmp_path: Path) -> None:
    """Both splits have files of the same names, which the first folder that has them is not to decide."""
    coco(tmp_path / 'data', folder=f'{parent}train')
    coco(tmp_path / 'data', 'annotations/instances_val2017.json', f'{parent}val2017', ('1.png', '0.png'))
    write_config(MASKS, str(tmp_path / 'data'), tmp_path / 'own.py')
    for loader, folder in (('train', 'train'), ('val', 'val2017'), ('test', 'val2017')):
        images = samples(tmp_path / 'own.py', f'{loader}_dataloader')
        assert {Path(path).parent for path, _ in images} == {tmp_path / 'data' / parent / folder}
    cfg = Config.fromfile(str(tmp_path / 'own.py'))
    assert cfg.val_evaluator.ann_file == f'{tmp_path}/data/annotations/instances_val2017.json'
    assert cfg.model.roi_head.bbox_head.num_classes == cfg.model.roi_head.mask_head.num_classes == 2
    assert not [file for file in tmp_path.glob('own-*')]


def test_ambiguous_image_folders_are_named(tmp_path: Path) -> None:
    coco(tmp_path, 'all.json', 'small')
    write_images(tmp_path / 'large', ['0.png', '1.png', '2.png'])
    with pytest.raises(ValueError, match='one folder .*large, .*small; --images train=DIR'):
        read(tmp_path / 'all.json')
    assert read(tmp_path / 'all.json', train=tmp_path / 'large').prefixes == {'train': 'large'}
    (tmp_path / 'large/1.png').unlink()
    assert read(tmp_path / 'all.json').prefixes == {'train': 'small'}
    with pytest.raises(ValueError, match='--images: expected SPLIT=DIR'):
        read(tmp_path / 'all.json', val=tmp_path / 'large')


def test_coco_without_a_split(tmp_path: Path) -> None:
    coco(tmp_path, names=tuple(f'{i}.png' for i in range(20)))
    (tmp_path / 'train/19.png').write_bytes(b'no image')
    write_config(MASKS, str(tmp_path / 'annotations/train.json'), tmp_path / 'own.py')
    parts = [json.loads((tmp_path / f'own-{split}.json').read_text()) for split in ('train', 'val')]
    names = [[image['file_name'] for image in part['images']] for part in parts]
    assert sorted(names[0] + names[1]) == sorted(f'{i}.png' for i in range(19))
    assert '0.png' in names[0]  # the only cat
    assert len(names[1]) == 4
    for part in parts:
        assert {entry['image_id'] for entry in part['annotations']} == {image['id'] for image in part['images']}
    assert len(samples(tmp_path / 'own.py', 'val_dataloader')) == 4
    assert Config.fromfile(str(tmp_path / 'own.py')).val_evaluator.ann_file == f'{tmp_path}/own-val.json'


@pytest.mark.parametrize(('changes', 'message'), [
    (dict(annotations=[dict(id=0, image_id=5, category_id=3), dict(id=1, image_id=0, category_id=3)]),
     '1 of 2 annotations .*image_id'),
    (dict(images=[dict(id=i, file_name='0.png', width=60, height=40) for i in range(3)]), '3 images have 1 file name'),
    (dict(images=[dict(id=i, file_name=f'{i}.png', width=50, height=40) for i in range(3)]), '3 images do not have'),
    (dict(images=[dict(id=i, file_name=f'{i}.png') for i in range(3)]), '3 images do not have the size'),
    (dict(images=[dict(id=i, file_name=f'{i}.jpg', width=60, height=40) for i in range(3)]), 'got none; --images'),
])
def test_coco_is_refused(changes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read(coco(tmp_path, **changes) / 'annotations/train.json')
    (tmp_path / 'annotations/instances_val.json').write_text('{}')
    (tmp_path / 'annotations/instances_val_new.json').write_text('{}')
    with pytest.raises(ValueError, match='got train.json, instances_val'):
        find_data(str(tmp_path), {})


@pytest.mark.parametrize(('size', 'is_told'), [((40, 60), False), ((60, 40), True)])
def test_images_that_exif_turns(size: tuple[int, int], is_told: bool, tmp_path: Path) -> None:
    """The pipeline turns them: the size after that is right, the size before that is told to the user."""
    names = [f'{i}.jpg' for i in range(3)]
    coco(tmp_path, names=tuple(names), images=[
        dict(id=i, file_name=name, width=60 if i else size[0], height=40 if i else size[1])
        for i, name in enumerate(names)])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(tmp_path / 'train/0.jpg').save(tmp_path / 'train/0.jpg', exif=exif)
    notes = read(tmp_path / 'annotations/train.json').notes
    assert any('EXIF' in note and '0.jpg' in note for note in notes) == is_told


@pytest.mark.parametrize('by', ['link', 'bytes'])
def test_images_of_two_splits_are_refused(by: str, tmp_path: Path) -> None:
    data = folders(tmp_path / 'folders', train__a=3, train__b=3, val__a=2, val__b=2)
    boxes = coco(coco(tmp_path / 'coco'), 'annotations/val.json', 'val', ('3.png', '4.png'))
    for source, image in ((data / 'train/a/0.png', data / 'val/b/1.png'),
                          (boxes / 'train/0.png', boxes / 'val/3.png')):
        image.unlink()
        (image.symlink_to if by == 'link' else lambda source, to=image: shutil.copy(source, to))(source)
    for root in (data, boxes):
        with pytest.raises(ValueError, match='1 images are in two splits: .*(1|3).png'):
            read(root, check=by == 'bytes')


def test_a_config_for_other_data_is_refused_before_images_are_read(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(mmcv, 'imfrombytes', lambda _: pytest.fail('an image was read'))
    for config, data in ((MASKS, folders(tmp_path / 'a', a=2, b=2)), (SMALL, coco(tmp_path / 'b', 'all.json'))):
        with pytest.raises(ValueError, match='expected a config for mm'):
            write_config(config, str(data if config == MASKS else data / 'all.json'), tmp_path / 'own.py')


@pytest.mark.parametrize(('text', 'batch', 'source'), [
    ("_base_ = 'mmfreq::resnet/resnet50-dct24s_8xb32_in1k.py'", 256, 'auto_scale_lr'), (f"_base_ = '{RTMDET}'", 256, '8xb32'),
    ("_base_ = 'mmfreq::demo/resnet18-dct24s_demo.py'", 32, 'auto_scale_lr'),
    ("_base_ = 'mmfreq::mask_rcnn/mask-rcnn_r50-dct24s_fpn_20e_coco.py'", 2, 'auto_scale_lr'),
    ("_base_ = 'mmfreq::swin/mask-rcnn_swin-t-p4-w7-dct24s_fpn_1x_coco.py'", 16, '8 GPUs'),
    (f"_base_ = '{RTMDET}'\noptim_wrapper = dict(optimizer=dict(lr=1e-4))", 32, 'its batch size'),
    (f"_base_ = '{RTMDET}'\nauto_scale_lr = dict(\n    base_batch_size=64)", 64, 'auto_scale_lr')])
def test_the_batch_of_the_learning_rate(text: str, batch: int, source: str, tmp_path: Path) -> None:
    (tmp_path / 'base.py').write_text(text)
    target = plain_config(tmp_path / 'base.py')
    found, name = _recipe_batch(target['train_dataloader']['batch_size'], target['auto_scale_lr'], tmp_path / 'base.py')
    assert found == batch
    assert source in name


def test_a_short_rtmdet(tmp_path: Path) -> None:
    """The rate is for 256 images, an assigner's topk is no accuracy's, and what stays as it is has a name."""
    coco(tmp_path, names=tuple(f'{i}.png' for i in range(10)))
    notes = write_config(RTMDET, str(tmp_path / 'annotations/train.json'), tmp_path / 'own.py', epochs=20)
    cfg, stock = Config.fromfile(str(tmp_path / 'own.py')), Config.fromfile(str(config_path(RTMDET)))
    assert cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 8
    assert_allclose(cfg.optim_wrapper.optimizer.lr, 0.004 * 8 / 256)
    assert_allclose(cfg.param_scheduler[1].eta_min, 0.0002 * 8 / 256)
    assert [cfg.param_scheduler[1][key] for key in ('begin', 'end', 'T_max')] == [10, 20, 10]
    assert cfg.param_scheduler[0].end == 2  # iterations of 20
    assert cfg.model.train_cfg.assigner == stock.model.train_cfg.assigner
    assert cfg.model.bbox_head.num_classes == 2
    comment = ' '.join((tmp_path / 'own.py').read_text().split('_base_')[0].replace('\n#', '').split())
    for setting in ('PipelineSwitchHook.switch_epoch=280', 'dynamic_intervals=[(280, 1)]'):
        assert setting in notes[-1]
        assert setting in comment


def test_a_classifier_on_few_images(tmp_path: Path) -> None:
    data = folders(tmp_path / 'data', a=20, b=20)
    (tmp_path / 'run').mkdir()
    for name in ('best_x.pth', 'epoch_1.pth'):
        (tmp_path / 'run' / name).touch()
    config = 'mmfreq::resnet/resnet50-dct24s_8xb32_in1k.py'
    write_config(config, str(data), tmp_path / 'own.py', batch_size=16, epochs=10, weights=str(tmp_path / 'run'))
    cfg = Config.fromfile(str(tmp_path / 'own.py'))
    assert_allclose(cfg.optim_wrapper.optimizer.lr, 0.1 * 16 / 256)
    assert cfg.param_scheduler.milestones == [3, 6, 9]
    assert cfg.model.head.topk == cfg.val_evaluator.topk == cfg.test_evaluator.topk == (1, )
    assert cfg.load_from == f'{tmp_path}/run/best_x.pth'
    assert cfg.default_hooks.input_spec.type == 'InputSpecHook'
    assert cfg.default_hooks.checkpoint.save_best == 'auto'
    write_config('mmfreq::demo/resnet18-dct192-gate_demo.py', str(data), tmp_path / 'own.py', weights='random')
    assert 'save_best' not in Config.fromfile(str(tmp_path / 'own.py')).default_hooks.checkpoint  # the last has the target


@pytest.mark.parametrize(('config', 'epochs', 'rates'), [
    ('mmdet::yolox/yolox_nano_8xb8-300e_coco.py', 2, (0, 1, 0.5, 0)),
    ('mmpretrain::resnet/resnet50_8xb256-rsb-a3-100e_in1k.py', 1, (0, 1, 1, 1)),
    ('mmpretrain::resnet/resnet50_32xb64-warmup-coslr_in1k.py', 10, (0.25, 1, 0.5, 0)),
    ('mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py', 1, (0, 1, 1, 1))])
def test_short_schedules(config: str, epochs: int, rates: tuple, tmp_path: Path) -> None:
    """Rates of a run of 100 iterations: at the start, after a tenth, in the middle, at the end."""
    init_default_scope(config.partition('::')[0])
    target = plain_config(config_path(config))
    target['train_dataloader']['batch_size'] = 1
    _set_schedule(target, 100 // epochs, epochs)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1)
    schedulers = []
    for node in target['param_scheduler']:
        by_iteration = not node.get('by_epoch', True) or node.get('convert_to_iter_based')
        schedulers.append((by_iteration, PARAM_SCHEDULERS.build(
            node, default_args=dict(optimizer=OptimWrapper(optimizer), epoch_length=100 // epochs))))
    found = []
    for step in range(1, 101):
        found.append(optimizer.param_groups[0]['lr'])
        for by_iteration, scheduler in schedulers:
            if by_iteration or step % (100 // epochs) == 0:
                scheduler.step()
    print(found)
    assert_allclose([found[0], found[12], found[50], found[99]], rates, atol=0.05)


def test_statistics_are_those_of_the_data(tmp_path: Path) -> None:
    from mmfreq.apis.dataset_stats import dataset_statistics
    from mmfreq.dct.stats import load_stats
    data = folders(tmp_path / 'data', train__a=2, train__b=2, val__a=1, val__b=1)
    notes = write_config(SMALL, str(data), tmp_path / 'own.py', stats=True)
    cfg, file = Config.fromfile(str(tmp_path / 'own.py')), str(tmp_path / 'own-stats.json')
    assert 'own-stats.json' in notes[-1]
    assert (tmp_path / 'own.py').read_text().count('FusedBlockDCT') == 1
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        assert cfg[loader].dataset.pipeline[-2].stats == file
    assert_allclose(load_stats(file).mean, dataset_statistics(cfg, 0)[0].mean, rtol=1e-6)


@pytest.mark.parametrize(('arguments', 'message'), [
    ([SMALL, '--weights', 'x.pth'], 'checkpoint: .*x.pth'), ([SMALL, '--batch-size', '0'], '--batch-size'),
    ([SMALL, '--out', 'own.txt'], '--out: expected a .py file'), ([SMALL, '--out', 'old.py'], '--force'),
    (['mmpretrain::resnet/resnet18_8xb16_cifar10.py', '--stats'], '--stats: expected a config'),
    ([MASKS], 'expected a config for mmpretrain')])
def test_the_tool_refuses_in_one_line(arguments: list[str], message: str, tmp_path: Path, run_tool: Any,
                                      monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    data = folders(tmp_path / 'data', a=2, b=2)
    monkeypatch.chdir(tmp_path)
    Path('old.py').touch()
    with pytest.raises(SystemExit):
        run_tool('new', arguments[0], data, *arguments[1:])
    assert {path.name for path in tmp_path.iterdir()} == {'data', 'old.py'}


def test_the_tool_names_what_it_wrote(tmp_path: Path, run_tool: Any, capsys: pytest.CaptureFixture) -> None:
    run_tool('new', SMALL, folders(tmp_path / 'data', a=4, b=4), '-o', tmp_path / 'own.py')
    out, err = capsys.readouterr()
    assert f'train:   mmfreq train {tmp_path}/own.py' in out.splitlines()
    assert err == ''  # no bar where no terminal is
