"""Times a training step of VGG16-FCN8 in PyTorch, bfloat16 and channels last; a part of `benchmarks.training`.

    python benchmarks/torch_fcn8.py HEIGHT WIDTH BATCH CLASSES STEPS

Prints the seconds that the steps took. It imports nothing but PyTorch, so that any interpreter that
has it can run it.
"""

from __future__ import annotations

import json
import sys
import time

import torch  # type: ignore[import-not-found, unused-ignore]
from torch import nn  # type: ignore[import-not-found, unused-ignore]

# Channels and number of convolutions of VGG16's blocks.
BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


class FCN8(nn.Module):
    """The layers of `trainer.models.fcn8`: images [B, 3, H, W], -1 to 1, to logits [B, classes, H, W]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        blocks, channels = [], 3
        for width, convolutions in BLOCKS:
            layers: list[nn.Module] = []
            for _ in range(convolutions):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            blocks.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
        self.blocks = nn.ModuleList(blocks)
        # A padding of 1 is the cropping by 1 of the other.
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


def seconds(height: int, width: int, batch: int, classes: int, steps: int) -> float:
    """Returns the time of some steps of AdamW on one batch, after two that are not counted."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = FCN8(classes).to(device, memory_format=torch.channels_last)
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
    print(json.dumps(seconds(*map(int, sys.argv[1:]))))
