"""Fine-tune a pretrained decoder to classify texts.

deepspeed launch/finetune.py --deepspeed ds_configs/zero2.json --config launch/runs/thucnews.yaml
    [--method full|frozen|lora|scratch] [--section.key value ...]
"""

from megadec.common.errors import run_main
from megadec.finetune.commands import finetune

if __name__ == "__main__":
    run_main(finetune)
