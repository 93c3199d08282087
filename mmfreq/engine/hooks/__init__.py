"""Hooks that configs name, in mmengine's root registry."""
from mmfreq.engine.hooks.input_spec import InputSpecHook
from mmfreq.engine.hooks.progress import ProgressHook
from mmfreq.engine.hooks.visualization import FreqVisualizationHook
from mmfreq.selection.hook import GateLossHook

__all__ = ['FreqVisualizationHook', 'GateLossHook', 'InputSpecHook', 'ProgressHook']
