"""The rows of the study: the config of each row, and its label in tables and figures."""
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """One row of the table, trained once for each seed.

    Args:
        label (str): Label in tables and figures.
        config (str): Name of a config in ``configs/``, without ``.py``.
        channels (str): Selection that replaces the one in the config: a name, or a file in this folder with ``{seed}``
            as a placeholder. Defaults to an empty string: no replacement.
        needs (str): Row that must be finished first, with the same seed.
        reference (str): Row to compare with. All rows with the same reference form one table.
    """
    label: str
    config: str
    channels: str = ''
    needs: str = ''
    reference: str = 'rgb'

    def options(self, seed: int) -> list[str]:
        """Return the arguments of ``--cfg-options`` for ``seed``."""
        options = [f'randomness.seed={seed}']
        if self.channels:
            channels = self.channels.format(seed=seed)
            if channels.endswith('.json'):
                channels = (HERE / channels).as_posix()
            for part in ('train', 'val', 'test'):
                options.append(f'{part}_dataloader.dataset.pipeline.3.channels={channels}')
        return options


ROWS = {
    'rgb': Row('RGB, 64x64', 'rgb'),
    'dct24s': Row('24S', 'dct24s'),
    'late96': Row('late entry, 96 of 16x16', 'late96'),
    'late96-17epochs': Row('late entry, 17 epochs', 'late96-17epochs'),
    'rgb-17epochs': Row('RGB, 64x64, 17 epochs', 'rgb-17epochs'),
    'dct24s-17epochs': Row('24S, 17 epochs', 'dct24s-17epochs'),
    'late192': Row('late entry, all 192 of 64x64', 'late192'),
    'gate': Row('gate over all 192, 24 kept', 'gate'),
    'dct48s': Row('48S', 'dct48s'),
    'random24': Row('24 at random', 'dct24s', 'selections/random-{seed}.json'),
    'learned24': Row('24 learned', 'dct24s', 'selections/learned-{seed}.json', needs='gate'),
    'dct24s-int8': Row('24S as int8', 'dct24s-int8'),
    'highest24': Row('24 highest', 'dct24s', 'selections/highest.json'),
    'dct24d': Row('24D', 'dct24s', '24D'),
    'rgb-area': Row('RGB, 64x64, area resize', 'rgb-area'),
    'ycbcr': Row('YCbCr, 64x64', 'ycbcr'),
    'dct24t': Row('24T', 'dct24s', '24T'),
    'dct64s': Row('64S', 'dct64s'),
    'dct192': Row('all 192', 'dct192'),
    'dct48s-int8': Row('48S as int8', 'dct48s-int8'),
    'dct24s-stride1': Row('24S, stage 2 at stride 1', 'dct24s-stride1'),
    'rgb-128': Row('RGB, 128x128', 'rgb-128'),
    'native-rgb': Row('RGB, 64x64, again', 'rgb', reference='native-rgb'),
    'dct24n': Row('24N', 'dct24n', reference='native-rgb'),
    'dct24n-planes': Row('24N of JPEG planes', 'dct24n-planes', reference='native-rgb'),
    'dct12n': Row('12N', 'dct12n', reference='native-rgb'),
    'clothing-rgb': Row('RGB, 64x64', 'clothing-rgb', reference='clothing-rgb'),
    'clothing-dct24s': Row('24S', 'clothing-dct24s', reference='clothing-rgb'),
}
