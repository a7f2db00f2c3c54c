"""TFDS builder over the photographs of solar cells in the PyPI package `elpv-dataset`: nothing is downloaded."""

import csv
import dataclasses
import importlib.resources

import numpy as np
import tensorflow_datasets as tfds

_DESCRIPTION = """
2,624 electroluminescence photographs (300 x 300, grey) of solar cells from 44 modules, each with a probability of being
defective (0, 1/3, 2/3 or 1) given by experts and the type of the module, mono- or polycrystalline. The label is
"defective" from a probability of 0.5 on.

The photographs are licensed CC-BY-NC-SA-4.0: not for commercial use. (The package's code is Apache-2.0.)
"""

_CITATION = """
@Article{Deitsch2019,
  author  = {Deitsch, Sergiu and Christlein, Vincent and Berger, Stephan and Buerhop-Lutz, Claudia and Maier, Andreas
             and Gallwitz, Florian and Riess, Christian},
  title   = {Automatic classification of defective photovoltaic module cells in electroluminescence images},
  journal = {Solar Energy},
  volume  = {185},
  pages   = {455--468},
  year    = {2019},
  doi     = {10.1016/j.solener.2019.02.067},
}
@InProceedings{Buerhop2018,
  author    = {Buerhop-Lutz, Claudia and Deitsch, Sergiu and Maier, Andreas and Gallwitz, Florian and Berger, Stephan
               and Doll, Bernd and Hauch, Jens and Camus, Christian and Brabec, Christoph J.},
  title     = {A Benchmark for Visual Identification of Defective Solar Cells in Electroluminescence Imagery},
  booktitle = {European PV Solar Energy Conference and Exhibition (EU PVSEC)},
  year      = {2018},
  doi       = {10.4229/35thEUPVSEC20182018-5CV.3.15},
}
"""

CLASS_NAMES = ("functional", "defective")
_TYPES = ("mono", "poly")


@dataclasses.dataclass(eq=False)
class ElpvConfig(tfds.core.BuilderConfig):
    """One selection of the cells.

    Args:
        types: tuple of str, which types of module take part: `"mono"`, `"poly"`.
    """

    types: tuple[str, ...] = _TYPES


class Elpv(tfds.core.GeneratorBasedBuilder):
    """Prepare the ELPV photographs as a TFDS dataset, configs `all` (the default), `mono` and `poly`, one split
    `train`.

    Example:
        >>> from kresnets.data.elpv import Elpv
        >>> Elpv(config="mono").info.features["label"].names
        ['functional', 'defective']
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [
        ElpvConfig(name="all", description="All 2,624 cells."),
        ElpvConfig(name="mono", description="The 1,074 monocrystalline cells.", types=("mono",)),
        ElpvConfig(name="poly", description="The 1,550 polycrystalline cells.", types=("poly",)),
    ]

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(300, 300, 1), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=CLASS_NAMES),
            "probability": tfds.features.Scalar(np.float32),
            "type": tfds.features.ClassLabel(names=_TYPES),
            "filename": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            description=_DESCRIPTION,
            citation=_CITATION,
            homepage="https://github.com/zae-bayern/elpv-dataset",
            license="CC-BY-NC-SA-4.0",
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for path, probability, kind in photographs():
            if kind in self.builder_config.types:
                yield (
                    path.name,
                    {
                        "image": path.read_bytes(),
                        "label": int(probability >= 0.5),
                        "probability": probability,
                        "type": kind,
                        "filename": path.name,
                    },
                )


def photographs():
    """Yield (path, probability, type) of each photograph in the installed package."""
    try:
        data = importlib.resources.files("elpv_dataset") / "data"
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'The ELPV photographs are not installed: `pip install "kresnets[elpv]"` (90 MB; the photographs are '
            "CC-BY-NC-SA-4.0, not for commercial use)."
        ) from error
    with (data / "labels.csv").open(encoding="utf-8", newline="") as file:
        for path, probability, kind in csv.reader(file, delimiter=" ", skipinitialspace=True):
            yield data / path, float(probability), kind
