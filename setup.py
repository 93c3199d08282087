"""Installs mmfreq. Version ranges stand here; requirements/constraints.txt has the exact versions that are tested."""
import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r"__version__ = '([^']+)'", (ROOT / 'mmfreq/version.py').read_text()).group(1)

setup(
    name='mmfreq',
    version=VERSION,
    description='Learning in the frequency domain: DCT coefficients as the input of stock mmpretrain and mmdet models',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10,<3.14',
    packages=find_packages(include=['mmfreq', 'mmfreq.*']),
    package_data={'mmfreq': ['data/*.json']},
    install_requires=[
        'torch>=2.6',
        'torchvision>=0.21',
        'onedl-mmengine>=0.10.12,<1.0',
        'onedl-mmcv>=2.3.6,<3.0',
        'onedl-mmpretrain>=1.3.6,<2.0',
        'onedl-mmdetection>=3.5.1,<4.0',
        'numpy>=1.26',
        'Pillow>=10.0',
        'matplotlib>=3.7',
        'packaging',
        'pycocotools>=2.0.7',
        'tqdm>=4.60',
    ],
    extras_require={
        'demo': ['scikit-image>=0.24'],
        'docs': ['mkdocs>=1.6'],
        'test': ['pytest>=7.0', 'pytest-xdist>=3.5', 'scipy>=1.10', 'scikit-image>=0.24', 'ruff>=0.6'],
    },
    classifiers=[
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
)
