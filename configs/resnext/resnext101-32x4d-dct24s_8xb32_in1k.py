# ResNeXt-101 32x4d: the starting point of mask-rcnn_x101-32x4d-dct24s_fpn_1x_coco.py.
_base_ = './resnext50-32x4d-dct24s_8xb32_in1k.py'

model = dict(backbone=dict(depth=101))
