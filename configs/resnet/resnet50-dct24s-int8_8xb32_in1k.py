# DCT-24S as int8: half the bytes of the stock 224x224 RGB input.
_base_ = './resnet50-dct24s_8xb32_in1k.py'

freq = [dict(_base_.freq[0], dtype='int8', scale=6)]
data_preprocessor = dict(mean=[0], std=[6])
train_pipeline = [*_base_.train_pipeline[:3], *freq, _base_.train_pipeline[-1]]
test_pipeline = [*_base_.test_pipeline[:3], *freq, _base_.test_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
