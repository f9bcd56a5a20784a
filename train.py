"""Train an instrument's latent diffusion model, or the small codec.

python train.py exp=flute_latent dataset_path=FOLDER
"""

import os
import sys
import warnings
from pathlib import Path

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from audio_diffusion_pytorch.cli import quote_paths, run_command
from audio_diffusion_pytorch.errors import InputError

ROOT = Path(__file__).resolve().parent
os.environ.setdefault("PROJECT_ROOT", str(ROOT))
PATH_KEYS = ("dataset_path", "ckpt", "mean_path", "std_path", "logs_dir", "exp_tag", "codec.repository", "hydra.run.dir")


def train(cfg: DictConfig) -> dict[str, float]:
    """Instantiate, fit, export; returns the last values of everything logged.

    Raises:
        InputError: something in the configuration or the data cannot be used.
    """
    import pytorch_lightning as pl
    import torch

    from audio_diffusion_pytorch.run import check_resumable, prepare_run_folder

    run_dir = Path(cfg.run_dir)
    if cfg.ckpt is not None:
        check_resumable(cfg.ckpt)
    pl.seed_everything(cfg.seed, workers=True)
    torch.set_float32_matmul_precision("high")

    datamodule = instantiate(cfg.datamodule)
    codec = instantiate(cfg.codec)
    module = instantiate(cfg.model, codec=codec)
    prepare_run_folder(run_dir, OmegaConf.to_yaml(cfg, resolve=True))
    module.prepare(datamodule, run_dir, cfg.ckpt)

    callbacks = [instantiate(node) for node in cfg.callbacks.values() if node is not None]
    loggers = [instantiate(node) for node in cfg.loggers.values() if node is not None]
    trainer = instantiate(cfg.trainer, callbacks=callbacks, logger=loggers, default_root_dir=str(run_dir))
    trainer.fit(module, datamodule, ckpt_path=cfg.ckpt, weights_only=True)

    if trainer.is_global_zero and not trainer.interrupted:
        path = run_dir / f"{cfg.exp_name}.safetensors"
        module.export(path)
        print(f"run folder: {run_dir}\nmodel:      {path}")
    return {key: float(value) for key, value in trainer.callback_metrics.items()}


def instantiate(node: DictConfig, **kwargs):
    """Build what `_target_` names; an error in there comes out as itself, not wrapped by Hydra."""
    try:
        return hydra.utils.instantiate(node, **kwargs)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, InputError):
            raise cause from None
        raise InputError(f"{node.get('_target_')}: {cause or error}") from error


@hydra.main(config_path=str(ROOT / "configs"), config_name="config", version_base="1.3")
def main(cfg: DictConfig) -> float | None:
    metrics = {}
    run_command(lambda: metrics.update(train(cfg)))
    return metrics.get("valid_loss")


if __name__ == "__main__":
    warnings.filterwarnings("ignore", module="pytorch_lightning", message=".*does not have many workers.*")
    sys.argv[1:] = quote_paths(sys.argv[1:], PATH_KEYS)
    main()
