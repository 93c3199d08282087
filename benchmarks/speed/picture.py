"""Draw the results of a benchmark."""
from typing import Sequence

from matplotlib.figure import Figure
from measure import Section

from mmfreq.apis.pictures import draw_bars, save_figure


def plot_benchmark(sections: Sequence[Section], path: str) -> None:
    """Draw one bar chart per table of a benchmark. The first bar is the baseline and grey."""
    columns = 2
    lines = [sections[i:i + columns] for i in range(0, len(sections), columns)]
    heights = [0.75 + 0.3 * max(len(section.entries) for section in line) for line in lines]
    figure = Figure(figsize=(15, sum(heights) + 0.3), layout='constrained')
    figure.get_layout_engine().set(hspace=0.12, wspace=0.06)
    axes = figure.subplots(len(lines), columns, squeeze=False, height_ratios=heights)
    for axis, section in zip(axes.flat, sections):
        values = [entry.median for entry in section.entries]
        names = [entry.name for entry in section.entries]
        form = ',.0f' if max(values) >= 1000 else '.3g'
        draw_bars(axis, f'{section.title}, {section.unit}', names, values,
                  [format(value, form) for value in values])
    for axis in axes.flat[len(sections):]:
        axis.axis('off')
    save_figure(figure, path)
