# 48 channels as int8: one byte per value.
_base_ = './dct48s.py'

data_preprocessor = dict(mean=[0], std=[8])
freq = [dict(_base_.freq[0], dtype='int8', scale=8)]
train_pipeline = [*_base_.train_pipeline[:3], *freq, _base_.train_pipeline[-1]]
test_pipeline = [*_base_.test_pipeline[:3], *freq, _base_.test_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
