"""The gates in front of EfficientNet-Lite0: the tracked results are those of the tracked rates."""
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import scipy.stats

from mmfreq.dct.channels import channel_indices, zigzag_order
from mmfreq.selection.rates import OnRates, load_on_rates

ROOT = Path(__file__).parents[2]


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks/transfer'))
    import gates
    return gates


def test_a_description_by_hand(gates: ModuleType) -> None:
    """24N with two channels of chroma exchanged; logits fall along the zigzag in Y, and are noise elsewhere."""
    kept = sorted({*channel_indices('24N', 4), 18, 22} - {16, 37})
    logits = np.random.default_rng(0).normal(0, 0.1, 48)
    logits[zigzag_order(4)] = np.linspace(0.2, 0.1, 16)
    logits[kept] += 5
    rates = OnRates(np.arange(48), 1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(-logits)), np.stack([logits] * 2), 1, 4)
    described = gates.described(rates, 24)
    assert described['channels'] == kept
    assert described['components'] == dict(Y=16, Cb=5, Cr=3)
    assert described['in_common'] == {'24N': 22}
    zigzag = np.argsort(zigzag_order(4))
    expected = [scipy.stats.spearmanr(zigzag, part).statistic for part in logits.reshape(3, 16)]
    assert list(described['rank_correlation'].values()) == pytest.approx(expected, abs=5e-4)
    assert described['rank_correlation']['Y'] == -1


def test_results_are_those_of_the_rates(gates: ModuleType) -> None:
    results = json.loads(gates.RESULTS.read_text(encoding='utf-8'))
    files = list((gates.HERE / 'results/gates').glob('*.json'))
    assert files
    for file in files:
        rates, result = load_on_rates(str(file)), results[file.stem]
        described = gates.described(rates, rates.meta['budget'])
        assert {key: result[key] for key in described} == described
