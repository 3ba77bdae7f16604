"""What runs on CUDA, without a GPU: devices, dtypes and waits of all that touches one (helpers/fake_cuda)."""

from dataclasses import replace

import pytest
import torch
from torch.testing._internal.distributed.fake_pg import FakeStore

from helpers.fake_cuda.run import fake_gpu
from sagan import PRESETS, ModelConfig, TrainingConfig
from sagan.attention_maps import attention_maps, attention_statistics
from sagan.distributed import Processes
from sagan.explorer.engine import Explorer
from sagan.explorer.networks import Networks
from sagan.explorer.schemas import Grid, Sample, Strip, Walk
from sagan.importers.networks import ImportedConfig
from sagan.metrics.features import CustomFeatures, EfficientNetLite0, extract
from sagan.model.build import build_discriminator, build_generator
from sagan.model.spectral_norm import SpectralNorm, drop_spectral_norm
from sagan.sampling import draw_latents, estimate_statistics, sample
from sagan.training.checkpoint import load_checkpoint, take_snapshot, write_checkpoint
from sagan.training.divergence import DivergenceMonitor
from sagan.training.finetune import copy_weights
from sagan.training.step import Trainer

CUDA = torch.device("cuda", 0)
MODEL = ModelConfig(resolution=32, num_classes=3, latent_dim=8, base_channels=4)
IMPORTED = ImportedConfig(resolution=32, num_classes=3, latent_dim=8, base_channels=4, class_spectral_norm=True)
DCGAN = ModelConfig(architecture="dcgan", resolution=64, num_classes=3, latent_dim=8, base_channels=4)
TRAINING = TrainingConfig(batch_size=8, steps=100)


def images(model, training):
    """A batch as the CPU has it."""
    shape = (training.batch_size, model.resolution, model.resolution, model.image_channels)
    return torch.zeros(shape, dtype=torch.uint8).permute(0, 3, 1, 2), torch.zeros(
        training.batch_size, dtype=torch.int64
    )


def fake():
    """The fake GPU; to be called in its process only."""
    from helpers.fake_cuda.gpu import FakeGPU

    return FakeGPU()


def step(gpu, trainer, number=0):
    """Train one step, with a new record, and hold it to what every step must keep to."""
    from helpers.fake_cuda.gpu import Meta

    gpu.forget()
    log = trainer.train_step(number, lambda i: images(trainer.model, trainer.config), measure=True)
    assert not gpu.reads, f"the step waits for the device: {gpu.reads[0]}"
    batches = trainer.config.discriminator_steps
    assert len(gpu.uploads) == 2 * batches, f"copied to the device besides the batch: {[*map(str, gpu.uploads)]}"
    for name, value in log.items():
        assert (value.device, value.dtype) == (CUDA, torch.float32), f"{name}: {value}"
    convolutions = [op for op in gpu.ops if op.name == "convolution"]
    assert convolutions
    penalised = trainer.config.r1 or trainer.config.r2 or trainer.config.gradient_penalty
    wanted = {torch.bfloat16 if trainer.precision.name == "bf16" else torch.float32} | (
        {torch.float32} if penalised else set()
    )
    for op in convolutions:
        assert {op.inputs[0].dtype, op.inputs[1].dtype} <= wanted, str(op)
    updates = [op for op in gpu.ops if op.name == "_fused_adam_"]
    assert len(updates) == batches + 1 + ("loss/guide" in log)
    for op in updates:  # the learning rate is a tensor, of which a captured step reads the value
        assert len(op.inputs) % 5 == 1, str(op)  # it comes after weights, gradients, moments and counts of steps
        assert op.inputs[-1] == Meta((), torch.float32, "cuda", 4)
    for network in (trainer.generator, trainer.discriminator, trainer.ema.network):
        for name, t in network.state_dict().items():
            assert (t.device, t.dtype) == (CUDA, torch.float32), f"{name}: {t}"


def presets():
    """Every preset in both precisions; `demo` and `paper128` are quick, in the one in which they train on a GPU."""
    for name, preset in PRESETS.items():
        for precision in ("bf16", "fp32"):
            is_own = (preset.training.precision == "fp32") == (precision == "fp32")
            is_quick = is_own and name in ("demo", "paper128")
            yield pytest.param(name, precision, marks=() if is_quick else pytest.mark.slow)


@pytest.mark.parametrize(("name", "precision"), presets())
@fake_gpu
def test_presets_train(name, precision):
    with fake() as gpu:
        trainer = Trainer(PRESETS[name].model, replace(PRESETS[name].training, precision=precision), CUDA)
        step(gpu, trainer)
        if trainer.config.penalty_every > 1:
            step(gpu, trainer, 1)


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "hinge", "accumulate": 2, "discriminator_steps": 2},
        {"loss": "non-saturating", "lecam": 0.1},
        {"loss": "least-squares", "augment": ("color", "translation", "cutout")},
        {"loss": "wasserstein", "gradient_penalty": 10.0, "precision": "fp32"},
        {"loss": "relativistic", "r1": 0.5, "r2": 0.5, "gradient_penalty": 1.0},
        {"loss": "relativistic", "guide": 0.1},
    ],
    ids=lambda options: " ".join(options) + " " + options["loss"],
)
@fake_gpu
def test_options_of_the_step_train(options):
    with fake() as gpu:
        trainer = Trainer(MODEL, replace(TRAINING, **({"precision": "bf16"} | options)), CUDA)
        step(gpu, trainer)
        if "guide" in options:
            step(gpu, trainer, 1)


def attention_of(kind):
    return {"generator_attention": ((16, kind),), "discriminator_attention": ((16, kind),)}


# Every choice of a network's shape is in one of these.
NETWORKS = {
    "paper attention": replace(MODEL, attention_variant="paper"),
    "full attention": replace(MODEL, attention_variant="full"),
    "direct attention, no classes": replace(MODEL, attention_variant="direct", num_classes=0),
    "channel attention, classifier": replace(MODEL, class_head="classifier", **attention_of("channel")),
    "residual block, alpha": replace(MODEL, image_channels=4, **attention_of("residual")),
    "linear upsampling": replace(MODEL, upsampling="linear"),
    "class norms": IMPORTED,
    "bilinear, no norms": replace(
        IMPORTED,
        upsampling="bilinear",
        shortcut="rectified",
        generator_spectral_norm=False,
        discriminator_spectral_norm=False,
    ),
    "dcgan": DCGAN,
}


@pytest.mark.parametrize("name", NETWORKS)
@fake_gpu
def test_networks_train_with_a_penalty_in_bf16(name):
    with fake() as gpu:
        step(gpu, Trainer(NETWORKS[name], replace(TRAINING, precision="bf16", r1=1.0), CUDA))


@fake_gpu
def test_auto_precision_is_bf16_on_a_gpu_that_has_it():
    with fake():
        assert Trainer(MODEL, TRAINING, CUDA).precision.name == "bf16"


@pytest.mark.parametrize(
    ("mistake", "noticed"),
    [
        ("t.sum().item()", "the step waits for the device: _local_scalar_dense"),
        ("bool(t.isfinite().all())", "the step waits for the device: _local_scalar_dense"),
        ("t.cpu()", "the step waits for the device: _to_copy"),
        ("torch.ones(3).copy_(t)", "the step waits for the device: copy_"),
        ("torch.ones(3).to(t.device)", "copied to the device besides the batch"),
        ("t.copy_(torch.ones(3))", "copied to the device besides the batch"),
        ("torch.tensor(1.0, device=t.device)", "copied to the device besides the batch"),
        ("t + torch.ones(3)", "Expected all tensors to be on the same device"),
    ],
)
@fake_gpu
def test_mistakes_in_a_step_are_noticed(mistake, noticed):
    """What `step` checks, it sees."""
    with fake() as gpu:
        trainer = Trainer(MODEL, TRAINING, CUDA)

        def wrong(number, batch, measure):
            for part in batch(number):
                part.to(CUDA)
            eval(mistake, {"torch": torch, "t": torch.zeros(3, device=CUDA)})
            return {}

        trainer.train_step = wrong
        with pytest.raises((AssertionError, RuntimeError), match=noticed):
            step(gpu, trainer)


@fake_gpu
def test_training_resumes_from_a_checkpoint(tmp_path):
    with fake() as gpu:
        training = replace(TRAINING, precision="bf16", lecam=0.1)
        trainer = Trainer(MODEL, training, CUDA)
        step(gpu, trainer)
        gpu.forget()
        write_checkpoint(tmp_path / "1.safetensors", take_snapshot(trainer, 1))
        assert gpu.reads
        trainer = Trainer(MODEL, training, CUDA)
        gpu.forget()
        assert load_checkpoint(tmp_path / "1.safetensors", trainer) == 1
        assert not gpu.reads
        for optimiser in (trainer.generator_adam, trainer.discriminator_adam):
            for parameter, moments in optimiser.state.items():
                assert {t.device for t in moments.values()} == {CUDA}
                assert moments["exp_avg"].stride() == parameter.stride()
        step(gpu, trainer, 1)


@pytest.mark.parametrize("matches", [None, [2, None], []], ids=["same classes", "other classes", "no classes"])
@pytest.mark.parametrize("source", [MODEL, IMPORTED], ids=["ours", "imported"])
@pytest.mark.parametrize("folded", [False, True])
@fake_gpu
def test_training_starts_from_networks_of_the_cpu(source, folded, matches):
    target = source if matches is None else replace(source, num_classes=len(matches))
    with fake():
        for build in (build_generator, build_discriminator):
            network = build(target).to(CUDA)
            copy_weights(drop_spectral_norm(build(source)) if folded else build(source), network, matches)
            assert {t.device for t in network.state_dict().values()} == {CUDA}


def networks(model=MODEL):
    """A generator and a discriminator on the GPU, in evaluation mode."""
    return [build(model).eval().requires_grad_(False).to(CUDA) for build in (build_generator, build_discriminator)]


@pytest.mark.parametrize("model", [MODEL, DCGAN, replace(MODEL, num_classes=0)], ids=["classes", "dcgan", "none"])
@fake_gpu
def test_sampling_waits_for_each_batch_only(model):
    with fake() as gpu:
        generator, _ = networks(model)
        z = draw_latents(130, model.latent_dim, seed=0)
        mixtures = torch.full((130, max(1, model.num_classes)), 1 / 3)
        for y in (torch.zeros(130, dtype=torch.int64), mixtures):
            gpu.forget()
            assert sample(generator, z, y).shape == (130, model.resolution, model.resolution, 3)
            assert len(gpu.reads) == 2 * 9  # of each batch whether it is finite, and its bytes
        gpu.forget()
        estimate_statistics(generator, batches=2, batch_size=8, seed=0)
        assert not gpu.reads


@pytest.mark.parametrize("variant", ["released", "paper", "full", "direct"])
@fake_gpu
def test_attention_is_looked_into(variant):
    model = replace(MODEL, attention_variant=variant)
    z, x, y = torch.zeros(2, 8), torch.zeros(2, 3, 32, 32), torch.zeros(2, dtype=torch.int64)
    with fake():
        for network, inputs in zip(networks(model), (z, x), strict=True):
            maps = attention_maps(network, inputs, y, queries=[(3, 4), (20.5, 31)])
            assert {(m.shape[:2], m.device) for m in maps.values()} == {((2, 2), CUDA)}
            assert attention_maps(network, inputs, y, queries="all")
            assert attention_statistics(network, inputs, y)["16.0"].grid == 16


@fake_gpu
def test_watching_for_divergence_reads_only_when_asked():
    with fake() as gpu:
        trainer = Trainer(MODEL, TRAINING, CUDA)
        log = trainer.train_step(0, lambda _: images(MODEL, TRAINING))
        monitor = DivergenceMonitor()
        gpu.forget()
        monitor.update(log)
        monitor.update(log)
        assert not gpu.reads
        assert monitor.find_problem(trainer) is None
        assert len(gpu.reads) == 2  # the worst loss; whether all weights are finite


@fake_gpu
def test_features_are_extracted():
    shown = torch.zeros(70, 4, 32, 32, dtype=torch.uint8)
    pooled = CustomFeatures(torch.nn.Sequential(torch.nn.AvgPool2d(16), torch.nn.Flatten()), size=64)
    with fake() as gpu:
        for features in (EfficientNetLite0(), pooled):
            gpu.forget()
            found = extract(features.to(CUDA), lambda i, j: shown[i:j], len(shown), device=CUDA, progress=False)
            assert found.shape == (70, 1280 if features is not pooled else 3 * 16)
            assert len(gpu.reads) == 2  # the features of two batches


@fake_gpu
def test_explorer_sees_and_draws_maps():
    with fake():
        generator, discriminator = networks()
        explorer = Explorer(Networks("run", generator, discriminator, ("a", "b", "c"), 1))
        first, last = (Sample(seed=0, index=i, label=i) for i in (0, 1))
        walk = Walk(start=first, end=last, latent=0.5, label=0.5)
        for spec in (first, walk):
            view = explorer.view(spec)
            assert len(view.scores.by_class) == 3
            assert {found.network for found in explorer.maps(spec, [(3, 4)])} == set(view.observations)
        layer = explorer.describe()["layers"][0]
        assert explorer.effect(first, {f"{layer['network']}/{layer['name']}": 0.5}).on.shape == (32, 32, 3)
        assert explorer.grid(Grid(labels=(0, 2), count=2, seed=0)).shape == (4, 32, 32, 3)
        assert explorer.strip(Strip(walk=walk, steps=3)).shape == (3, 32, 32, 3)
        assert explorer.describe()["layers"]


def first_step(gpu, model, **options):
    """What the first step in bf16, one that computes penalties, asks of the GPU."""
    trainer = Trainer(model, replace(TRAINING, precision="bf16", **options), CUDA)
    gpu.forget()
    trainer.train_step(0, lambda i: images(model, trainer.config))
    return gpu.ops


@pytest.mark.parametrize("name", [pytest.param("demo", marks=pytest.mark.slow), "small"])
@fake_gpu
def test_no_convolution_of_a_penalty_has_a_feature_map_for_a_kernel(name):
    """PyTorch's own double backward makes such of R1 and R2, and cuDNN has no good kernel for them."""
    with fake() as gpu:
        ops = first_step(gpu, PRESETS[name].model, r1=1.0, r2=1.0)
    largest = 6 if PRESETS[name].model.upsampling == "linear" else 4
    large = []
    for op in ops:
        if op.name in ("convolution", "convolution_backward"):
            weight = op.inputs[1 if op.name == "convolution" else 2]
            if max(weight.shape[2:]) > largest:
                large.append(op)
    assert not large, f"{len(large)} of them, such as {large[0]}"


def is_map(t):
    """Whether it is a feature map (N, C, H, W) of 6 images or twice as many, of more channels than an image."""
    return len(t.shape) == 4 and t.shape[0] in (6, 12) and t.shape[1] > 4 and min(t.shape[2:]) >= 4


@pytest.mark.parametrize("variant", ["released", "paper", "full", "direct"])
@fake_gpu
def test_feature_maps_stay_in_bf16(variant):
    """Between convolutions and in the gradient as well: fp32 tables and gamma must not lift a map to fp32."""
    model = replace(MODEL, base_channels=16, attention_variant=variant)
    with fake() as gpu:
        ops = first_step(gpu, model, batch_size=6)  # a number that no kernel has for a dimension
    lifted = [op for op in ops if not op.is_view and any(is_map(t) and t.dtype == torch.float32 for t in op.inputs)]
    # The discriminator sums its last map in fp32, so the gradient of that sum arrives in fp32: once for D, once for G.
    last = [op for op in lifted if op.name == "_to_copy" and op.inputs[0].shape[2:] == (4, 4)]
    assert len(last) == 2
    lifted = [op for op in lifted if op not in last]
    assert not lifted, f"{len(lifted)} operations on maps in fp32, such as {lifted[0]}"


@fake_gpu
def test_what_bf16_would_spoil_stays_in_fp32():
    """Spectral norms, the discriminator's head, what goes into tanh, and augmentation."""
    model = replace(MODEL, **attention_of("self"))
    training = replace(TRAINING, precision="bf16", augment=("color", "translation", "cutout"))
    inside = {}
    with fake() as gpu:
        trainer = Trainer(model, training, CUDA)

        def watch(kind, module):
            module.register_forward_pre_hook(lambda *_: inside.setdefault(kind, []).append([len(gpu.ops), None]))
            module.register_forward_hook(lambda *_: inside[kind][-1].__setitem__(1, len(gpu.ops)))

        for network in (trainer.generator, trainer.discriminator):
            for module in network.modules():
                if isinstance(module, SpectralNorm):
                    watch("spectral norm", module)
        watch("head", trainer.discriminator.head)
        gpu.forget()
        trainer.train_step(0, lambda i: images(model, training))
    low = [f"{kind}: {op}" for kind, spans in inside.items() for i, j in spans for op in gpu.ops[i:j] if in_bf16(op)]
    named = {"tanh", "uniform_", "lerp", "index", "masked_fill"}
    assert named <= {op.name for op in gpu.ops}
    low += [str(op) for op in gpu.ops if op.name in named and in_bf16(op)]
    assert len(inside) == 2
    assert not low, f"{len(low)} operations in bf16, such as {low[0]}"


def in_bf16(op):
    """Whether it computes in bf16, be it on what was brought there for it."""
    return (
        not op.is_view and any(t.dtype == torch.bfloat16 for t in (*op.inputs, *op.outputs)) and op.name != "_to_copy"
    )


@fake_gpu
def test_a_vote_of_many_processes_does_not_wait_for_the_device():
    torch.distributed.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    processes = Processes(CUDA, 0, 2)
    with fake() as gpu:
        for said in (True, False, False):
            processes.any(said)
        assert any(op.name == "allreduce_" for op in gpu.ops)
        assert not gpu.uploads, f"a copy that waits: {gpu.uploads[0]}"
    torch.distributed.destroy_process_group()
