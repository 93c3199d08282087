"""The law of the budget: its numbers, and what a gate learns under it where the useful channels are known."""
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmfreq.selection.budget import ChannelBudget
from mmfreq.selection.gate import ChannelGate

# The law


def test_budget_is_geometric_between_the_phases() -> None:
    law = ChannelBudget(192, 12, (0.2, 0.6))
    actual = [law.budget(progress) for progress in (0, 0.2, 0.3, 0.4, 0.5, 0.6, 1)]
    assert actual == pytest.approx([192, 192, 96, 48, 24, 12, 12])


def test_noise_falls_with_the_budget() -> None:
    law = ChannelBudget(192, 12, (0.2, 0.6))
    assert [law.noise(progress) for progress in (0, 0.2, 0.4, 0.5, 0.6, 1)] == pytest.approx(
        [1, 1, 0.5, 0.25, 0.02, 0.02])


def test_price_by_hand() -> None:
    law = ChannelBudget(100, 10, (0.2, 0.6))
    assert law.price(0.1, kept=90, loss=3.0) == 0
    assert law.price(0.89, kept=10, loss=3.0) == 0
    error = math.log(2)
    assert law.price(0.90, kept=20, loss=3.0) == pytest.approx(0.03 * 4.22 * error)
    assert law.price(0.91, kept=20, loss=3.0) == pytest.approx(0.03 * 4.44 * error)
    assert law.price(0.94, kept=10, loss=3.0) == pytest.approx(0.03 * 0.44 * error)
    assert law.price(0.99, kept=10, loss=1.5) == pytest.approx(0.015 * 0.44 * error)


def test_too_few_channels_are_subsidised_after_the_squeeze_but_not_before() -> None:
    law = ChannelBudget(100, 10, (0.2, 0.6))
    assert law.price(0.59, kept=5, loss=3.0) == 0
    assert law.price(0.60, kept=5, loss=3.0) == pytest.approx(-0.03 * 4.22 * math.log(2))


@pytest.mark.parametrize(('begin', 'kept', 'price'), [(0.2, 500, 0), (0.61, 1e6, 20), (0.61, 0.1, -20)])
def test_the_integral_stands_still_while_the_price_is_clipped(begin: float, kept: float, price: float) -> None:
    law = ChannelBudget(10_000, 1000, (0.2, 0.6))
    for i in range(100):
        assert law.price(begin + i / 1000, kept, loss=10_000.0) == price
    assert law.integral == 0


# A task whose useful channels are known

CHANNELS = 32
WEIGHTS = {1: 1.0, 4: -0.8, 9: 0.7, 16: -0.9, 25: 0.6, 30: 0.8}  # of the channels that decide between two classes


class Signs(Dataset):
    """Noise (32, 2, 2) of two classes: the sign of a weighted sum of the means of the first ``useful`` channels."""
    metainfo: dict = {}

    def __init__(self, useful: int, seed: int) -> None:
        self.inputs = torch.randn(512, CHANNELS, 2, 2, generator=torch.Generator().manual_seed(seed))
        weights = torch.zeros(CHANNELS)
        for channel in list(WEIGHTS)[:useful]:
            weights[channel] = WEIGHTS[channel]
        self.labels = (self.inputs.mean(dim=(2, 3)) @ weights > 0).long()

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return dict(inputs=self.inputs[index], labels=self.labels[index])


class GatedClassifier(BaseModel):
    """A gate and a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = ChannelGate(CHANNELS)
        self.head = torch.nn.Linear(CHANNELS, 2)

    def forward(self, inputs: list[torch.Tensor], labels: list[torch.Tensor], mode: str = 'tensor') -> dict:
        scores = self.head(self.gate(torch.stack(list(inputs))).mean(dim=(2, 3)))
        return dict(loss=F.cross_entropy(scores, torch.stack(list(labels))))


def train(work_dir: Path, target: int, seed: int, useful: int) -> ChannelGate:
    """Return the gate after 20 epochs of 16 iterations."""
    torch.manual_seed(seed)
    model = GatedClassifier()
    optimizer = dict(type='SGD', lr=0.2, momentum=0.9, weight_decay=0.)
    runner = Runner(
        model,
        str(work_dir),
        train_dataloader=dict(batch_size=32, num_workers=0, dataset=Signs(useful, 0),
                              sampler=dict(type='DefaultSampler', shuffle=True)),
        train_cfg=dict(by_epoch=True, max_epochs=20),
        optim_wrapper=dict(optimizer=optimizer, paramwise_cfg=dict(custom_keys={'gate.logit': dict(lr_mult=10)})),
        param_scheduler=dict(type='CosineAnnealingLR', T_max=20, convert_to_iter_based=True),
        default_hooks=dict(checkpoint=None),
        custom_hooks=[dict(type='GateLossHook', target=target)],
        randomness=dict(seed=seed),
        default_scope='mmengine',
        experiment_name=f'{work_dir.name}-{target}-{seed}-{useful}',
        cfg=Config(dict(train_dataloader=dict(dataset=dict(pipeline=[])))))
    runner.train()
    return model.gate


@pytest.mark.parametrize(('target', 'seed'), [(3, 0), (5, 1), (6, 2)])
def test_the_useful_channels_are_kept_in_evaluation_and_in_draws(target: int, seed: int, tmp_path: Path) -> None:
    gate, images = train(tmp_path, target, seed, useful=target), Signs(target, 1).inputs
    useful = list(WEIGHTS)[:target]
    for training in (False, True):
        gate.train(training)
        with torch.no_grad():
            gate(images)
        rates = gate.mask.mean(dim=0)
        assert (rates > 0.5).nonzero().flatten().tolist() == useful
        assert rates.sum().item() == pytest.approx(target, abs=0.5)


def test_a_target_above_the_number_of_useful_channels_is_met(tmp_path: Path) -> None:
    gate, images = train(tmp_path, 10, 0, useful=5), Signs(5, 1).inputs
    kept = {}
    for training in (False, True):
        gate.train(training)
        with torch.no_grad():
            gate(images)
        kept[training] = gate.mask.sum(dim=1).mean().item()
        assert gate.mask[:, list(WEIGHTS)[:5]].mean() > 0.99
    assert kept[False] == pytest.approx(10, abs=1)
    assert kept[True] == pytest.approx(kept[False], abs=1)
