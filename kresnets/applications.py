"""The public builders, one line each, all with the signature of `keras.applications.ResNet50`."""

import fnmatch as _fnmatch

from kresnets.build import build as _build
from kresnets.specs import SPECS as _SPECS

_DOC = """Build {name} ({reference}).

    {depth}, {params}, {size} x {size} pixels unless told otherwise, at least {min_size}.

    Args:
        include_top: whether the head (global average pool and dense layer) is there. Defaults to True.
        weights: None for a random start, `"imagenet"` (the best freely licensed file known), a tag that
            `kresnets.weights.list("{name}")` shows, or a path: `.safetensors` in timm's layout, `.h5`/`.weights.h5` of
            keras.applications, `.weights.h5` of kresnets. Defaults to {weights!r}.
        input_tensor: symbolic tensor (or `keras.Input`) to build upon, `(batch, height, width, channels)`. Defaults to
            None.
        input_shape: `(height, width, channels)`, or `(channels, height, width)` under channels first. None takes
            ({size}, {size}, 3) with the head and leaves height and width free without it.
        pooling: without the head: `"avg"` or `"max"` for a global pool, None for the feature map `(batch, h, w,
            channels)`.
        classes: outputs of the head. Defaults to {classes}.
        classifier_activation: activation of the head; None gives logits. Defaults to `"softmax"`.
        name: the model's name.

    Returns:
        A flat Functional `keras.Model`. It takes images that `kresnets.preprocess_input` has preprocessed for the
        weights (`kresnets.preprocessing_of(model)` says how).

    Raises:
        ValueError: for arguments that do not fit; the sentence says what is allowed.

    Example:
        >>> import kresnets
        >>> kresnets.{name}(weights=None, input_shape=({min_size}, {min_size}, 3)).output_shape
        (None, {classes})
    """


def _builder(key):
    spec = _SPECS[key]
    default_weights = "imagenet" if spec.imagenet else None

    def builder(
        include_top=True,
        weights=default_weights,
        input_tensor=None,
        input_shape=None,
        pooling=None,
        classes=spec.classes,
        classifier_activation="softmax",
        name=spec.name.lower(),
    ):
        return _build(
            spec, include_top, weights, input_tensor, input_shape, pooling, classes, classifier_activation, name
        )

    builder.__name__ = builder.__qualname__ = key
    builder.__doc__ = _DOC.format(
        name=key,
        reference=spec.reference,
        depth=f"Stages of {', '.join(map(str, spec.depths))} blocks",
        params=f"{spec.params / 1e6:.2f} million parameters",
        size=spec.input_size,
        min_size=spec.min_size,
        classes=spec.classes,
        weights=default_weights,
    )
    return builder


def list_models(pattern: str = "*") -> list[str]:
    """List the names of the public builders.

    Args:
        pattern: shell-style wildcard, case-sensitive. Defaults to all.

    Example:
        >>> import kresnets
        >>> kresnets.list_models("ResNet50*")
        ['ResNet50', 'ResNet50B', 'ResNet50C', 'ResNet50D']
    """
    return sorted(name for name in _SPECS if _fnmatch.fnmatchcase(name, pattern))


ResNet18 = _builder("ResNet18")
ResNet34 = _builder("ResNet34")
ResNet26 = _builder("ResNet26")
ResNet50 = _builder("ResNet50")
ResNet101 = _builder("ResNet101")
ResNet152 = _builder("ResNet152")
ResNet50Thin = _builder("ResNet50Thin")
ResNet50B = _builder("ResNet50B")
ResNet101B = _builder("ResNet101B")
ResNet152B = _builder("ResNet152B")
ResNet18C = _builder("ResNet18C")
ResNet34C = _builder("ResNet34C")
ResNet50C = _builder("ResNet50C")
ResNet101C = _builder("ResNet101C")
ResNet152C = _builder("ResNet152C")
ResNet18D = _builder("ResNet18D")
ResNet18DThin = _builder("ResNet18DThin")
ResNet34D = _builder("ResNet34D")
ResNet26D = _builder("ResNet26D")
ResNet50D = _builder("ResNet50D")
ResNet101D = _builder("ResNet101D")
ResNet152D = _builder("ResNet152D")
ResNet200D = _builder("ResNet200D")
ResNeXt50_32x4d = _builder("ResNeXt50_32x4d")
ResNeXt101_32x4d = _builder("ResNeXt101_32x4d")
ResNeXt101_64x4d = _builder("ResNeXt101_64x4d")
WideResNet50_2 = _builder("WideResNet50_2")
WideResNet101_2 = _builder("WideResNet101_2")
SEResNet50 = _builder("SEResNet50")
ResNetBlur50 = _builder("ResNetBlur50")
ResNetRS50 = _builder("ResNetRS50")
ResNetRS101 = _builder("ResNetRS101")
ResNetRS152 = _builder("ResNetRS152")
BiT50x1 = _builder("BiT50x1")
BiT101x1 = _builder("BiT101x1")
PlainNet18 = _builder("PlainNet18")
PlainNet34 = _builder("PlainNet34")
ResNet18V2 = _builder("ResNet18V2")
ResNet34V2 = _builder("ResNet34V2")
ResNet50V2 = _builder("ResNet50V2")
ResNet101V2 = _builder("ResNet101V2")
ResNet152V2 = _builder("ResNet152V2")
CifarResNet8 = _builder("CifarResNet8")
CifarResNet20 = _builder("CifarResNet20")
CifarResNet32 = _builder("CifarResNet32")
CifarResNet44 = _builder("CifarResNet44")
CifarResNet56 = _builder("CifarResNet56")
CifarResNet110 = _builder("CifarResNet110")
CifarResNet110V2 = _builder("CifarResNet110V2")
CifarResNet164V2 = _builder("CifarResNet164V2")
CifarPlainNet20 = _builder("CifarPlainNet20")
CifarPlainNet32 = _builder("CifarPlainNet32")
CifarPlainNet44 = _builder("CifarPlainNet44")
CifarPlainNet56 = _builder("CifarPlainNet56")
CifarPlainNet110 = _builder("CifarPlainNet110")
SmallResNet20 = _builder("SmallResNet20")
SmallResNet18D = _builder("SmallResNet18D")
InceptionV3 = _builder("InceptionV3")
InceptionV4 = _builder("InceptionV4")
InceptionResNetV1 = _builder("InceptionResNetV1")
InceptionResNetV2 = _builder("InceptionResNetV2")
