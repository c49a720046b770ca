"""Make whole pictures of interlaced ones, whose odd and even lines were taken at different times."""
from __future__ import annotations

MODES = {"auto": "where a picture says that it is interlaced", "on": "all pictures", "off": "none"}
