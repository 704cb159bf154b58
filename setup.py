"""Packaging of vidswap. Settings of the tools around it stand in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
VERSION = re.search(
    r'^__version__ = "(.+?)"', (HERE / "vidswap" / "__init__.py").read_text("utf-8"), re.M
).group(1)

# Ranges, not pins, so that a machine with a GPU can bring its own torch build;
# tools/constraints.txt holds the exact versions that the tests ran with.
INSTALL_REQUIRES = [
    "torch>=2.3",
    "av>=14",
    # Wheels for Linux on x86-64 only; PyAV serves random access elsewhere.
    "decord>=0.6.0; platform_system == 'Linux' and platform_machine == 'x86_64'",
    "insightface>=0.7.3",
    "face-alignment>=1.4",
    "kornia>=0.7.2",
    "numpy>=1.26",
    "tqdm>=4.66",
    "click>=8.1.7",
    "safetensors>=0.4.3",
    "ai-edge-litert>=1.2",
    "PyYAML>=6.0",
    "pillow>=10.3",
    "c2pa-python>=0.30",
    # Certificates for the mark's signature.
    "cryptography>=42",
]
TEST = ["pytest>=8", "pytest-timeout>=2.3", "hypothesis>=6.100"]
EXTRAS_REQUIRE = {
    "test": TEST,
    "openvino": ["openvino>=2024.4"],
    # 2.52 is the first with token authentication.
    "ray": ["ray>=2.52"],
    # Landmarks of an export as Parquet.
    "parquet": ["pyarrow>=14"],
    "dev": [*TEST, "ruff>=0.6", "mypy>=1.11", "openvino>=2024.4", "dlib-bin>=19.24", "onnx>=1.16"],
}

setup(
    name="vidswap",
    version=VERSION,
    description="Swap a face through a whole video by mixing latents of a generator",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["vidswap", "vidswap.*"]),
    package_data={"vidswap": ["assets/*"]},
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    entry_points={"console_scripts": ["vidswap=vidswap.cli:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 14)),
        "Topic :: Multimedia :: Video",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
)
