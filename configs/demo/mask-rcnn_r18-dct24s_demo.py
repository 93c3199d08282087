# The same network without its stem, on 24 DCT channels of the image upscaled by two: one block covers 4x4 pixels.
_base_ = './mask-rcnn_r18_demo.py'

model = dict(
    data_preprocessor=dict(type='FreqDetDataPreprocessor', mean=None, std=None, bgr_to_rgb=False),
    backbone=dict(type='FreqResNet', in_channels=24))

freq = [dict(type='FusedBlockDCT', channels='24S', stats='photos-1333x800', upscale=2)]
train_pipeline = [*_base_.train_pipeline[:-1], *freq, _base_.train_pipeline[-1]]
test_pipeline = [*_base_.test_pipeline[:-1], *freq, _base_.test_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
