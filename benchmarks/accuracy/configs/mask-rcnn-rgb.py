# Mask R-CNN of `make demo-detection`.
_base_ = '../../../configs/demo/mask-rcnn_r18_demo.py'
