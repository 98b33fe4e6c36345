"""Settings of the model and of its training, typed and validated.

Nothing here imports TensorFlow, because the command line checks configurations with these classes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from components.settings import Settings


class ModelSettings(Settings):
    """The network. The defaults are those of the architecture's paper."""

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
    ] = Field("default", description="feature extractor; default is the one in the architecture's paper")
    encoder_weights: str = Field(
        "none",
        description="initial weights of the encoder: none, edges, imagenet, a Keras or safetensors file, or a folder "
        "from Hugging Face or keras-hub",
    )
    upsampling: Literal["default", "transposed", "nearest", "bilinear"] = Field(
        "default", description="upsampling method of the decoder; default is the one in the architecture's paper"
    )
    normalization: bool = Field(
        False, description="add batch normalisation to the pooled features of FCN, or after the convolutions of UNet"
    )
    base_filters: int = Field(
        64, ge=4, description="channels of the first block; each further block doubles them (unet)"
    )
    head_filters: int = Field(
        0, ge=0, description="channels of an extra 3x3 convolution on pool5; 0 leaves it out (fcn8)"
    )
    pyramid_filters: int = Field(256, ge=8, description="channels of the feature pyramid and of the heads (mask_rcnn)")
    proposals: int = Field(1000, ge=1, description="region proposals per image (mask_rcnn)")
    max_instances: int = Field(50, ge=1, description="largest number of instances found per image (mask_rcnn)")
    min_score: float = Field(
        0.1, ge=0, lt=1, description="drop instances whose score is not above this, 0 to 1 (mask_rcnn)"
    )
    depth: bool = Field(False, description="also estimate depth, with a second decoder (fcn8, unet)")
    dropout: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="dropout rate; null for the paper's: 0.3 (unet), 0.5 (fcn16, fcn32), 0.1 (pspnet, deeplabv3plus, "
        "segformer)",
    )
    test_time_flip: bool = Field(
        False, description="average the predictions for an image and its mirror image; doubles the cost of a prediction"
    )
    test_time_scales: tuple[Annotated[float, Field(gt=0, le=4)], ...] = Field(
        (1.0,),
        min_length=1,
        description="average the predictions at these fractions of the input size; the cost grows with the square",
    )

    @property
    def task(self) -> Literal["semantic", "instance"]:
        """Semantic or instance segmentation."""
        return "instance" if self.name == "mask_rcnn" else "semantic"

    @property
    def min_images(self) -> int:
        """Fewest images per training step, over all devices."""
        # They pool each image to one pixel, which batch normalisation of a single image would set to a constant.
        return 2 if self.name in ("pspnet", "deeplabv3plus") else 1


class TrainingSettings(Settings):
    """The training recipe."""

    epochs: int = Field(12, ge=1, description="passes over the training split")
    batch_size: int = Field(8, ge=1, description="images per step on each device")
    learning_rate: float = Field(
        4e-4,
        gt=0,
        description="peak learning rate of one device; multiplied by the square root of the number of devices",
    )
    warmup_epochs: float = Field(0.5, ge=0, description="epochs of linear warm-up to the peak learning rate")
    weight_decay: float = Field(1e-4, ge=0, description="decoupled weight decay of AdamW")
    encoder_lr_multiplier: float = Field(
        1.0, gt=0, le=1, description="factor on the learning rate for the encoder's weights"
    )
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="momentum of the moving average of the weights, which is validated and exported; 0 to disable",
    )
    cross_entropy: float = Field(1.0, ge=0, description="weight of the cross-entropy in the loss")
    focal_weight: float = Field(0.0, ge=0, description="weight of the focal loss in the loss")
    dice_weight: float = Field(0.0, ge=0, description="weight of the Dice loss in the loss")
    lovasz_weight: float = Field(0.0, ge=0, description="weight of the Lovasz-softmax loss in the loss")
    deep_supervision: float = Field(
        0.0, ge=0, description="weight of the auxiliary loss on intermediate features during training; 0 to disable"
    )
    depth_weight: float = Field(
        1.0, gt=0, description="weight of the scale-invariant log-depth error in the loss, if model.depth is true"
    )
    class_balance: float = Field(
        0.5, ge=0, le=1, description="exponent of the median-frequency class weights; 0 weighs all classes equally"
    )
    frozen_blocks: int = Field(
        0, ge=0, le=5, description="number of first blocks of a pretrained encoder to freeze, which speeds up training"
    )
    augment: bool = Field(True, description="apply random scale, crop, flip, brightness and contrast")
    crop_size: tuple[int, int] | None = Field(
        None, description="height and width of the training crops in pixels; null for the input size"
    )
    min_scale: float = Field(
        0.5,
        gt=0,
        description="smallest random scale before the crop; raised if the scaled image would be smaller than the crop",
    )
    max_scale: float = Field(1.6, ge=1, description="largest random scale before the crop")
    validate_every: int = Field(1, ge=1, description="validate every N epochs, and after the last one")
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = Field(
        "auto",
        description="arithmetic of training; auto uses half precision if the hardware supports it, otherwise float32",
    )
    require_gpu: bool = Field(False, description="fail if TensorFlow finds no usable GPU")
    xla: Literal["auto", "on", "off"] = Field(
        "auto",
        description="compile training steps with XLA; auto does so for long trainings on one GPU. A step that XLA "
        "cannot compile runs without it",
    )
    memory_fraction: float = Field(
        0.5,
        gt=0,
        le=1,
        description="largest fraction of the available memory for the decoded images of a split; a larger split is "
        "kept in a file in TMPDIR",
    )
    deterministic: bool = Field(
        False, description="use only operations that repeat bit for bit, which slows training on GPUs"
    )
    checkpoint_steps: int = Field(
        0, ge=0, description="steps between checkpoints within an epoch; 0 to save only at the end of epochs"
    )
    proposals: int = Field(
        512,
        ge=4,
        description="region proposals per image that train the heads, at most a quarter of them positive (mask_rcnn)",
    )
    warm_start: bool = Field(False, description="start from the weights of the last blessed model on other data")
    keep: Literal["best", "last"] = Field(
        "best",
        description="epoch whose weights are exported; best is by validation mean IoU, or by mask AP50 for instances",
    )

    @model_validator(mode="after")
    def _consistent(self) -> TrainingSettings:
        if not (self.cross_entropy or self.focal_weight or self.dice_weight or self.lovasz_weight):
            raise ValueError(
                "cross_entropy, focal_weight, dice_weight and lovasz_weight are all 0, expected one of them above 0"
            )
        if self.min_scale > self.max_scale:
            raise ValueError(
                f"min_scale is {self.min_scale:g}, expected at most max_scale, which is {self.max_scale:g}"
            )
        if self.crop_size and not self.augment:
            raise ValueError(
                f"crop_size is {self.crop_size}, expected null if augment is false; set training.augment=true, or "
                "training.crop_size=null"
            )
        return self
