"""Fit stock RGB weights to backbones that take C DCT channels. Knows no host."""
import torch

StateDict = dict[str, torch.Tensor]


def drop_stem(state_dict: StateDict, prefix: str, own: StateDict, stem_modules: tuple[str, ...],
              first_weight: str, channel_axis: int) -> str:
    """Drop the stem of a stock state dict and fit its first block to C channels, in place.

    The first channels come from ``state_dict``, any further ones from ``own``, the backbone's present
    weights. A shortcut that only one of the two blocks has is taken from ``own`` or dropped. Tensors
    whose shapes differ otherwise stay as they are: loading reports them.

    The backbone's names have ``prefix`` in ``state_dict`` alone. ``channel_axis`` of ``first_weight``
    counts the channels. Return a report, which is empty if ``state_dict`` has no stem.
    """
    dropped = tuple(f'{prefix}{name}.' for name in stem_modules)
    stem = [key for key in state_dict if key.startswith(dropped)]
    if not stem:
        return ''
    for key in stem:
        del state_dict[key]
    notes = [f'stem dropped ({len(stem)} tensors)']
    block = '.'.join(first_weight.split('.')[:2])
    shortcut = f'{block}.downsample.'
    stock_shortcut = [key for key in state_dict if key.startswith(prefix + shortcut)]
    if stock_shortcut and not any(name.startswith(shortcut) for name in own):
        for key in stock_shortcut:
            del state_dict[key]
        notes.append(f'{block}.downsample dropped')
    first = state_dict.get(prefix + first_weight)
    sizes = (0 if first is None else first.shape[channel_axis],
             own[first_weight].shape[channel_axis])
    fitted = []
    for name, weight in own.items():
        stock = state_dict.get(prefix + name)
        if stock is None and name.startswith(shortcut) and not stock_shortcut:
            state_dict[prefix + name] = weight
            if weight.ndim:  # not num_batches_tracked
                notes.append(f'{name} newly made')
        elif stock is not None and name.startswith(f'{block}.') and stock.shape != weight.shape:
            state_dict[prefix + name] = fit_channels(stock, weight, sizes)
            if state_dict[prefix + name] is not stock:
                fitted.append(name)
    if fitted:
        notes.append(f'first {min(sizes)} of {sizes[0]} channels taken in {" and ".join(fitted)}')
        if sizes[1] > sizes[0]:
            notes.append(f'{sizes[1] - sizes[0]} newly made')
    return ', '.join(notes)


def fit_channels(stock: torch.Tensor, own: torch.Tensor, sizes: tuple[int, int]) -> torch.Tensor:
    """Return ``own`` with its first channels taken from ``stock``, in the dtype of ``stock``.

    If the shapes do not differ in exactly one axis of these two ``sizes``, return ``stock`` itself.
    """
    differing = [pair for pair in zip(stock.shape, own.shape) if pair[0] != pair[1]]
    if stock.ndim != own.ndim or differing != [sizes]:
        return stock
    shared = tuple(slice(min(pair)) for pair in zip(stock.shape, own.shape))
    fitted = own.detach().clone().to(stock.dtype)
    fitted[shared] = stock[shared]
    return fitted


def renumber_shortcuts(state_dict: StateDict, prefix: str, own: StateDict) -> None:
    """Give the layers of shortcuts the numbers that they have in ``own``, in place.

    Where a shortcut averages before its convolution (ResNetV1d, ResNeSt) and the stride is 1, mmdet
    counts an average over one pixel as layer 0, and mmpretrain leaves it out. Arguments as
    :func:`drop_stem`.
    """
    for name, weight in own.items():
        if '.downsample.' not in name or weight.ndim != 4:
            continue
        shortcut, number, _ = name.rsplit('.', 2)
        start = f'{prefix}{shortcut}.'
        keys = [key for key in state_dict if key.startswith(start)]
        convolution = next((key for key in keys if state_dict[key].ndim == 4), None)
        if convolution is None:
            continue
        shift = int(number) - int(convolution[len(start):].split('.')[0])
        values = [state_dict.pop(key) for key in keys]
        for key, value in zip(keys, values):
            layer, _, leaf = key[len(start):].partition('.')
            state_dict[f'{start}{int(layer) + shift}.{leaf}'] = value
