# Mask R-CNN of `make demo-detection` on 24 DCT channels.
_base_ = '../../../configs/demo/mask-rcnn_r18-dct24s_demo.py'
