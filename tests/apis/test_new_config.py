"""A config for a user's data: what is read, what is written, what is refused."""
import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from numpy.testing import assert_allclose
from PIL import Image

import mmfreq
from mmfreq.apis.dataset_stats import dataset_statistics
from mmfreq.apis.new_config import _recipe_batch, _set_schedule, write_config
from mmfreq.apis.new_data import Data, complete, find_data
from mmfreq.config.paths import config_path
from mmfreq.config.writer import plain_config
from mmfreq.dct.stats import load_stats
from mmfreq.errors import RefusedError

mmfreq.setup()  # for configs that inherit mmfreq::
SMALL = 'mmfreq::demo/resnet18-dct24s_demo.py'
MASKS = 'mmfreq::demo/mask-rcnn_r18-dct24s_demo.py'
RTMDET = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'


def images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([*str(folder / name).encode()])
        cv2.imwrite(str(folder / name), rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))


def folders(root: Path, **counts: int) -> Path:
    for name, count in counts.items():
        (root / name.replace('__', '/')).mkdir(parents=True)
        images(root / name.replace('__', '/'), *(f'{i}.png' for i in range(count)))
    return root


def coco(root: Path, file: str = 'annotations/train.json', folder: str = 'train',
         names: tuple[str, ...] = ('0.png', '1.png', '2.png'), **changes: Any) -> Path:
    """Write images, and a COCO file with a cat in the first of them and a dog in the others."""
    images(root / folder, *names)
    content = dict(
        images=[dict(id=i, file_name=name, width=60, height=40) for i, name in enumerate(names)],
        annotations=[dict(id=i, image_id=i, category_id=7 if i else 3, bbox=[5., 5., 30., 20.],
                          area=600., iscrowd=0, segmentation=[[5., 5., 35., 5., 35., 25.]])
                     for i in range(len(names))],
        categories=[dict(id=3, name='cat'), dict(id=7, name='dog')])
    (root / file).parent.mkdir(exist_ok=True)
    (root / file).write_text(json.dumps({**content, **changes}))
    return root / file


def read(path: Path, **image_folders: Path) -> Data:
    data = find_data(str(path), image_folders)
    complete(data, check=True)
    return data


def samples(cfg: Config, split: str) -> list[tuple[str, Any]]:
    """Return path and label of the samples that the host's own data set reads."""
    init_default_scope(cfg.default_scope)
    dataset = DATASETS.build(cfg[f'{split}_dataloader'].dataset)
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    assert all(Path(info['img_path']).is_file() for info in infos)
    return [(info['img_path'], info.get('gt_label')) for info in infos]


def test_class_folders_with_a_split(tmp_path: Path) -> None:
    data = folders(tmp_path / 'data', train__b=12, train__a=8, val__b=3)
    (data / 'train/a/0.png').write_bytes(b'no image')
    notes = write_config(SMALL, str(data), tmp_path / 'draft/own.py')
    assert any('left out' in note and 'train/a/0.png' in note for note in notes)
    (tmp_path / 'draft').rename(tmp_path / 'moved')  # the lists go with the config
    cfg = Config.fromfile(str(tmp_path / 'moved/own.py'))
    labels = [(Path(path).parent.name, label) for path, label in samples(cfg, 'train')]
    assert sorted(labels) == [('a', 0)] * 7 + [('b', 1)] * 12
    assert [label for _, label in samples(cfg, 'val')] == [1, 1, 1]  # the folders alone give 0
    assert cfg.test_dataloader == cfg.val_dataloader
    assert (cfg.model.head.num_classes, cfg.data_preprocessor.num_classes) == (2, 2)
    stock = Config.fromfile(str(config_path(SMALL)))
    assert cfg.train_dataloader.dataset.pipeline == stock.train_dataloader.dataset.pipeline
    assert cfg.val_dataloader.dataset.pipeline == stock.val_dataloader.dataset.pipeline
    text = (tmp_path / 'moved/own.py').read_text()
    assert 'FusedBlockDCT' not in text
    assert text.count(f"'{data}'") == 1


def test_a_missing_split_is_drawn_by_class(tmp_path: Path) -> None:
    data = folders(tmp_path, a=20, b=10, c=2, d=1)
    shutil.copy(data / 'b/0.png', data / 'b/copy.png')
    splits = {item.path: item.split for item in read(data).items}
    assert splits == {item.path: item.split for item in read(data).items}
    val = [path for path, split in splits.items() if split == 'val']
    assert sorted(path.split('/')[0] for path in val) == [*'aaaabbc']
    assert not {'b/0.png', 'b/copy.png'} & set(val)
    assert len(splits) == 34
    assert read(data).classes == [*'abcd']


def test_lists(tmp_path: Path) -> None:
    images(tmp_path, 'photos/a, b.png', 'photos/c.png', 'photos/d.png', 'e.png')
    (tmp_path / 'l').mkdir()
    (tmp_path / 'l/list.csv').write_text(
        'file,label,split\n"../photos/a, b.png","x, y",train\n../photos/./c.png, z ,train\n\n'
        f'../photos/d.png,z,val\n{tmp_path}/e.png,z,test\n', encoding='utf-8-sig')
    write_config(SMALL, str(tmp_path / 'l/list.csv'), tmp_path / 'own.py')
    cfg = Config.fromfile(str(tmp_path / 'own.py'))
    assert cfg.classes == ['x, y', 'z']
    photos = f'{tmp_path}/photos'
    assert samples(cfg, 'train') == [(f'{photos}/a, b.png', 0), (f'{photos}/c.png', 1)]
    assert samples(cfg, 'val') == [(f'{photos}/d.png', 1)]
    assert samples(cfg, 'test') == [(f'{tmp_path}/e.png', 1)]


@pytest.mark.parametrize(('text', 'message'), [
    ('', 'the header file,label'), ('a.png,x\nb.png,y', 'got a.png,x'), ('file;label\na.png;x', 'got file;'),
    ('file,cat,dog\na.png,1,0\nb.png,0,1', 'got file,cat'), ('path,width,species\na.png,60,x', 'got path'),
    ('file,label\na.png,x\nb.png,', 'line 3'), ('file,label\na.png,x,y', 'line 2'),
    ('file,label,split\na.png,x,dev', 'line 2: .*dev'),
    ('file,label\na.png,x\nb.png,y\n./a.png,y', 'line 4: ./a.png is in line 2'),
    ('file,label,split\na.png,x,train\nb.png,y,train\na.png,x,val', 'line 4: a.png is in line 2'),
    ('file,label,split\na.png,x,train\nb.png,y,test', 'for train and val.* 0 val'),
    ('file,label\nno.png,x\nnever.png,y', 'unreadable.*no.png, never.png')])
def test_lists_are_refused(text: str, message: str, tmp_path: Path) -> None:
    images(tmp_path, 'a.png', 'b.png')
    (tmp_path / 'all.csv').write_text(text)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / 'all.csv')


@pytest.mark.parametrize(('counts', 'message'), [
    ({}, 'folders none'), (dict(a=3, b=0), 'b: expected'), (dict(a=3, b__c=3), 'b: expected'),
    (dict(training__a=2, validation__a=2), 'training: expected'), (dict(a=6), 'two or more classes'),
    (dict(train=2, val=2), 'for train and val'),
    (dict(train__a=2, valid__a=2), 'train, valid'), (dict(train__a=2, val__a=2, b=2), 'b, train'),
    (dict(train__a=2, train__b=2, val__a=1, val__c=1), 'c are not in train'),
    (dict(images=2, labels=0), 'YOLO.*supervision'), (dict(train__labels=0), 'YOLO.*COCO'),
    (dict(JPEGImages=2, Annotations=0), 'Pascal VOC.*supervision')])
def test_folders_are_refused(counts: dict[str, int], message: str, tmp_path: Path) -> None:
    folders(tmp_path, **counts)
    for folder, file in (('labels', '0.txt'), ('train/labels', '0.txt'), ('Annotations', '0.xml')):
        if (tmp_path / folder).exists():
            (tmp_path / folder / file).touch()
    with pytest.raises(ValueError, match=message) as refused:
        read(tmp_path)
    assert '\n' not in str(refused.value)


@pytest.mark.parametrize('parent', ['', 'images/'])
def test_each_coco_split_has_its_own_images(parent: str, tmp_path: Path) -> None:
    """The splits have files of the same names."""
    coco(tmp_path / 'data', folder=f'{parent}train')
    coco(tmp_path / 'data', 'annotations/instances_val2017.json', f'{parent}val2017')
    write_config(MASKS, str(tmp_path / 'data'), tmp_path / 'own.py')
    cfg = Config.fromfile(str(tmp_path / 'own.py'))
    for split, folder in (('train', 'train'), ('val', 'val2017'), ('test', 'val2017')):
        parents = {Path(path).parent for path, _ in samples(cfg, split)}
        assert parents == {tmp_path / 'data' / parent / folder}
    assert cfg.val_evaluator.ann_file == f'{tmp_path}/data/annotations/instances_val2017.json'
    heads = cfg.model.roi_head
    assert heads.bbox_head.num_classes == heads.mask_head.num_classes == 2
    assert not [*tmp_path.glob('own-*')]


def test_ambiguous_image_folders_are_named(tmp_path: Path) -> None:
    file = coco(tmp_path, 'all.json', 'all')
    images(tmp_path / 'train', '0.png', '1.png', '2.png')
    with pytest.raises(ValueError, match='all, .*train; --images train=DIR'):
        read(file)
    assert read(file, train=tmp_path / 'all').prefixes == {'train': 'all'}
    with pytest.raises(ValueError, match='--images: expected SPLIT=DIR'):
        read(file, val=tmp_path / 'all')


def test_coco_without_a_split(tmp_path: Path) -> None:
    file = coco(tmp_path, names=tuple(f'{i}.png' for i in range(20)))
    (tmp_path / 'train/19.png').write_bytes(b'no image')
    write_config(MASKS, str(file), tmp_path / 'own.py')
    parts = [json.loads((tmp_path / f'own-{name}.json').read_text()) for name in ('train', 'val')]
    names = [[image['file_name'] for image in part['images']] for part in parts]
    assert sorted(names[0] + names[1]) == sorted(f'{i}.png' for i in range(19))
    assert '0.png' in names[0]  # the only cat
    assert len(names[1]) == 4
    for part in parts:
        ids = {image['id'] for image in part['images']}
        assert {entry['image_id'] for entry in part['annotations']} == ids
    cfg = Config.fromfile(str(tmp_path / 'own.py'))
    assert len(samples(cfg, 'val')) == 4
    assert cfg.val_evaluator.ann_file == f'{tmp_path}/own-val.json'


@pytest.mark.parametrize(('part', 'entry', 'message'), [
    ('annotations', dict(image_id=5), '1 of 3 values of image_id'),
    ('images', dict(width=40), '1 images do not have the size .*0.png'),
    ('images', dict(width=None), '1 images do not have the size'),
    ('images', dict(file_name='x.png'), 'got none; --images')])
def test_coco_is_refused(part: str, entry: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = coco(tmp_path)
    content = json.loads(file.read_text())
    content[part][0].update(entry)
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read(file)
    for name in ('val', 'val2017'):
        shutil.copy(file, tmp_path / f'annotations/instances_{name}.json')
    with pytest.raises(ValueError, match='annotations: expected .*got train.json, instances_val'):
        read(tmp_path)


def test_masks_cannot_be_learned_from_boxes(tmp_path: Path) -> None:
    boxes = [dict(id=i, image_id=i, category_id=3, bbox=[5., 5., 30., 20.], area=600., iscrowd=0) for i in range(3)]
    file = coco(tmp_path, annotations=boxes)
    with pytest.raises(RefusedError, match='expected segmentations'):
        write_config(MASKS, str(file), tmp_path / 'own.py')


@pytest.mark.parametrize(('size', 'is_refused'), [((40, 60), False), ((60, 40), True)])
def test_images_that_exif_turns(size: tuple[int, int], is_refused: bool, tmp_path: Path) -> None:
    """The pipeline turns them. A file that states the size before that has other boxes."""
    entries = [dict(id=i, file_name=f'{i}.jpg', width=width, height=height)
               for i, (width, height) in enumerate((size, (60, 40), (60, 40)))]
    file, exif = coco(tmp_path, names=('0.jpg', '1.jpg', '2.jpg'), images=entries), Image.Exif()
    exif[0x0112] = 6
    Image.open(tmp_path / 'train/0.jpg').save(tmp_path / 'train/0.jpg', exif=exif)
    with pytest.raises(ValueError, match='EXIF .*0.jpg') if is_refused else nullcontext():
        read(file)


@pytest.mark.parametrize('copy', [shutil.copy, lambda source, image: image.symlink_to(source)])
def test_images_of_two_splits_are_refused(copy: Any, tmp_path: Path) -> None:
    data = folders(tmp_path / 'folders', train__a=3, train__b=3, val__a=2, val__b=2)
    boxes = coco(tmp_path / 'coco').parents[1]
    coco(boxes, 'annotations/val.json', 'val')
    for source, image in ((data / 'train/a/0.png', data / 'val/b/1.png'),
                          (boxes / 'train/0.png', boxes / 'val/1.png')):
        image.unlink()
        copy(source, image)
    for root in (data, boxes):
        with pytest.raises(ValueError, match='1 images are in two splits: val.*1.png'):
            read(root)


@pytest.mark.parametrize('config', [SMALL, MASKS])
def test_other_data_are_refused_before_images_are_read(config: str, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmcv, 'imfrombytes', lambda _: pytest.fail('an image was read'))
    data = folders(tmp_path, a=2, b=2) if config == MASKS else coco(tmp_path)
    with pytest.raises(ValueError, match='expected a config for mm'):
        write_config(config, str(data), tmp_path / 'own.py')


@pytest.mark.parametrize(('base', 'change', 'batch', 'source'), [
    ('mmfreq::resnet/resnet50-dct24s_8xb32_in1k.py', '', 256, '8xb32'), (SMALL, '', 32, 'auto_scale_lr'),
    (RTMDET, '', 256, '8xb32'), (RTMDET, 'auto_scale_lr = dict(\n base_batch_size=64)', 64, 'auto'),
    ('mmfreq::swin/mask-rcnn_swin-t-p4-w7-dct24s_fpn_1x_coco.py', '', 16, 'auto_scale_lr')])
def test_the_batch_of_a_learning_rate(base: str, change: str, batch: int, source: str,
                                      tmp_path: Path) -> None:
    path = tmp_path / 'base.py'
    path.write_text(f'_base_ = {base!r}\n{change}')
    target = plain_config(path)
    size = target['train_dataloader']['batch_size']
    result = _recipe_batch(size, target['auto_scale_lr'], path)
    assert result[0] == batch
    assert source in result[1]


def test_a_short_rtmdet(tmp_path: Path) -> None:
    """Its rate is for 256 images, its assigner has a topk, and some settings do not follow."""
    file = coco(tmp_path, names=tuple(f'{i}.png' for i in range(10)))
    notes = write_config(RTMDET, str(file), tmp_path / 'own.py', epochs=20)
    cfg, stock = (Config.fromfile(str(path)) for path in (tmp_path / 'own.py', config_path(RTMDET)))
    assert cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 8
    warm_up, cosine = cfg.param_scheduler
    assert_allclose(cfg.optim_wrapper.optimizer.lr, 0.004 * 8 / 256)
    assert_allclose(cosine.eta_min, 0.0002 * 8 / 256)
    assert (warm_up.end, cosine.begin, cosine.end, cosine.T_max) == (2, 10, 20, 10)
    assert cfg.model.train_cfg.assigner == stock.model.train_cfg.assigner
    assert cfg.model.bbox_head.num_classes == 2
    comment = (tmp_path / 'own.py').read_text().partition('_base_')[0]
    for setting in ('PipelineSwitchHook.switch_epoch=280', 'dynamic_intervals=[(280, 1)]'):
        assert setting in notes[-1]
        assert setting in comment.replace('\n# ', ' ')


def test_a_classifier_on_few_images(tmp_path: Path) -> None:
    data, out = str(folders(tmp_path / 'data', a=20, b=20)), tmp_path / 'own.py'
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run/best_x.pth').touch()
    write_config('mmfreq::resnet/resnet50-dct24s_8xb32_in1k.py', data, out, batch_size=16,
                 epochs=10, weights=str(tmp_path / 'run'))
    cfg = Config.fromfile(str(out))
    assert_allclose(cfg.optim_wrapper.optimizer.lr, 0.1 * 16 / 256)
    assert cfg.param_scheduler.milestones == [3, 6, 9]
    assert cfg.model.head.topk == cfg.val_evaluator.topk == cfg.test_evaluator.topk == (1, )
    assert cfg.load_from == f'{tmp_path}/run/best_x.pth'
    assert cfg.default_hooks.checkpoint.save_best == 'auto'
    write_config('mmpretrain::resnet/resnet18_8xb32_in1k.py', data, out, weights='stock')
    cfg = Config.fromfile(str(out))
    assert '/resnet18_8xb32_in1k' in cfg.load_from
    assert cfg.default_hooks.input_spec.type == 'InputSpecHook'
    assert cfg.custom_imports.imports == ['mmfreq.models.cls']
    write_config('mmfreq::demo/resnet18-dct192-gate_demo.py', data, out)  # its last epoch counts
    assert 'save_best' not in Config.fromfile(str(out)).default_hooks.checkpoint


@pytest.mark.parametrize(('config', 'epochs', 'phases'), [
    ('mmdet::yolox/yolox_nano_8xb8-300e_coco.py', 2, [(True, 0, 2, 2)]),
    ('mmpretrain::resnet/resnet50_8xb256-rsb-a3-100e_in1k.py', 1, [(True, 0, 1, 1)]),
    ('mmpretrain::resnet/resnet50_32xb64-warmup-coslr_in1k.py', 30,
     [(True, 0, 2, None), (True, 2, 30, 28)]),
    ('mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py', 1,
     [(False, 0, 10, None), (True, 0, 1, None)])])
def test_short_schedules(config: str, epochs: int, phases: list[tuple]) -> None:
    """Of 100 iterations, a tenth warms up."""
    target = plain_config(config_path(config))
    target['train_dataloader']['batch_size'] = 1
    _set_schedule(target, 100 // epochs, epochs)
    assert [(node.get('by_epoch', True), node['begin'], node['end'], node.get('T_max'))
            for node in target['param_scheduler']] == phases


def test_statistics_are_those_of_the_data(tmp_path: Path) -> None:
    data = folders(tmp_path / 'data', train__a=2, train__b=2, val__a=1, val__b=1)
    notes = write_config(SMALL, str(data), tmp_path / 'own.py', stats=True)
    cfg, file = Config.fromfile(str(tmp_path / 'own.py')), str(tmp_path / 'own-stats.json')
    assert file in notes[-1]
    text = (tmp_path / 'own.py').read_text()
    assert text.count('FusedBlockDCT') == text.count('{{fileDirname}}/own-stats.json') == 1
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        assert cfg[loader].dataset.pipeline[-2].stats == file
    assert_allclose(load_stats(file).mean, dataset_statistics(cfg, 0)[0].mean, rtol=1e-6)


@pytest.mark.parametrize(('config', 'options', 'message'), [
    (SMALL, '--weights x.pth', 'x.pth'), (SMALL, '--batch-size 0', '--batch-size'),
    (SMALL, '--out own.txt', '.py file'), (SMALL, '--out old.py', '--force'),
    ('old.py', '--out old.py --force', 'overwrite'),
    ('mmpretrain::resnet/resnet18_8xb16_cifar10.py', '--stats', '--stats: expected')])
def test_the_tool_refuses_in_one_line(config: str, options: str, message: str, tmp_path: Path,
                                      run_tool: Any, monkeypatch: Any, capsys: Any) -> None:
    data = folders(tmp_path / 'data', a=2, b=2)
    monkeypatch.chdir(tmp_path)
    Path('old.py').write_text(f'_base_ = {SMALL!r}')
    with pytest.raises(SystemExit):
        run_tool('new', config, data, *options.split())
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert {path.name for path in tmp_path.iterdir()} == {'data', 'old.py'}  # nothing is written


def test_the_tool_names_what_it_wrote(tmp_path: Path, run_tool: Any, capsys: Any) -> None:
    run_tool('new', SMALL, folders(tmp_path / 'data', a=4, b=4), '-o', tmp_path / 'own.py')
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == f'train:   mmfreq train {tmp_path}/own.py'
    assert not err  # no progress bar where no terminal is
