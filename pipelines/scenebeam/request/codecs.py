"""Names of the codecs that products may be compressed with; `raster.codecs` implements them."""

from __future__ import annotations

from typing import Literal

Codec = Literal["deflate", "zstd", "lzw"]
