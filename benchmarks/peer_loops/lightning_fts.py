"""Lightning with finetuning-scheduler: one fit, a phase for each stage, in the hand-written loop's data.

Differs from the recipe: images are cropped and flipped only; one optimiser that takes parameters on phase by phase and keeps
its momentum; the rates of torch's OneCycleLR are set by the module, for all groups, since the scheduler's own would run over
all phases; frozen BatchNorm as that library has it by default. `restore_best` is off: each phase goes on from its last weights.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812  # as its users write it
import torch
import yaml
from finetuning_scheduler import FinetuningScheduler
from torch import nn

from peer_loops.hand_loop import loaders
from peer_loops.work import LRS, MOMENTUM, WD, Stopwatch, Work, is_below, one_cycle


def train(name: str, work: Work, watch: Stopwatch) -> None:
    """One fit of five phases."""
    L.seed_everything(work.seed, verbose=False)
    batches, valid = loaders(work)
    with tempfile.TemporaryDirectory() as folder:
        module = Staged(work, watch, len(batches))
        schedule = Path(folder) / "phases.yaml"
        schedule.write_text(yaml.safe_dump(phases(module, work)))
        trainer = L.Trainer(
            max_epochs=len(LRS) * work.epochs, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False,
            enable_model_summary=False, enable_checkpointing=False, num_sanity_val_steps=0, default_root_dir=folder,
            callbacks=[FinetuningScheduler(ft_schedule=str(schedule), epoch_transitions_only=True, restore_best=False)],
        )  # fmt: skip
        trainer.fit(module, batches, valid)


def phases(module: nn.Module, work: Work) -> dict[int, Any]:
    """The parameters that each phase adds, and the epoch after which it ends."""
    found: dict[int, Any] = {}
    taken: set[str] = set()
    for stage, lr in enumerate(LRS):
        frozen = [f"net.{name}" for name in work.frozen(stage)]
        names = [name for name, _ in module.named_parameters() if not is_below(name, frozen) and name not in taken]
        taken |= set(names)
        found[stage] = {"params": names, "lr": lr, "max_transition_epoch": (stage + 1) * work.epochs}
    return found


class Staged(L.LightningModule):
    """The network, its loss, and the rates of each phase."""

    def __init__(self, work: Work, watch: Stopwatch, batches: int) -> None:
        super().__init__()
        self.net, self.loss_func, self.work, self.watch = work.net(), nn.CrossEntropyLoss(), work, watch
        self.rates = [one_cycle(lr, work.epochs * batches) for lr in LRS]
        self.right = self.total = 0
        self.watch_steps = batches

    def configure_optimizers(self) -> Any:
        """One optimiser over what trains at first."""
        params = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.SGD(params, lr=LRS[0], momentum=MOMENTUM, nesterov=True, weight_decay=WD)

    def on_train_start(self) -> None:
        """All is set up."""
        self.watch.stage_begins()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """The rate of the step."""
        stage, epoch = divmod(self.current_epoch, self.work.epochs)
        optimiser: Any = self.optimizers()
        for group in optimiser.param_groups:
            group["lr"] = self.rates[stage][epoch * self.watch_steps + batch_idx]

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """The loss of a batch."""
        x, y = batch
        return self.loss_func(self.net(x), y)

    def on_validation_epoch_start(self) -> None:
        """Count anew."""
        self.right = self.total = 0

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Count what is named rightly; the scheduler's own checkpoint watches the loss."""
        x, y = batch
        pred = self.net(x)
        self.log("val_loss", self.loss_func(pred, y))
        self.right += int((pred.argmax(1) == y).sum())
        self.total += len(y)

    def on_validation_epoch_end(self) -> None:
        """The stage's last epoch ends it."""
        if (self.current_epoch + 1) % self.work.epochs == 0:
            self.watch.stage_done(self.right / self.total)
