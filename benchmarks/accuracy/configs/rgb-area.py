# Crops resized by area averaging. Bilinear resizing to 64x64 aliases, and the DCT rows shrink their crops half as much.
_base_ = './rgb.py'

resize = dict(interpolation='area')
train_pipeline = [_base_.train_pipeline[0], dict(_base_.train_pipeline[1], **resize), *_base_.train_pipeline[2:]]
test_pipeline = [_base_.test_pipeline[0], dict(_base_.test_pipeline[1], **resize), *_base_.test_pipeline[2:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
