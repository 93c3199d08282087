# DCT-192 at 28x28, row [17] of Xu et al. 2020, Table 1 (Gueguen et al., "Faster Neural Networks Straight from JPEG",
# 2018): a 224x224 crop, 192 x 28 x 28. The input has a stride of 8 already; stages 1 and 2 keep it: 28, 28, 14, 7.
_base_ = './resnet50-dct192_8xb32_in1k.py'

model = dict(backbone=dict(strides=(1, 1, 2, 2)))

freq = [dict(_base_.freq[0], stats='photos-224')]
load, flip, pack = _base_.train_pipeline[0], _base_.train_pipeline[2], _base_.train_pipeline[-1]
train_crop = dict(_base_.train_pipeline[1], scale=224)
test_resize = dict(_base_.test_pipeline[1], scale=256)
train_pipeline = [load, train_crop, flip, *freq, pack]
test_pipeline = [load, test_resize, dict(type='CenterCrop', crop_size=224), *freq, pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
