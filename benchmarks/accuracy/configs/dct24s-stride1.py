# Stage 2 at stride 1, as in the network that the authors of the paper released.
_base_ = './dct24s.py'

model = dict(backbone=dict(strides=(1, 1, 2, 2)))
