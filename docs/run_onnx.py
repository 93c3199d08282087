"""Classify images, or detect in them, with an exported file: python run_onnx.py model.onnx IMAGE...

It needs onnxruntime, NumPy and Pillow, but neither torch nor mmfreq nor OpenMMLab.
"""
import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

if len(sys.argv) < 3:
    sys.exit('usage: python run_onnx.py model.onnx IMAGE...')
session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])
metadata = session.get_modelmeta().custom_metadata_map
about = {key: json.loads(value) for key, value in metadata.items()}
names = [output.name for output in session.get_outputs()]
for path in sys.argv[2:]:
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode[0] in 'IF':  # 16 bits or more, which convert() would clip
        print(f'{path}: expected an image of 8 bits, got mode {image.mode} of Pillow', file=sys.stderr)
        continue
    pixels = np.array(image.convert('RGB'))[:, :, ::1 if about['colors'] == 'rgb' else -1]
    outputs = [output[0] for output in session.run(None, {'input': pixels[None]})]
    scores = outputs[names.index('scores')]
    if 'boxes' in names:
        boxes, labels, scores = [part[scores >= 0.3] for part in outputs[:3]]
    else:
        labels = scores.argsort()[::-1]
        best = scores[labels] >= about['threshold'] if 'threshold' in about else slice(about['topk'])
        boxes, labels, scores = np.zeros((len(scores), 0)), labels[best], scores[labels[best]]
    for box, label, score in zip(boxes, labels, scores):
        name = about['classes'][label] if about['classes'] else label
        print(path, name, f'{score:.3f}', *box.round().astype(int))
    if not len(labels):
        print(path, 'nothing above the threshold')
