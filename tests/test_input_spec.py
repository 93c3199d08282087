"""One description of the input, whoever states it."""
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mmfreq import InputSpec
from mmfreq.dct.channels import channel_indices
from mmfreq.dct.stats import load_stats
from mmfreq.transforms import BlockDCT, ChannelSelect, FreqNormalize, FusedBlockDCT, YCbCr

FUSED = dict(type='FusedBlockDCT', channels='24S', stats='photos-448')
SINGLE = [dict(type='YCbCr'), dict(type='BlockDCT'), dict(type='ChannelSelect', channels='24S'),
          dict(type='mmfreq.FreqNormalize', stats='photos-448')]


def test_a_spec_has_the_values_that_the_transform_uses() -> None:
    spec, stats = InputSpec.of(FUSED), load_stats('photos-448')
    assert spec.channels == tuple(channel_indices('24S'))
    assert_array_equal(spec.mean, stats.mean[list(spec.channels)])
    assert_array_equal(spec.std, stats.std[list(spec.channels)])
    assert (spec.block_size, spec.upscale, spec.stride, spec.colors) == (8, 1, 8, 'ycbcr')
    assert (spec.dtype, spec.scale) == ('float32', None)


@pytest.mark.parametrize('arguments', [
    dict(channels='24S', stats='photos-448'), dict(channels='6S', stats='photos-448', dtype='int8', scale=8),
    dict(channels='24S', stats='photos-1333x800', upscale=2, channel_order='rgb'),
    dict(channels=[0, 5, 40], stats=dict(mean=[1.] * 48, std=[2.] * 48), block_size=4)])
def test_the_map_of_a_spec_is_that_of_the_transform(arguments: dict) -> None:
    image = np.random.default_rng(0).integers(0, 256, (37, 50, 3), np.uint8)
    transform = FusedBlockDCT(**arguments)
    spec = InputSpec.of(transform)
    assert spec == InputSpec.of(dict(arguments, type='FusedBlockDCT')) == InputSpec.from_steps([arguments])
    made = spec.block_map().channels(image)
    if spec.scale:
        made = np.clip(np.rint(made), -127, 127)
    assert_array_equal(transform(dict(img=image))['img'].transpose(2, 0, 1), made)


def test_what_a_network_cannot_tell_apart_is_equal() -> None:
    fused = InputSpec.of(FUSED)
    transforms = [YCbCr(), BlockDCT(), ChannelSelect('24S'), FreqNormalize('photos-448')]
    steps = [dict(vars(step), type=type(step)) for step in transforms]
    int8 = InputSpec.of(dict(FUSED, dtype='int8', scale=6))
    rounded = replace(fused, mean=tuple(value * (1 + 1e-9) for value in fused.mean))
    for other in (InputSpec.from_steps(SINGLE), InputSpec.from_steps(steps), int8, rounded):
        assert other == fused
        assert hash(other) == hash(fused)
    assert InputSpec.from_steps([dict(type='Resize', scale=3), *SINGLE, dict(type='PackInputs')]) == fused


@pytest.mark.parametrize(('change', 'attribute'), [
    (dict(channels='24D'), 'channels'), (dict(channels=channel_indices('24S')[::-1]), 'channels'),
    (dict(stats='photos-224'), 'mean'), (dict(upscale=2), 'upscale'), (dict(channel_order='rgb'), 'colors')])
def test_differences_are_named(change: dict, attribute: str) -> None:
    spec, other = InputSpec.of(FUSED), InputSpec.of({**FUSED, **change})
    assert spec != other
    assert attribute in spec.differences(other)
    assert spec != 'spec'


@pytest.mark.parametrize('step', [FUSED, dict(FUSED, dtype='int8', scale=6), dict(type='YCbCr')])
def test_specs_travel_as_json_and_pickles(step: dict) -> None:
    spec = InputSpec.of(step)
    copies = [InputSpec.from_dict(json.loads(json.dumps(spec.to_dict()))), pickle.loads(pickle.dumps(spec)),
              InputSpec.from_checkpoint(dict(meta=dict(input_spec=spec.to_dict())))]
    for copied in copies:
        assert copied.to_dict() == spec.to_dict()
    assert InputSpec.from_checkpoint(dict(state_dict={})) is None


def test_pixels_have_no_channels() -> None:
    assert InputSpec.from_steps([dict(type='PackInputs')]) == InputSpec()
    assert InputSpec.of(dict(type='YCbCr')).colors == 'ycbcr'
    for spec in (InputSpec(), InputSpec.from_steps([dict(type='BlockDCT')])):
        with pytest.raises(ValueError, match='YCbCr'):
            spec.block_map()


def test_without_statistics_or_selection_a_spec_has_all_coefficients() -> None:
    spec = InputSpec.from_steps([dict(type='YCbCr'), dict(type='BlockDCT', block_size=4)])
    assert spec.channels == tuple(range(48))
    assert_allclose(spec.mean + spec.std, [0] * 48 + [1] * 48)


@pytest.mark.parametrize(('step', 'words'), [
    (FUSED, ('24 DCT channels', '24S', '8x8', 'float32')),
    (dict(FUSED, channels=[3, 5], upscale=2), ('[3, 5]', '2 times')),
    (dict(FUSED, dtype='int8', scale=6), ('int8', 'scale 6')), (dict(type='YCbCr'), ('ycbcr pixels', ))])
def test_a_spec_prints_in_words(step: dict, words: tuple[str, ...]) -> None:
    for word in words:
        assert word in str(InputSpec.of(step))
