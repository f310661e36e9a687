"""Training the slim network on the calibration images."""

from slimnet.finetune.finetune import finetune
