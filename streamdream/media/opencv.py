"""Load OpenCV at the first use; the error for a missing system library names the package to install."""
from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType

from streamdream.errors import MissingPackage

PACKAGE_OF = {"libGL.so": "libgl1", "libgthread-2.0": "libglib2.0-0", "libglib-2.0": "libglib2.0-0",
              "libxcb": "libxcb1", "libSM": "libsm6", "libX11": "libx11-6"}
"""Shared libraries that the desktop build of OpenCV needs -> the Debian and Ubuntu package with them."""


@cache
def cv2() -> ModuleType:
    """The module, with its log off. Raises MissingPackage with the command that installs what is missing."""
    try:
        module = importlib.import_module("cv2")
        module.utils.logging.setLogLevel(module.utils.logging.LOG_LEVEL_SILENT)  # what matters is raised
        return module
    except ImportError as error:
        raise MissingPackage(explain_import_error(str(error))) from None


def explain_import_error(reason: str) -> str:
    """The text of an import error -> one line that says what to install."""
    for library, package in PACKAGE_OF.items():
        if library in reason:
            return (f"OpenCV needs the system library {reason.partition(':')[0]}: apt-get install {package} (or, with "
                    "no screen: pip uninstall opencv-python && pip install opencv-python-headless)")
    return f"OpenCV cannot be loaded ({reason}): pip install opencv-python"
