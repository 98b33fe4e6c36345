"""Times training steps of a network in PyTorch, in bfloat16 and channels last, for `benchmarks.training`.

    python benchmarks/torch_models.py MODEL HEIGHT WIDTH BATCH CLASSES STEPS

Prints the seconds of all steps as JSON. It needs only PyTorch, so any interpreter with PyTorch can run it. Each network
has the layers of `trainer.models` with the default settings.
"""

from __future__ import annotations

import itertools
import json
import sys
import time

import torch  # type: ignore[import-not-found, unused-ignore]
from torch import nn  # type: ignore[import-not-found, unused-ignore]

# Channels and number of convolutions of VGG16's blocks.
VGG16 = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))

# Units, channels, stride and dilation of ResNet50's stages. The last two have dilation instead of a stride.
RESNET50 = ((3, 64, 1, 1), (4, 128, 2, 1), (6, 256, 1, 2), (3, 512, 1, 4))


class FCN8(nn.Module):
    """The layers of `trainer.models.fcn8`: images [B, 3, H, W], -1 to 1, to logits [B, classes, H, W]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        blocks, channels = [], 3
        for width, convolutions in VGG16:
            layers: list[nn.Module] = []
            for _ in range(convolutions):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            blocks.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
        self.blocks = nn.ModuleList(blocks)
        # A padding of 1 equals the cropping by 1 pixel in `trainer.models.fcn8`.
        self.up_pool5 = nn.ConvTranspose2d(512, classes, 4, stride=2, padding=1, bias=False)
        self.up_pool4 = nn.ConvTranspose2d(classes, classes, 4, stride=2, padding=1)
        self.up_pool3 = nn.ConvTranspose2d(classes, classes, 8, stride=8)
        self.skip_pool4 = nn.Sequential(nn.Conv2d(512, classes, 1), nn.ReLU())
        self.skip_pool3 = nn.Sequential(nn.Conv2d(256, classes, 1), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the logits."""
        pools = []
        for block in self.blocks:
            x = block(x)
            pools.append(x)
        x = self.up_pool5(x) + self.skip_pool4(pools[3])
        x = self.up_pool4(x) + self.skip_pool3(pools[2])
        return self.up_pool3(x)


class UNet(nn.Module):
    """The layers of `trainer.models.unet`: images [B, 3, H, W], -1 to 1, to logits [B, classes, H, W]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        widths = (64, 128, 256, 512, 1024)
        self.encoder = nn.ModuleList(_unet_block(i, o) for i, o in itertools.pairwise((3, *widths[:-1])))
        self.bottleneck = _unet_block(512, 1024)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * width, width, 3, stride=2, padding=1, output_padding=1) for width in widths[-2::-1]
        )
        self.decoder = nn.ModuleList(_unet_block(2 * width, width) for width in widths[-2::-1])
        self.pool = nn.Sequential(nn.MaxPool2d(2), nn.Dropout(0.3))
        self.dropout = nn.Dropout(0.3)
        self.classes = nn.Conv2d(64, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the logits."""
        skips = []
        for block in self.encoder:
            skips.append(block(x))
            x = self.pool(skips[-1])
        x = self.bottleneck(x)
        for up, block in zip(self.up, self.decoder, strict=True):
            x = block(self.dropout(torch.cat([up(x), skips.pop()], dim=1)))
        return self.classes(x)


class SegNet(nn.Module):
    """The layers of `trainer.models.segnet`: images [B, 3, H, W], -1 to 1, to logits [B, classes, H, W]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        encoder, decoder, channels = [], [], 3
        for width, convolutions in VGG16:
            widths = [channels] + [width] * convolutions
            encoder.append(nn.Sequential(*(_normalized(i, o, 3, bias=True) for i, o in itertools.pairwise(widths))))
            # The last convolution of the decoder gives the classes.
            widths = widths[::-1] if channels != 3 else widths[:0:-1]
            decoder.append(nn.Sequential(*(_normalized(i, o, 3, bias=True) for i, o in itertools.pairwise(widths))))
            channels = width
        self.encoder, self.decoder = nn.ModuleList(encoder), nn.ModuleList(decoder[::-1])
        self.classes = nn.Conv2d(64, classes, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the logits."""
        indices = []
        for block in self.encoder:
            x, positions = nn.functional.max_pool2d(block(x), 2, return_indices=True)
            indices.append(positions)
        for block in self.decoder:
            # Not every release unpools bfloat16 on a GPU (aten/src/ATen/native/cuda/MaxUnpooling.cu).
            x = block(nn.functional.max_unpool2d(x.float(), indices.pop(), 2))
        return self.classes(x)


class PSPNet(nn.Module):
    """The layers of `trainer.models.pspnet`: images [B, 3, H, W], -1 to 1, to logits [B, classes, H, W]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers = [_normalized(3, 64, 7, bias=True, stride=2), nn.MaxPool2d(3, 2, padding=1)]
        channels = 64
        for units, width, stride, dilation in RESNET50:
            for unit in range(units):
                layers.append(_Bottleneck(channels, width, stride if unit == 0 else 1, dilation, project=unit == 0))
                channels = 4 * width
        self.encoder = nn.Sequential(*layers)
        self.pyramid = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(bins), _normalized(2048, 512, 1)) for bins in (1, 2, 3, 6)
        )
        self.classes = nn.Sequential(_normalized(4096, 512, 3), nn.Dropout(0.1), nn.Conv2d(512, classes, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the logits."""
        x = self.encoder(x)
        levels = [nn.functional.interpolate(level(x), size=x.shape[2:], mode="bilinear") for level in self.pyramid]
        return nn.functional.interpolate(self.classes(torch.cat([x, *levels], dim=1)), scale_factor=8, mode="bilinear")


class _Bottleneck(nn.Module):
    """A unit of ResNet50 as in Keras Applications: convolutions have a bias, and the first one has the stride."""

    def __init__(self, channels: int, width: int, stride: int, dilation: int, project: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _normalized(channels, width, 1, bias=True, stride=stride),
            _normalized(width, width, 3, bias=True, dilation=dilation),
            *_normalized(width, 4 * width, 1, bias=True)[:2],
        )
        shortcut = _normalized(channels, 4 * width, 1, bias=True, stride=stride)[:2]
        self.shortcut = shortcut if project else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.body(x) + self.shortcut(x))


def _normalized(
    inputs: int, outputs: int, size: int, bias: bool = False, stride: int = 1, dilation: int = 1
) -> nn.Sequential:
    """Returns a convolution, batch normalisation and a ReLU."""
    padding = dilation * (size // 2)
    convolution = nn.Conv2d(inputs, outputs, size, stride, padding, dilation, bias=bias)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _unet_block(inputs: int, outputs: int) -> nn.Sequential:
    """Returns two 3x3 convolutions, each with a ReLU."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


MODELS: dict[str, type[nn.Module]] = {"fcn8": FCN8, "unet": UNet, "segnet": SegNet, "pspnet": PSPNet}


def seconds(name: str, height: int, width: int, batch: int, classes: int, steps: int) -> float:
    """Returns the seconds of `steps` training steps with AdamW on one batch, after two warm-up steps."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # All batches have one size, so cuDNN searches the fastest algorithm once.
    torch.backends.cudnn.benchmark = True
    model = MODELS[name](classes).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    images = torch.rand(batch, 3, height, width, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(0, classes, (batch, height, width), device=device)

    def run(number: int) -> float:
        began = time.perf_counter()
        for _ in range(number):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, dtype=torch.bfloat16):
                logits = model(images)
            loss = nn.functional.cross_entropy(logits.float(), labels)
            loss.backward()
            optimizer.step()
        loss.item()
        return time.perf_counter() - began

    run(2)
    return run(steps)


if __name__ == "__main__":
    if len(sys.argv) != 7 or sys.argv[1] not in MODELS:
        sys.exit(
            f"{' '.join(sys.argv)}: expected MODEL HEIGHT WIDTH BATCH CLASSES STEPS, MODEL one of {', '.join(MODELS)}"
        )
    print(json.dumps(seconds(sys.argv[1], *map(int, sys.argv[2:]))))
