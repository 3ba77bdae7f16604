"""One training step: updates of D, then one update of G, of the guide if there is one, and of the moving average."""

from collections.abc import Callable, Iterator, Sequence
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
from sagan.training.compiled import Passes, why_not_compiled
from sagan.training.ema import EMA
from sagan.training.graphs import StepGraphs, why_not
from sagan.training.guide import EVERY as GUIDE_EVERY
from sagan.training.guide import Guide
from sagan.training.inputs import Batch, MicroBatch, StepInputs, draw_inputs
from sagan.training.losses import LOSSES
from sagan.training.penalties import LeCam, one_centred, zero_centred
from sagan.training.rng import StepRNG

Log = dict[str, Tensor]  # scalars by name, on the device and without gradient


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Take no gradient of the weights inside: backward then only computes what the input needs."""
    trained = [p for p in network.parameters() if p.requires_grad]
    network.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def freeze_blocks(discriminator: Discriminator, count: int) -> None:
    """Exclude the first blocks, and the attention that follows each, from training, spectral norms included."""
    for i in range(count):
        size = discriminator.config.resolution // 2 ** (i + 1)
        discriminator.blocks[i].eval().requires_grad_(False)
        if str(size) in discriminator.attention:
            discriminator.attention[str(size)].eval().requires_grad_(False)


def step_rng(seed: int, index: int, processes: Processes, restarts: int = 0) -> StepRNG:
    """Return the random numbers of a step, a function of (seed, index, restarts) alone: there is no state to save.

    Args:
        index: the step, from 0.
        restarts: restarts of the run after divergence so far. Each changes the random numbers.
    """
    # PyTorch reads 32 bits of a seed on the CPU. Multiples of 2^32 / golden ratio set the runs far apart in them.
    run = seed * 2_654_435_769
    restart = restarts * 2**24
    return StepRNG((run + restart + index) % 2**32, processes.device, rank=processes.rank, count=processes.count)


class Trainer:
    """Both networks, their optimisers and the moving average: everything that a step changes.

    Each of several `processes` works on its share of every batch; after a step all of them hold the same state.
    Without `sync_batch_norm`, running statistics are averaged over the processes too.
    """

    def __init__(
        self, model: ModelConfig, config: TrainingConfig, device: torch.device, processes: Processes | None = None
    ):
        torch.manual_seed(config.seed)
        self.model = model
        self.config = config
        self.device = device
        self.processes = processes or Processes(device)
        self.precision = choose_precision(config.precision, device)
        self.restarts = 0  # of the run, after divergence

        # Build the networks and the moving average.
        self.generator = build_generator(model).to(device)
        self.discriminator = build_discriminator(model).to(device)
        freeze_blocks(self.discriminator, config.freeze_discriminator)
        self.ema = EMA(self.generator, config.ema_decay, config.ema_start)

        # Batch norm sums over all processes, or each process keeps statistics of its own, which a step averages.
        batch_norms = [m for m in self.generator.modules() if isinstance(m, ConditionalBatchNorm2d)]
        self.running_stats: list[Tensor] = []
        if config.sync_batch_norm and self.processes.count > 1:
            for batch_norm in batch_norms:
                batch_norm.total = total
        else:
            for batch_norm in batch_norms:
                self.running_stats += [batch_norm.running_mean, batch_norm.running_var]

        # Set up the loss and the optimisers.
        self.loss = LOSSES[config.loss]
        self.lecam = LeCam(average=self.processes.average).to(device)
        self.generator_adam = self._adam(self.generator, config.generator_lr)
        self.discriminator_adam = self._adam(self.discriminator, config.discriminator_lr)
        self.guide = Guide(model.num_classes, device) if config.guide else None
        self.guide_adam = self._adam(self.guide.heads, config.discriminator_lr) if self.guide else None
        self.passes = Passes(self.generator, self.discriminator)
        self.compiles = config.compile and not why_not_compiled(config, self.processes)
        captures = config.cuda_graph and not why_not(device, self.processes)
        self.graphs = StepGraphs(device) if captures else None

    def _adam(self, network: nn.Module, lr: float) -> torch.optim.Adam:
        trained = [p for p in network.parameters() if p.requires_grad]
        on_cuda = self.device.type == "cuda"
        betas = (self.config.beta1, self.config.beta2)
        adam = torch.optim.Adam(trained, lr, betas, fused=True, capturable=on_cuda)
        if on_cuda:  # a tensor, which a captured step reads anew; the fused kernel requires fp32
            adam.param_groups[0]["lr"] = torch.full((), lr, dtype=torch.float32, device=self.device)
        return adam

    def train_step(self, index: int, get_batch: Callable[[int], Batch], *, measure: bool = False) -> Log:
        """Train one step and return its log.

        Args:
            index: the step, from 0.
            get_batch: maps i = 0, 1, ... to this process's share of the i-th batch of real images. All batches of the
                step are fetched before anything changes.
            measure: also log the gradients' norms.

        Returns:
            'loss/discriminator', 'loss/generator', the means 'logits/real' and 'logits/fake', with an auxiliary
            classifier 'loss/classes' (the discriminator's), where the guide works 'loss/guide' (its heads'), and with
            `measure` 'gradient_norm/discriminator' and 'gradient_norm/generator'. Of several discriminator steps the
            last one is logged. Values stay on the device; only reading them synchronises.
        """
        with self.precision.flags(), self.graphs.stream() if self.graphs else nullcontext():
            rng = step_rng(self.config.seed, index, self.processes, self.restarts)
            inputs = draw_inputs(index, get_batch, rng, self.model, self.config, self.device)
            self._set_learning_rates(index)
            if self.compiles:
                self._compile(inputs)
            if self.graphs:
                log = self.graphs(self.update, inputs, measure=measure)
            else:
                log = self.update(inputs, measure=measure)
            # Outside of the graph: a few kernels, whose weight is a number.
            self.ema.update(self.generator, index)
        return log

    def update(self, inputs: StepInputs, *, measure: bool = False) -> Log:
        """Update both networks; return the log. What changes from step to step is in `inputs`, or in tensors."""
        # Update the discriminator.
        for micro_batches, penalise in zip(inputs.discriminator, inputs.penalised, strict=True):
            discriminator_log = self._discriminator_gradients(micro_batches, penalise=penalise)
            self.processes.average_(_gradients(self.discriminator))
            self.discriminator_adam.step()
        if measure:
            discriminator_log["gradient_norm/discriminator"] = _gradient_norm(self.discriminator)

        # Update the generator, on the last of these batches. D's log rides along with G's gradients: one message.
        with frozen(self.discriminator):
            generator_log = self._generator_gradients(inputs.generator, guided=inputs.guided)
        log = discriminator_log | generator_log
        guided = _gradients(self.guide.heads) if self.guide and inputs.guided else []
        self.processes.average_([*_gradients(self.generator), *guided, *self.running_stats, *log.values()])
        self.generator_adam.step()
        if self.guide_adam and inputs.guided:
            self.guide_adam.step()
        if measure:
            log["gradient_norm/generator"] = _gradient_norm(self.generator)
        return log

    def _compile(self, inputs: StepInputs) -> None:
        """Compile the passes of a step by computing the gradients of its first micro-batches, which are not used."""

        def rehearse() -> None:
            self._discriminator_gradients(inputs.discriminator[0][:1], penalise=False)
            with frozen(self.discriminator):
                self._generator_gradients(inputs.generator[:1], guided=False)

        changed = self.generator, self.discriminator, self.lecam
        self.passes.compile(rehearse, changed, announce=self.processes.is_first)
        self.compiles = False

    def uninformed_loss(self) -> float:
        """Return the loss of a discriminator that has learnt nothing: all its logits are 0."""
        logits = torch.zeros(1)
        return self.loss.discriminator(logits, logits).item()

    def lr_scale(self, index: int) -> float:
        """Return the factor of both learning rates at a step: 1, and from `lr_decay_from` on linearly down to 0."""
        done = index / self.config.steps
        start = self.config.lr_decay_from
        return 1.0 if done < start else (1 - done) / (1 - start)

    def _set_learning_rates(self, index: int) -> None:
        scale = self.lr_scale(index)
        for adam, lr in (
            (self.generator_adam, self.config.generator_lr),
            (self.discriminator_adam, self.config.discriminator_lr),
            (self.guide_adam, self.config.discriminator_lr),
        ):
            if adam is None:
                continue
            group = adam.param_groups[0]
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(scale * lr)
            else:
                group["lr"] = scale * lr

    def _discriminator_gradients(self, micro_batches: Sequence[MicroBatch], *, penalise: bool) -> Log:
        """Compute D's gradients, accumulated over micro-batches; return the log."""
        config = self.config
        logs: list[Log] = []
        self.discriminator_adam.zero_grad()
        for micro_batch, inputs in enumerate(micro_batches):
            # Generate images, and augment both kinds.
            real, y_real, y_fake = to_signed(inputs.real), inputs.y_real, inputs.y_fake
            with self.precision.autocast(self.device), torch.no_grad():
                fake = self.passes.generate(inputs.z, y_fake).to(real.dtype)
            real = augment(real, config.augment, inputs.augment_real)
            fake = augment(fake, config.augment, inputs.augment_fake)

            # Evaluate the loss. One pass for real and generated images: one set of spectral norms, larger matrices.
            images, labels = torch.cat([real, fake]), torch.cat([y_real, y_fake])
            with self.precision.autocast(self.device):
                logits, class_loss = self._discriminate(images, labels, batch_size=len(real))
            real_logits, fake_logits = logits.to(real.dtype).chunk(2)
            loss = self.loss.discriminator(real_logits, fake_logits)
            log = {
                "loss/discriminator": loss.detach(),
                "logits/real": real_logits.detach().mean(),
                "logits/fake": fake_logits.detach().mean(),
            }
            if class_loss is not None:
                loss = loss + class_loss
                log["loss/classes"] = class_loss.detach()
            if config.lecam:
                loss = loss + config.lecam * self.lecam(real_logits, fake_logits, micro_batch=micro_batch)
            logs.append(log)

            # Add the penalties and accumulate gradients.
            with full_precision() if penalise else nullcontext():  # the backward pass of a penalty too
                if penalise:
                    loss = loss + self._penalties(real, y_real, fake, y_fake, inputs.mix)
                (loss / len(micro_batches)).backward()
        return _mean_log(logs)

    def _generator_gradients(self, micro_batches: Sequence[MicroBatch], *, guided: bool) -> Log:
        """Compute G's gradients, and if `guided` those of the guide, accumulated over micro-batches; return the log."""
        config, guide = self.config, self.guide if guided else None
        logs: list[Log] = []
        self.generator_adam.zero_grad()
        if guide and self.guide_adam:
            self.guide_adam.zero_grad()
        dtype = torch.get_default_dtype()
        for inputs in micro_batches:
            # Generate images, and augment them.
            real_logits = None
            if self.loss.needs_real:
                real = augment(to_signed(inputs.real), config.augment, inputs.augment_real)
                with self.precision.autocast(self.device), torch.no_grad():
                    real_logits = self.passes.discriminate(real, inputs.y_real, classify=False)[0].to(dtype)
            with self.precision.autocast(self.device):
                fake = self.passes.generate(inputs.z, inputs.y_fake).to(dtype)
            fake = augment(fake, config.augment, inputs.augment_fake)

            # Evaluate the loss and accumulate gradients.
            with self.precision.autocast(self.device):
                fake_logits, class_loss = self._discriminate(fake, inputs.y_fake, batch_size=len(fake))
            loss = self.loss.generator(real_logits, fake_logits.to(dtype))
            if class_loss is not None:
                loss = loss + class_loss
            log = {"loss/generator": loss.detach()}
            if guide is None:
                (loss / len(micro_batches)).backward()
            else:
                with self.precision.autocast(self.device):
                    fake_maps = guide.maps(fake)
                    with frozen(guide.heads):
                        guide_loss = guide.generator_loss(fake_maps, inputs.y_fake)
                loss = loss + config.guide * GUIDE_EVERY * guide_loss
                (loss / len(micro_batches)).backward()
                log["loss/guide"] = self._guide_gradients(guide, fake_maps, inputs, len(micro_batches))
            logs.append(log)
        return _mean_log(logs)

    def _guide_gradients(self, guide: Guide, fake_maps: list[Tensor], inputs: MicroBatch, count: int) -> Tensor:
        """Add the gradients of one of `count` micro-batches to the guide's heads; return their loss."""
        real = augment(to_signed(inputs.real), self.config.augment, inputs.augment_real)
        with self.precision.autocast(self.device):
            with torch.no_grad():
                real_maps = guide.maps(real)
            loss = guide.loss(real_maps, inputs.y_real, [m.detach() for m in fake_maps], inputs.y_fake)
        (loss / count).backward()
        return loss.detach()

    def _discriminate(self, images: Tensor, labels: Tensor, *, batch_size: int) -> tuple[Tensor, Tensor | None]:
        """Return the logits (N,) of images (N, C, H, W), and the auxiliary classifier's loss (None without one).

        The class loss is -log P(class), summed over the images and divided by `batch_size`. D's N images are a batch
        of real and a batch of generated ones, so its class loss is -E[log P(c | real)] - E[log P(c | fake)]; G's is
        the second term (AC-GAN, Odena et al. 2017, equation 3).
        """
        logits, class_logits = self.passes.discriminate(images, labels)
        if class_logits is None:
            return logits, None
        class_logits = class_logits.to(torch.get_default_dtype())
        return logits, F.cross_entropy(class_logits, labels, reduction="sum") / batch_size

    def _penalties(self, real: Tensor, y_real: Tensor, fake: Tensor, y_fake: Tensor, mix: Tensor | None) -> Tensor:
        """Return the weighted sum of the gradient penalties, in fp32.

        Lazy regularisation (StyleGAN2): computed every `penalty_every` discriminator steps, and weighted by as much.
        """
        config = self.config
        penalty = real.new_zeros(())
        parts = [part for part in ((config.r1, real, y_real), (config.r2, fake, y_fake)) if part[0]]
        if parts:  # one pass for both, as for the loss
            weights, images, labels = zip(*parts, strict=True)
            each = zero_centred(self.discriminator, torch.cat(images), torch.cat(labels))
            for weight, values in zip(weights, each.chunk(len(parts)), strict=True):
                penalty = penalty + weight * values.mean()
        if mix is not None:
            penalty = penalty + config.gradient_penalty * one_centred(self.discriminator, real, fake, y_real, mix)
        return penalty * config.penalty_every


def _gradients(network: nn.Module) -> list[Tensor]:
    return [p.grad for p in network.parameters() if p.grad is not None]


def _gradient_norm(network: nn.Module) -> Tensor:
    return torch.nn.utils.get_total_norm(_gradients(network))


def _mean_log(logs: list[Log]) -> Log:
    """Return the mean of every value over the micro-batches."""
    if len(logs) == 1:
        return logs[0]
    return {name: torch.stack([log[name] for log in logs]).mean() for name in logs[0]}
