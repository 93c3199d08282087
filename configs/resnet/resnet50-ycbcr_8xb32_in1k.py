# YCbCr of Xu et al. 2020, Table 1: the stock network and 224x224 crop, in another colour space, 3 x 224 x 224.
_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'

custom_imports = dict(imports=['mmfreq.models.cls'])
data_preprocessor = dict(
    # The mean is ImageNet's RGB mean in YCbCr, the deviation is that of the images of photos-448
    mean=[117.04, 120.38, 132.73],
    std=[60.33, 16.52, 23.67],
    to_rgb=False)

load, pack = dict(type='LoadImageFromFile'), dict(type='PackInputs')
train_pipeline = [load, *_base_.train_pipeline[1:-1], dict(type='YCbCr'), pack]
test_pipeline = [load, *_base_.test_pipeline[1:-1], dict(type='YCbCr'), pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
default_hooks = dict(input_spec=dict(type='InputSpecHook'), visualization=dict(type='FreqVisualizationHook'))
