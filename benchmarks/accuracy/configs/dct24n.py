# 24 native channels: blocks of 4x4 pixels of the RGB network's own 64x64 crops, a grid of 16x16 blocks.
_base_ = './rgb.py'

custom_imports = dict(imports=['mmfreq.models.cls'])
model = dict(backbone=dict(type='FreqResNet', in_channels=24))
data_preprocessor = dict(mean=None, std=None, to_rgb=False)

freq = [
    dict(type='FusedBlockDCT', channels='24N', stats='{{ fileDirname }}/../statistics-4x4.json', block_size=4)
]
train_pipeline = [*_base_.train_pipeline[:-1], *freq, _base_.train_pipeline[-1]]
test_pipeline = [*_base_.test_pipeline[:-1], *freq, _base_.test_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
default_hooks = dict(input_spec=dict(type='InputSpecHook'), visualization=dict(type='FreqVisualizationHook'))
