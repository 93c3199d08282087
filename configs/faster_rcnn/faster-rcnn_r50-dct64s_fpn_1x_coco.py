# Faster R-CNN with DCT-64S of Xu et al. 2020: 64 x 200 x 334.
_base_ = './faster-rcnn_r50-dct24s_fpn_1x_coco.py'

model = dict(backbone=dict(in_channels=64))

freq = [dict(_base_.freq[0], channels='64S')]
train_pipeline = [*_base_.train_pipeline[:-2], *freq, _base_.train_pipeline[-1]]
test_pipeline = [*_base_.test_pipeline[:-2], *freq, _base_.test_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
