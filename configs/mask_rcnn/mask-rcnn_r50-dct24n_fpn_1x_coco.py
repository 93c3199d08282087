# Mask R-CNN on 24 native channels, 24 x 200 x 334: the stock pipeline and then the DCT of 4x4 blocks. The backbone turns the
# channels into pixels and is otherwise the stock one. Stock checkpoints need no training: docs/stock_weights.md.
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'

custom_imports = dict(imports=['mmfreq.models.det'])
freq = dict(type='FusedBlockDCT', channels='24N', stats='imagenette-224-4x4', block_size=4)
model = dict(
    data_preprocessor=dict(type='FreqDetDataPreprocessor', mean=None, std=None, bgr_to_rgb=False),
    backbone=dict(type='UnpackedResNet', freq=freq, pixels=_base_.model.data_preprocessor))

train_pipeline = [*_base_.train_pipeline[:-1], freq, _base_.train_pipeline[-1]]
test_pipeline = [*_base_.test_pipeline[:-1], freq, _base_.test_pipeline[-1]]
train_dataloader = dict(dataset=dict(type='CheckedCocoDataset', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(type='CheckedCocoDataset', pipeline=test_pipeline))
test_dataloader = val_dataloader
custom_hooks = [dict(type='NumClassCheckHook')]
default_hooks = dict(input_spec=dict(type='InputSpecHook'))
