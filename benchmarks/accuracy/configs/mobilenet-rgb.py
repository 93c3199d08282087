# The stock MobileNetV2 with the recipe of rgb.py.
_base_ = './rgb.py'

model = dict(backbone=dict(_delete_=True, type='MobileNetV2', widen_factor=1.0), head=dict(in_channels=1280))
