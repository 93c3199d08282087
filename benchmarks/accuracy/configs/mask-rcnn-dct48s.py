# Mask R-CNN of `make demo-detection` on 48 DCT channels.
_base_ = './mask-rcnn-dct24s.py'

model = dict(backbone=dict(in_channels=48))
freq = [dict(_base_.freq[0], channels='48S')]
train_pipeline = [*_base_.train_pipeline[:-2], *freq, _base_.train_pipeline[-1]]
test_pipeline = [*_base_.test_pipeline[:-2], *freq, _base_.test_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
