"""Write golden files, see README.md: python tests/golden/make.py FOLDER [NAME...], where timm and PyTorch are."""

import json
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "support"))
from golden_rule import golden_images, golden_tensor

# File -> timm's name, what it is made with, and the pixels a side: odd, so that each rest of a stride shows.
FILES = {
    "resnext50_32x4d": ("resnext50_32x4d", {}, 161),
    "resnext101_32x4d": ("resnext101_32x4d", {}, 97),
    "resnext101_64x4d": ("resnext101_64x4d", {}, 97),
    "wide_resnet50_2": ("wide_resnet50_2", {}, 161),
    "wide_resnet101_2": ("wide_resnet101_2", {}, 97),
    "seresnet50": ("seresnet50", {}, 97),
    "resnetblur50": ("resnetblur50", {}, 97),
    "resnetrs50": ("resnetrs50", {}, 97),
    "resnetrs101": ("resnetrs101", {}, 97),
    "resnetrs152": ("resnetrs152", {}, 97),
    "resnetv2_50x1_bit": ("resnetv2_50x1_bit", {"num_classes": 1000}, 97),
    "resnetv2_101x1_bit": ("resnetv2_101x1_bit", {"num_classes": 1000}, 97),
    # Knobs that no public row has
    "resnet50_gn": ("resnet50_gn", {}, 97),
    "resnet18_silu": ("resnet18", {"act_layer": "silu"}, 97),
    "resnet18_os16": ("resnet18", {"output_stride": 16}, 97),
    "resnet50d_os8": ("resnet50d", {"output_stride": 8}, 97),
}


def main(folder, *names):
    import timm
    import torch

    for name in names or FILES:
        model_name, knobs, size = FILES[name]
        model = timm.create_model(model_name, pretrained=False, **knobs).eval()
        shapes = {
            tensor: list(value.shape)
            for tensor, value in model.state_dict().items()
            if not tensor.endswith("num_batches_tracked")
        }
        rule = {tensor: torch.from_numpy(golden_tensor(tensor, shape, 0.7)) for tensor, shape in shapes.items()}
        model.load_state_dict(rule, strict=False)
        with torch.inference_mode():
            features = model.forward_features(torch.from_numpy(golden_images(size).transpose(0, 3, 1, 2)))
            logits = model.forward_head(features)
        batch, channels, height, width = features.shape
        params = sum(value.numel() for value in model.parameters())
        meta = {"model": model_name, **knobs, "params": params, "input_size": size, "state_dict": shapes}
        pathlib.Path(folder, f"{name}.json").write_text(json.dumps(meta))
        np.savez(
            pathlib.Path(folder, f"{name}.npz"), logits=logits.numpy(), feature_mean=features.mean((2, 3)).numpy(),
            feature_shape=(batch, height, width, channels),
        )  # fmt: skip
        print(f"{name}: {params:,} parameters, logits to {logits.abs().max():.2f}, differ by "
              f"{(logits[0] - logits[1]).abs().max() / logits.abs().max():.0%}")  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
