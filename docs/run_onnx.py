"""Classify images with an exported file: python run_onnx.py model.onnx IMAGE...

Needs onnxruntime, numpy and Pillow alone: neither torch, nor mmfreq, nor OpenMMLab.
"""
import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])
about = session.get_modelmeta().custom_metadata_map
classes = json.loads(about['classes'])
for path in sys.argv[2:]:
    pixels = np.array(Image.open(path).convert('RGB'))[:, :, ::1 if about['colors'] == '"rgb"' else -1]
    scores = session.run(None, {'input': pixels[None]})[0][0]
    best = int(scores.argmax())
    print(path, classes[best] if classes else best, f'{scores[best]:.3f}')
