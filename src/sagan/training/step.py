"""One training step: `discriminator_steps` updates of D, one of G, one of the average."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sagan.config import TrainingConfig
from sagan.device import choose_precision, full_precision
from sagan.distributed import Processes, total
from sagan.model.batch_norm import ConditionalBatchNorm2d
from sagan.model.build import build_discriminator, build_generator
from sagan.model.config import ModelConfig
from sagan.model.discriminator import Discriminator
from sagan.pixels import to_signed
from sagan.training.augmentation import augment
from sagan.training.ema import EMA
from sagan.training.losses import LOSSES
from sagan.training.penalties import LeCam, one_centred, zero_centred
from sagan.training.rng import Noise

Batch = tuple[Tensor, Tensor]  # pictures (N, C, H, W) uint8, labels (N,) int64


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """No gradient of the weights: backward then computes what the input needs and nothing else."""
    trained = [p for p in network.parameters() if p.requires_grad]
    network.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def freeze_blocks(discriminator: Discriminator, count: int) -> None:
    """Leaves the first blocks, and the attention that follows each, as they are, spectral norms included."""
    for i in range(count):
        size = discriminator.config.resolution >> (i + 1)
        discriminator.blocks[i].eval().requires_grad_(False)
        if str(size) in discriminator.attention:
            discriminator.attention[str(size)].eval().requires_grad_(False)


def randomness(seed: int, step: int, processes: Processes, detours: int = 0) -> Noise:
    """The random numbers of one step, a pure function of (seed, step): nothing to save, nothing to lose.

    After each of the `detours` of a run that came apart and went back they are others.
    """
    # On the CPU PyTorch looks at 32 bits of it: runs start far from each other in them, by 2^32 / golden ratio.
    number = (seed * 2_654_435_769 + (detours << 24) + step) % 2**32
    return Noise(number, processes.device, rank=processes.rank, count=processes.count)


class Trainer:
    """Both networks, their optimisers and the average: everything that a step changes.

    Given many `processes`, each works on its share of every batch, and all of this is alike in all of them after every
    step. Without `sync_batch_norm`, running statistics are means over the processes too.
    """

    def __init__(
        self, model: ModelConfig, config: TrainingConfig, device: torch.device, processes: Processes | None = None
    ):
        torch.manual_seed(config.seed)
        self.model, self.config, self.device = model, config, device
        self.processes = processes or Processes(device)
        self.generator = build_generator(model).to(device)
        self.discriminator = build_discriminator(model).to(device)
        freeze_blocks(self.discriminator, config.freeze_discriminator)
        self.ema = EMA(self.generator, config.ema_decay, config.ema_start)
        self.lecam = LeCam(average=self.processes.average).to(device)
        norms = [m for m in self.generator.modules() if isinstance(m, ConditionalBatchNorm2d)]
        synchronised = config.sync_batch_norm and self.processes.count > 1
        for norm in norms if synchronised else ():
            norm.total = total
        self.own_statistics = [] if synchronised else [t for m in norms for t in (m.running_mean, m.running_var)]
        self.loss = LOSSES[config.loss]

        def adam(network: nn.Module, lr: float) -> torch.optim.Adam:
            trained = [p for p in network.parameters() if p.requires_grad]
            return torch.optim.Adam(trained, lr, (config.beta1, config.beta2), fused=True)

        self.generator_adam = adam(self.generator, config.generator_lr)
        self.discriminator_adam = adam(self.discriminator, config.discriminator_lr)
        self.precision = choose_precision(config.precision, device)
        self.detours = 0  # times that the training came apart and went back

    def step(self, step: int, batch: Callable[[int], Batch], *, measure: bool = False) -> dict[str, Tensor]:
        """Trains one step, number 0, 1, ...; `batch(i)` gives this process's share of the i-th batch of real pictures.

        Returns what to log: 'loss/discriminator', 'loss/generator', 'logits/real', 'logits/fake' (means), and with
        `measure` the gradient norms. Scalars on the device, so that nobody waits for them who does not read them.
        """
        with self.precision.flags():
            return self._step(step, batch, measure)

    def _step(self, step: int, batch: Callable[[int], Batch], measure: bool) -> dict[str, Tensor]:
        config = self.config
        noise = randomness(config.seed, step, self.processes, self.detours)
        self._set_learning_rates(step)
        log: dict[str, Tensor] = {}
        real: list[Batch] = []
        for i in range(config.discriminator_steps):
            number = step * config.discriminator_steps + i
            pictures, labels = batch(number)
            pictures, labels = pictures.to(self.device), labels.to(self.device)
            parts = config.accumulate
            real = [(to_signed(p), y) for p, y in zip(pictures.chunk(parts), labels.chunk(parts), strict=True)]
            log |= self._discriminator_step(real, noise, penalise=number % config.penalty_every == 0)
        if measure:
            log["gradient_norm/discriminator"] = _gradient_norm(self.discriminator)
        with frozen(self.discriminator):
            log |= self._generator_step(real, noise, log)
        if measure:
            log["gradient_norm/generator"] = _gradient_norm(self.generator)
        self.ema.update(self.generator, step)
        return log

    def chance_loss(self) -> float:
        """The loss of a discriminator that knows nothing, its logits all 0."""
        nothing = torch.zeros(1)
        return self.loss.discriminator(nothing, nothing).item()

    def learning_rate(self, step: int) -> float:
        """Share of the full rates at a step: 1, then linearly to 0 from `lr_decay_from` on."""
        done = step / self.config.steps
        start = self.config.lr_decay_from
        return 1.0 if done < start else (1 - done) / (1 - start)

    def _set_learning_rates(self, step: int) -> None:
        share = self.learning_rate(step)
        self.generator_adam.param_groups[0]["lr"] = share * self.config.generator_lr
        self.discriminator_adam.param_groups[0]["lr"] = share * self.config.discriminator_lr

    def _latents(self, labels: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Latents and classes of generated pictures, as many as `labels`: classes uniform (released code), or those
        of the real pictures where the loss compares the two in pairs."""
        n = len(labels)
        z = noise.normal(n, self.model.latent_dim)
        if self.loss.needs_real or not self.model.num_classes:
            return z, labels
        return z, noise.integers(n, 0, self.model.num_classes)

    def _discriminator_step(self, parts: list[Batch], noise: Noise, penalise: bool) -> dict[str, Tensor]:
        config, log = self.config, {}
        penalise = penalise and bool(config.r1 or config.r2 or config.gradient_penalty)
        self.discriminator_adam.zero_grad()
        for real, y_real in parts:
            z, y_fake = self._latents(y_real, noise)
            with self.precision.autocast(self.device), torch.no_grad():
                fake = self.generator(z, y_fake).to(real.dtype)
            real, fake = augment(real, config.augment, noise), augment(fake, config.augment, noise)
            with self.precision.autocast(self.device):
                # Real and generated pictures in one pass: one set of spectral norms, larger matrices.
                logits, wrong = self._judge(torch.cat([real, fake]), torch.cat([y_real, y_fake]), of=len(real))
            real_logits, fake_logits = logits.to(real.dtype).chunk(2)
            loss = self.loss.discriminator(real_logits, fake_logits)
            log = {
                "loss/discriminator": loss.detach(),
                "logits/real": real_logits.detach().mean(),
                "logits/fake": fake_logits.detach().mean(),
            }
            if wrong is not None:
                loss = loss + wrong
                log["loss/classes"] = wrong.detach()
            if config.lecam:
                loss = loss + config.lecam * self.lecam(real_logits, fake_logits)
            with full_precision() if penalise else nullcontext():  # the backward pass of a penalty too
                if penalise:
                    loss = loss + self._penalties(real, y_real, fake, y_fake, noise)
                (loss / len(parts)).backward()
        self.processes.average_(_gradients(self.discriminator))
        self.discriminator_adam.step()
        return log

    def _judge(self, pictures: Tensor, labels: Tensor, *, of: int) -> tuple[Tensor, Tensor | None]:
        """Logits, and the loss of the auxiliary classifier if there is one: -log P(class), summed, for each of `of`.

        So D's is L_C = -E[log P(c | real)] - E[log P(c | fake)], and G's its second term (AC-GAN, equation 3).
        """
        if self.discriminator.classifier is None:
            return self.discriminator(pictures, labels), None
        h = self.discriminator.features(pictures)
        logits, classes = self.discriminator.logits(h, labels), self.discriminator.class_logits(h)
        classes = classes.to(torch.get_default_dtype())
        return logits, F.cross_entropy(classes, labels, reduction="sum") / of

    def _penalties(self, real: Tensor, y_real: Tensor, fake: Tensor, y_fake: Tensor, noise: Noise) -> Tensor:
        """The gradient penalties asked for, in fp32, weighted for the steps on which they are left out."""
        config, total = self.config, real.new_zeros(())
        if config.r1:
            total = total + config.r1 * zero_centred(self.discriminator, real, y_real)
        if config.r2:
            total = total + config.r2 * zero_centred(self.discriminator, fake, y_fake)
        if config.gradient_penalty:
            total = total + config.gradient_penalty * one_centred(self.discriminator, real, fake, y_real, noise)
        return total * config.penalty_every

    def _generator_step(self, parts: list[Batch], noise: Noise, log: dict[str, Tensor]) -> dict[str, Tensor]:
        config = self.config
        self.generator_adam.zero_grad()
        for real, y_real in parts:
            z, y_fake = self._latents(y_real, noise)
            real_logits = None
            if self.loss.needs_real:
                real = augment(real, config.augment, noise)
                with self.precision.autocast(self.device), torch.no_grad():
                    real_logits = self.discriminator(real, y_real).to(real.dtype)
            with self.precision.autocast(self.device):
                fake = self.generator(z, y_fake).to(real.dtype)
            fake = augment(fake, config.augment, noise)
            with self.precision.autocast(self.device):
                fake_logits, wrong = self._judge(fake, y_fake, of=len(fake))
            loss = self.loss.generator(real_logits, fake_logits.to(real.dtype))
            if wrong is not None:
                loss = loss + wrong
            (loss / len(parts)).backward()
            log = log | {"loss/generator": loss.detach()}
        self.processes.average_([*_gradients(self.generator), *self.own_statistics, *log.values()])
        self.generator_adam.step()
        return log


def _gradients(network: nn.Module) -> list[Tensor]:
    return [p.grad for p in network.parameters() if p.grad is not None]


def _gradient_norm(network: nn.Module) -> Tensor:
    return torch.nn.utils.get_total_norm(_gradients(network))
