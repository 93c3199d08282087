# The RGB network of the accuracy study: ResNet-18 at half width, 64x64.
_base_ = '../../accuracy/configs/rgb.py'
