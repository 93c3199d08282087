"""Classify images, or detect in them, with an exported file: python run_onnx.py model.onnx IMAGE...

Needs onnxruntime, numpy and Pillow alone: neither torch, nor mmfreq, nor OpenMMLab.
"""
import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

if len(sys.argv) < 3:
    sys.exit('usage: python run_onnx.py model.onnx IMAGE...')
session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])
about = session.get_modelmeta().custom_metadata_map
classes = json.loads(about['classes'])
for path in sys.argv[2:]:
    pixels = np.array(Image.open(path).convert('RGB'))[:, :, ::1 if about['colors'] == '"rgb"' else -1]
    found = dict(zip([output.name for output in session.get_outputs()], session.run(None, {'input': pixels[None]})))
    scores = found['scores'][0]
    labels = found['labels'][0] if 'labels' in found else [scores.argmax()]
    shown = 0
    for i, label in enumerate(labels):
        score = scores[i if 'boxes' in found else label]
        if label < 0 or 'boxes' in found and score < 0.3:
            break
        box = found['boxes'][0, i].round().astype(int).tolist() if 'boxes' in found else ''
        print(path, classes[label] if classes else label, f'{score:.3f}', *box)
        shown += 1
    if not shown:
        print(path, 'nothing with a score of 0.3 or more')
