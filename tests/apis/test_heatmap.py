"""The picture of a gate."""
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mmfreq.apis.heatmap import _draw_on_rates, plot_on_rates
from mmfreq.selection.rates import OnRates


def test_heat_map_has_the_rate_and_the_zigzag_index_of_every_channel(tmp_path: Path) -> None:
    values = np.random.default_rng(3).random((8, 8))
    axis = Figure().subplots()
    image = _draw_on_rates(axis, values)
    assert np.array_equal(image.get_array(), values)
    labels = {text.get_position(): int(text.get_text()) for text in axis.texts}
    # (column, row) of the first and last places of JPEG's zigzag
    places = ((0, 0), (1, 0), (0, 1), (0, 2), (1, 1), (2, 0), (7, 7))
    assert [labels[place] for place in places] == [0, 1, 2, 3, 4, 5, 63]
    some = OnRates(np.array([0, 64, 130]), np.array([1.0, 0.5, 0.0]), np.ones(3), np.array([[1, 2, 3], [3, 2, 1]]), 5)
    whole = OnRates(np.arange(192), values.repeat(3), values.repeat(3), np.stack([values.repeat(3)] * 2), 5)
    plot_on_rates([whole, some], ['all', 'some'], str(tmp_path / 'map.svg'))
    picture = (tmp_path / 'map.svg').read_text()
    assert picture.count('UNDECIDED') == 1  # some
    assert 'is decided: its halves' in picture
