# ViT-B/16 on 24 native channels, 24 x 56 x 56: the stock pipeline and then the DCT of 4x4 blocks, 4x4 for each patch.
# Stock checkpoints need no training: docs/stock_weights.md.
_base_ = 'mmpretrain::vision_transformer/vit-base-p16_64xb64_in1k.py'

custom_imports = dict(imports=['mmfreq.models.cls'])
freq = dict(type='FusedBlockDCT', channels='24N', stats='imagenette-224-4x4', block_size=4)
model = dict(backbone=dict(type='FreqVisionTransformer', in_channels=24, freq=freq, pixels=_base_.data_preprocessor))
data_preprocessor = dict(mean=None, std=None, to_rgb=False)

train_pipeline = [*_base_.train_pipeline[:-1], freq, _base_.train_pipeline[-1]]
test_pipeline = [*_base_.test_pipeline[:-1], freq, _base_.test_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
default_hooks = dict(input_spec=dict(type='InputSpecHook'), visualization=dict(type='FreqVisualizationHook'))
