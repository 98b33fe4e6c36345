"""Every number of a model and its training recipe, typed and validated, in one place.

Nothing here imports TensorFlow: the command line reads these models to check a configuration.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from components.settings import Settings


class ModelSettings(Settings):
    """What network is built. The defaults are the architecture as its source has it."""

    name: Literal[
        "fcn8", "fcn16", "fcn32", "fcn8_conv7", "unet", "segnet", "pspnet", "deeplabv3plus", "segformer", "mask_rcnn"
    ] = Field("fcn8", description="architecture")
    encoder: Literal[
        "default",
        "vgg16",
        "resnet50",
        "mobilenet_v2",
        "efficientnet_lite0",
        "efficientnet_lite2",
        "convnext_tiny",
        "mit_b0",
    ] = Field(
        "default", description="network that extracts the features; default is the one of the architecture's source"
    )
    encoder_weights: str = Field(
        "none",
        description="where the encoder starts: none, edges, imagenet, or the path of a file of Keras or safetensors, "
        "or of a folder of Hugging Face or keras-hub",
    )
    upsampling: Literal["default", "transposed", "nearest", "bilinear"] = Field(
        "default", description="how features grow in height and width; default is the way of the architecture's source"
    )
    normalization: bool = Field(
        False, description="batch normalisation: on the pools of FCN, after UNet's convolutions"
    )
    base_filters: int = Field(64, ge=4, description="channels of the first block; each block doubles them (unet)")
    head_filters: int = Field(0, ge=0, description="channels of a 3x3 convolution on pool5, 0 for none (fcn8)")
    pyramid_filters: int = Field(256, ge=8, description="channels of the feature pyramid and of the heads (mask_rcnn)")
    proposals: int = Field(1000, ge=1, description="region proposals of an image (mask_rcnn)")
    max_instances: int = Field(50, ge=1, description="most instances that are found in an image (mask_rcnn)")
    min_score: float = Field(0.1, ge=0, lt=1, description="instances need a higher score (mask_rcnn)")
    depth: bool = Field(False, description="estimate depth too, by a second decoder (fcn8, unet)")
    dropout: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="share of features dropped; null for the source's: 0.3 (unet), 0.5 (fcn16, fcn32), 0.1 (pspnet, "
        "deeplabv3plus, segformer)",
    )
    test_time_flip: bool = Field(
        False, description="average the scores of an image and its mirror image, for twice the cost of a prediction"
    )
    test_time_scales: tuple[Annotated[float, Field(gt=0, le=4)], ...] = Field(
        (1.0,),
        min_length=1,
        description="average the scores of an image at these sizes, as shares of the input size; each costs its square",
    )

    @property
    def task(self) -> Literal["semantic", "instance"]:
        """What the network finds: the class of each pixel, or instances."""
        return "instance" if self.name == "mask_rcnn" else "semantic"


class TrainingSettings(Settings):
    """How the network is trained."""

    epochs: int = Field(12, ge=1, description="passes over the training split")
    batch_size: int = Field(8, ge=1, description="images a step on each device")
    learning_rate: float = Field(
        4e-4, gt=0, description="peak learning rate of one device; times the square root of their number"
    )
    warmup_epochs: float = Field(0.5, ge=0, description="epochs over which the learning rate climbs to its peak")
    weight_decay: float = Field(1e-4, ge=0, description="decoupled weight decay")
    encoder_lr_multiplier: float = Field(
        1.0, gt=0, le=1, description="factor on the learning rate of the encoder's weights"
    )
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="momentum of the moving average of the weights, which is validated and exported; 0 for none",
    )
    cross_entropy: float = Field(1.0, ge=0, description="weight of the cross-entropy in the loss")
    focal_weight: float = Field(0.0, ge=0, description="weight of the focal loss in the loss")
    dice_weight: float = Field(0.0, ge=0, description="weight of the Dice loss in the loss")
    lovasz_weight: float = Field(0.0, ge=0, description="weight of the Lovasz-softmax loss in the loss")
    deep_supervision: float = Field(
        0.0, ge=0, description="weight of the mean loss on features inside the network, while training; 0 for none"
    )
    depth_weight: float = Field(
        1.0, gt=0, description="weight of the scale-invariant error of log depth in the loss, with model.depth"
    )
    class_balance: float = Field(
        0.5, ge=0, le=1, description="exponent of the median-frequency class weights; 0 weighs all classes alike"
    )
    frozen_blocks: int = Field(
        0, ge=0, le=5, description="first blocks of a pretrained encoder that keep their weights, for speed"
    )
    augment: bool = Field(True, description="random scale, crop, flip, brightness and contrast")
    crop_size: tuple[int, int] | None = Field(
        None, description="height and width of the windows trained on, in pixels; null for the input size"
    )
    min_scale: float = Field(
        0.5, gt=0, description="smallest random scale before the crop; raised to where the crop holds the whole image"
    )
    max_scale: float = Field(1.6, ge=1, description="largest random scale before the crop")
    validate_every: int = Field(1, ge=1, description="validate every N epochs, and after the last one")
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = Field(
        "auto", description="arithmetic; auto takes bfloat16 where the processor has it"
    )
    require_gpu: bool = Field(False, description="stop if TensorFlow finds no GPU it can use")
    xla: Literal["auto", "on", "off"] = Field(
        "auto",
        description="compile steps with XLA; auto does in long trainings on one GPU. A step that XLA cannot compile "
        "runs without it",
    )
    memory_fraction: float = Field(
        0.5,
        gt=0,
        le=1,
        description="largest fraction of the available memory for the decoded images of a split; larger ones go to a "
        "file in TMPDIR",
    )
    deterministic: bool = Field(
        False, description="refuses operations that do not repeat bit for bit, which slows training on GPUs"
    )
    checkpoint_steps: int = Field(
        0, ge=0, description="steps between two checkpoints within an epoch; 0 for one at its end"
    )
    proposals: int = Field(
        512,
        ge=4,
        description="region proposals of an image that the heads learn from, at most a quarter of them "
        "instances (mask_rcnn)",
    )
    warm_start: bool = Field(False, description="start from the weights of the last blessed model on other data")
    keep: Literal["best", "last"] = Field(
        "best", description="which epoch's weights are exported, by validation mean IoU, or mask AP50 of instances"
    )

    @model_validator(mode="after")
    def _some_loss(self) -> TrainingSettings:
        if not (self.cross_entropy or self.focal_weight or self.dice_weight or self.lovasz_weight):
            raise ValueError(
                "cross_entropy, focal_weight, dice_weight and lovasz_weight are all 0, expected one of them above 0"
            )
        return self

    @model_validator(mode="after")
    def _scales_in_order(self) -> TrainingSettings:
        if self.min_scale > self.max_scale:
            raise ValueError(
                f"min_scale is {self.min_scale:g}, expected at most max_scale, which is {self.max_scale:g}"
            )
        return self

    @model_validator(mode="after")
    def _crop_needs_augment(self) -> TrainingSettings:
        if self.crop_size and not self.augment:
            raise ValueError(
                f"crop_size is {self.crop_size}, expected null if augment is false; set training.augment=true, or "
                "training.crop_size=null"
            )
        return self
