"""The study of transfer: its inputs against the stock pixels, its statistics against scipy. Nothing is trained."""
import json
from pathlib import Path
from typing import Callable

import cv2
import finetune
import input_sizes
import lite0
import numpy as np
import pytest
import robustness
import scipy.stats
import torch
import zero_shot
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope, init_default_scope
from summarize import Photos, network_robustness_tables, table
from torch import nn

from mmfreq.apis.freqify.convert import freqify
from mmfreq.config.checks import check_channels
from mmfreq.config.pipelines import input_specs
from mmfreq.dct.channels import channel_indices


@pytest.fixture
def photo() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3)


def pixels_of(row: zero_shot.Row, image: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return zero_shot.input_of(row)([image])[0]


def test_all_native_channels_are_the_stock_pixels(photo: np.ndarray) -> None:
    rgb = pixels_of(zero_shot.Row(), photo)
    assert rgb[0, 0, 5, 7] == pytest.approx((int(photo[5, 7, 2]) - 127) / 128)
    np.testing.assert_allclose(pixels_of(zero_shot.Row('48N'), photo), rgb, atol=1.5 / 128)  # YCbCr is rounded
    for row in (zero_shot.Row('48N', scale=8), zero_shot.Row('48N', scale=127, stats='imagenette-224-4x4-range')):
        assert abs(pixels_of(row, photo) - rgb).mean() < 4 / 128


def test_channels_of_an_enlarged_image(photo: np.ndarray) -> None:
    rgb, smooth = pixels_of(zero_shot.Row(), photo), cv2.GaussianBlur(photo, (0, 0), 1)
    for row in (zero_shot.Row('24S', 8), zero_shot.Row('24S', 8, 2)):
        assert zero_shot.values_of(row) == 24 * 56 * 56
        assert np.corrcoef(pixels_of(row, photo).ravel(), rgb.ravel())[0, 1] > 0.98
        assert abs(pixels_of(row, smooth) - pixels_of(zero_shot.Row(), smooth)).mean() < 3 / 128


@pytest.mark.parametrize('channels', [36, 24, 18, 12, 8, 6])
def test_downsized_images_have_as_many_values_as_channels(channels: int) -> None:
    side = zero_shot.side_of(channels)
    assert 3 * side**2 == pytest.approx(channels * 56**2, rel=0.02)
    assert zero_shot.values_of(zero_shot.Row(change='downsize', amount=side)) == 3 * side**2


def test_changes_of_photos(photo: np.ndarray) -> None:
    image = np.full((224, 224, 3), 128, np.uint8)
    assert zero_shot.noise(image, 8).std() == pytest.approx(8, rel=0.02)
    sizes = [len(zero_shot.jpeg_file(photo, quality)) for quality in (90, 50, 10)]
    assert sizes == sorted(sizes, reverse=True)
    half = zero_shot.downsize(photo, 112)
    area = photo.reshape(112, 2, 112, 2, 3).mean((1, 3))
    assert half.shape == photo.shape
    np.testing.assert_allclose(half.reshape(112, 2, 112, 2, 3).mean((1, 3)), area, atol=6)
    assert zero_shot.blur(photo, 2).std() < photo.std()


def answering(answers: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    following = iter(answers)
    return lambda pixels: np.eye(3)[[next(following) for _ in pixels]]


def test_top1_and_differences_are_paired_by_photo(tmp_path: Path, photo: np.ndarray) -> None:
    """A network that answers at random; the tables compare rows of all and of every fourth photo."""
    generator, labels = np.random.default_rng(0), np.arange(60) % 3
    answers = {name: generator.integers(0, 3, 60) for name in ('all', 'fourth')}
    rows = {'all': zero_shot.Row(), 'fourth': zero_shot.Row(every=4)}
    results = {}
    for name, row in rows.items():
        network = answering(answers[name][::row.every])
        results[name] = zero_shot.evaluate(network, row, [photo] * 60, labels)
    (tmp_path / 'zero_shot.json').write_text(json.dumps(results))
    photos = Photos(tmp_path / 'zero_shot.json')
    first, second = (100. * (answers[name] == labels)[::4] for name in ('all', 'fourth'))
    value = photos.difference('fourth', 'all')
    assert (value.mean, value.count) == (pytest.approx((second - first).mean()), 15)
    assert value.error == pytest.approx(scipy.stats.sem(second - first))
    assert results['all']['top1'] == pytest.approx(100 * (answers['all'] == labels).mean())
    assert photos.top1('all', 15) == pytest.approx(first.mean())
    assert results['all']['bytes'] == results['all']['values'] == 3 * 224**2
    assert 0 < results['all']['zstd'] < results['all']['zlib'] < 3 * 224**2


@pytest.mark.parametrize(('row', 'gate'), [('24 learned', '48N-24-seed0'), ('24 learned of 448', '192-24-seed0')])
def test_learned_rows_take_the_channels_of_a_gate(row: str, gate: str) -> None:
    gates = json.loads((zero_shot.HERE / 'results/gates.json').read_text())
    assert list(zero_shot.all_rows()[row].channels) == gates[gate]['channels']


def test_random_channels_differ_by_seed() -> None:
    drawn = [zero_shot.random_channels(24, seed) for seed in range(3)]
    assert len(set(drawn)) == 3
    assert all(len(set(channels)) == 24 and max(channels) < 48 for channels in drawn)


def test_weights_get_the_names_of_the_model() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    weights = {f'old{i}': torch.rand_like(value.float()) for i, value in enumerate(model.state_dict().values())}
    names = lite0.renamed(weights, model)
    assert list(names) == list(model.state_dict())
    assert names['1.running_var'] is weights['old5']
    with pytest.raises(ValueError, match='in its order'):
        lite0.renamed(dict(reversed(weights.items())), model)


def test_images_of_each_class_are_drawn(tmp_path: Path) -> None:
    for name, count in (('a', 5), ('b', 9)):
        (tmp_path / name).mkdir()
        for i in range(count):
            (tmp_path / name / f'{i}.png').touch()
    indices = finetune.drawn(tmp_path, 4, seed=1)
    assert len(set(indices)) == 8
    assert sum(index < 5 for index in indices) == 4
    assert indices != finetune.drawn(tmp_path, 4, seed=2)


@pytest.mark.parametrize('network', ['resnet', 'convnext', 'vit'])
def test_networks_are_carried_over_by_freqify(network: str) -> None:
    stock = finetune.Row(network, '', 10, 'scratch').config(Path())
    target, _ = freqify(str(stock), '24N', 'imagenette-224-4x4')
    cfg = Config(target)
    check_channels(cfg)
    init_default_scope('mmpretrain')
    assert cfg.model.backbone.type.startswith('Unpacked' if network == 'resnet' else 'Freq')
    assert len(channel_indices(cfg.train_dataloader.dataset.pipeline[3].channels, 4)) == 24


def test_options_of_a_training(tmp_path: Path) -> None:
    row = finetune.Row('convnext', '12N', 3)
    options = row.options(tmp_path, seed=2)
    assert row.name == 'convnext-12n-stock-3'
    assert options['load_from'] == str(tmp_path / 'convnext-rgb-scratch-10-seed2/epoch_10.pth')
    assert options['param_scheduler.eta_max'] == finetune.RATES['convnext'] / finetune.FINE
    scratch = finetune.Row('convnext', '12N', 3, 'scratch').options(tmp_path, seed=2)
    assert 'load_from' not in scratch
    assert (scratch['train_cfg.max_epochs'], scratch['randomness.seed']) == (3, 2)


def test_the_rows_of_input_sizes(tmp_path: Path) -> None:
    for start, side in (('scratch', 64), ('stock', 128)):
        for pixels, channels in zip(input_sizes.SIDES[start], finetune.ELASTIC, strict=True):
            assert 3 * pixels**2 == pytest.approx(len(channel_indices(channels, 4)) * (side // 4)**2, rel=0.05)
        names = [row.name for row in input_sizes.rows_of(start)]
        assert len({*names}) == len(names)
    row = finetune.Row('resnet', '6N', 10, 'scratch', stemless=True)
    cfg = Config.fromfile(row.config(tmp_path))
    cfg.merge_from_dict(row.options(tmp_path, seed=0))
    check_channels(cfg)
    assert cfg.model.backbone.in_channels == len(channel_indices('6N', 4))
    assert {cfg[f'{part}_dataloader'].dataset.pipeline[3].channels for part in finetune.PARTS} == {'6N'}


def test_downsized_crops_have_their_former_size(tmp_path: Path, photo: np.ndarray) -> None:
    cfg = Config.fromfile(finetune.Row('resnet', '', 10, 'scratch').config(tmp_path))
    finetune.downsize(cfg, 16)
    cv2.imwrite(str(tmp_path / 'photo.png'), photo)
    steps = cfg.test_dataloader.dataset.pipeline
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        image = Compose(steps[:-1])(dict(img_path=str(tmp_path / 'photo.png')))['img']
        crop = Compose(steps[:-3])(dict(img_path=str(tmp_path / 'photo.png')))['img']
    np.testing.assert_array_equal(image, zero_shot.downsize(crop, 16))


class LevelModel:
    """Takes the class of a photo from its mean level."""

    def predict(self, images: list[np.ndarray], batch_size: int) -> list[dict]:
        return [dict(pred_label=round((image.mean() - 60) / 10)) for image in images]


@pytest.mark.parametrize('name', robustness.NETWORKS)
def test_configs_of_networks_fit_their_names(name: str, tmp_path: Path) -> None:
    cfg = Config.fromfile(robustness.config_of(name, tmp_path))
    check_channels(cfg)
    selection = name.split(', ')[1].replace('RGB', '')
    assert input_specs(cfg)['test_dataloader'].channels == tuple(channel_indices(selection, 4) if selection else ())


def test_damaged_photos_keep_their_labels(tmp_path: Path) -> None:
    names = sorted(zero_shot.CLASSES)
    for i, name in enumerate(names):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / '0.png'), np.full((224, 224, 3), 60 + 10 * i, np.uint8))
    files = [tmp_path / name / '0.png' for name in reversed(names)]
    scores = robustness.evaluate(LevelModel(), files)
    assert len(scores) == 1 + sum(map(len, zero_shot.AMOUNTS.values()))
    assert set(scores.values()) == {100}
    (tmp_path / '1.json').write_text(json.dumps({
        name: {str(seed): {'none': top1 + seed} for seed in range(2)}
        for name, top1 in (('A, RGB', 70), ('B, RGB', 50), ('A, 24N', 60), ('B, 24N', 51))}))
    first, second = network_robustness_tables(tmp_path / '1.json').split('\n\n')
    assert '| none | 70.50 ± 0.71 (2) | -10.00 ± 0.00 (2) |' in first
    assert '| none | 50.50 ± 0.71 (2) | +1.00 ± 0.00 (2) |' in second


def test_a_table() -> None:
    assert table('ab', [(1, 2)]) == '| a | b |\n| --- | --- |\n| 1 | 2 |\n'
