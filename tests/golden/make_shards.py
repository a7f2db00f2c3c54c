"""Write tests/golden/shards with the libraries whose formats they are: pip install webdataset datasets pillow.

python tests/golden/make_shards.py tests/golden/shards
"""

import io
import sys

import numpy as np
import webdataset as wds
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as P

rng = np.random.default_rng(0)


def png(n, kind):
    a = rng.integers(0, 256, (10, 12, 3), dtype=np.uint8)
    a[..., 0] = n * 10
    b = io.BytesIO()
    P.fromarray(a).save(b, kind)
    return b.getvalue()


out = sys.argv[1]
names = ["wren", "owl", "jay"]
for part, count in (("train", 18), ("test", 6)):
    with wds.TarWriter(f"{out}/birds-{part}-000000.tar") as sink:
        for n in range(count):
            sink.write(
                {"__key__": f"s{n:04d}", "jpg": png(n, "JPEG"), "cls": n % 3, "json": {"Species": names[n % 3], "n": n}}
            )
rows = {"image": [{"bytes": png(n, "PNG"), "path": f"{n}.png"} for n in range(18)], "label": [n % 3 for n in range(18)]}
Dataset.from_dict(rows, features=Features({"image": Image(), "label": ClassLabel(names=names)})).to_parquet(
    f"{out}/birds.parquet"
)
