# 12 native channels, a quarter of the values of RGB.
_base_ = './dct24n.py'

model = dict(backbone=dict(in_channels=12))
freq = [dict(_base_.freq[0], channels='12N')]
train_pipeline = [*_base_.train_pipeline[:3], *freq, _base_.train_pipeline[-1]]
test_pipeline = [*_base_.test_pipeline[:3], *freq, _base_.test_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
