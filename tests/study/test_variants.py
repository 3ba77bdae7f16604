"""The variants that the studies compare."""

from dataclasses import replace

import pytest
import torch

from sagan.cli import main
from sagan.model.config import ModelConfig
from sagan.model.discriminator import Discriminator
from sagan.model.generator import Generator
from sagan.presets import PRESETS
from sagan.study.plan import EVALUATIONS, settle
from sagan.study.rates import all_variants
from sagan.study.variants import PAPER_LOSS, STUDIES, equal_rate, overridden_options

PAPER = PRESETS["paper128"]
DEMO = PRESETS["demo"]


def parameters(model):
    with torch.device("meta"):
        return [sum(p.numel() for p in network(model).parameters()) for network in (Generator, Discriminator)]


def by_name(study, base):
    return {variant.name: variant for variant in STUDIES[study].variants(base)}


def test_attention_at_128_px_has_the_columns_of_table_1():
    variants = by_name("attention", PAPER)
    for kind in ("self", "residual"):
        in_both = [name for name in variants if name.startswith(kind) and name[-1].isdigit()]
        assert in_both == [f"{kind}-{size}" for size in (8, 16, 32, 64)]
    assert "none" in variants


def test_attention_in_one_network_is_by_name_only():
    variants = by_name("attention", DEMO)
    both = variants["self-16"].config.model.attention_at("generator")
    assert both == ((16, "self"),)
    for name, layers in {"self-16-g": (both, ()), "self-16-d": ((), both)}.items():
        model = variants[name].config.model
        assert (model.attention_at("generator"), model.attention_at("discriminator")) == layers
    by_name_only = {name for name, variant in variants.items() if variant.by_name_only}
    assert by_name_only == {"self-8-g", "self-8-d", "self-16-g", "self-16-d"}


def test_attention_trains_with_the_configuration_s_own_loss():
    for variant in by_name("attention", DEMO).values():
        assert variant.config.training == DEMO.training


@pytest.mark.parametrize("size", [8, 16])
def test_residual_blocks_have_as_many_parameters_as_the_self_attention_they_stand_for(size):
    variants = by_name("attention", DEMO)
    plain = parameters(variants["none"].config.model)
    ours, control = (parameters(variants[f"{kind}-{size}"].config.model) for kind in ("self", "residual"))
    for own, theirs, without in zip(ours, control, plain, strict=True):
        assert own - theirs == 1  # gamma
        assert own > without


@pytest.mark.parametrize("study", STUDIES)
def test_variants_are_networks_and_their_names_are_those_of_the_pairs(study):
    variants = by_name(study, DEMO)
    for variant in variants.values():
        assert min(parameters(variant.config.model)) > 0
    pairs = STUDIES[study].pairs(list(variants))
    assert pairs
    assert {name for pair in pairs for name in pair} == set(variants)
    assert len(set(pairs)) == len(pairs)
    assert STUDIES[study].reference in variants


def test_one_rate_in_place_of_the_paper_s_two_is_that_of_sngan():
    assert equal_rate(PAPER) == pytest.approx(2e-4)


def test_stability_differs_in_what_figure_3_says_and_in_nothing_else():
    variants = by_name("stability", DEMO)
    seen = {
        name: (
            v.config.model.generator_spectral_norm,
            v.config.model.discriminator_spectral_norm,
            v.config.training.generator_lr == v.config.training.discriminator_lr,
            v.config.training.discriminator_steps,
        )
        for name, v in variants.items()
    }
    assert seen == {
        "sn-d": (False, True, True, 1),
        "sn-both": (True, True, True, 1),
        "sn-both-ttur": (True, True, False, 1),
        "sn-d-5": (False, True, True, 5),
    }
    for variant in variants.values():
        training = replace(variant.config.training, generator_lr=1, discriminator_lr=1, discriminator_steps=1)
        model = replace(variant.config.model, generator_spectral_norm=True)
        assert training == replace(DEMO.training, generator_lr=1, discriminator_lr=1, **PAPER_LOSS)
        assert model == replace(DEMO.model, generator_attention=(), discriminator_attention=())


def test_steps_with_five_updates_of_d_are_a_third_as_many():
    settled = {name: settle(variant).config for name, variant in by_name("stability", DEMO).items()}
    assert settled["sn-d"].training.steps == DEMO.training.steps
    assert settled["sn-d-5"].training.steps == round(DEMO.training.steps / 3)
    for config in settled.values():
        assert -(-config.training.steps // config.output.evaluate_every) == EVALUATIONS


def test_comparison_with_the_predecessors_as_they_were_published():
    variants = by_name("comparison", PAPER)
    acgan, sngan = variants["acgan"].config, variants["sngan"].config
    assert acgan.model.class_head == "classifier"
    assert acgan.training.loss == "non-saturating"
    assert not acgan.model.discriminator_spectral_norm
    assert sngan.model.class_head == "projection"
    assert sngan.training.discriminator_steps == 5
    for config in (acgan, sngan):
        assert config.model.attention_at("generator") == config.model.attention_at("discriminator") == ()
        assert config.training.generator_lr == config.training.discriminator_lr == pytest.approx(2e-4)
    assert variants["sagan"].config == PAPER
    # SAGAN's loss is the hinge loss, whatever the configuration has.
    assert by_name("comparison", DEMO)["sagan"].config.training.loss == "hinge"


def test_settings_change_one_thing_at_a_time():
    """Each variant changes one setting of the demo, or the group of settings that its name names."""
    rates, losses = ("generator_lr", "discriminator_lr"), ("loss", "r1", "r2", "penalty_every")
    assert {name: changes(variant.config, DEMO) for name, variant in by_name("settings", DEMO).items()} == {
        "base": {},
        "augment": {"augment": ("color", "translation", "cutout")},
        "no-average": {"ema_decay": 0},
        "no-attention": {"generator_attention": (), "discriminator_attention": ()},
        "paper-rates": dict(zip(rates, (1e-4, 4e-4), strict=True)),
        "one-rate": dict.fromkeys(rates, pytest.approx((7e-4 * 1.4e-3) ** 0.5)),
        "double-rates": dict(zip(rates, (1.4e-3, 2.8e-3), strict=True)),
        "narrow": {"base_channels": 16},
        "wide": {"base_channels": 32},
        "half-batch": {"batch_size": 8},
        "double-batch": {"batch_size": 32},
        "no-guide": {"guide": 0},
        "hinge": dict(zip(losses, ("hinge", 0, 0, 1), strict=True)),
    }
    assert {name for name, variant in by_name("settings", DEMO).items() if variant.same_time} == {
        "narrow", "wide", "half-batch", "double-batch", "no-guide", "hinge",
    }  # fmt: skip


def changes(config, base):
    """Return the settings of a configuration that differ from another's, by name."""
    parts = ("data", "model", "training", "output")
    ours, theirs = ({k: v for part in parts for k, v in vars(getattr(c, part)).items()} for c in (config, base))
    return {name: value for name, value in ours.items() if value != theirs[name]}


def test_settings_that_the_base_has_already_are_turned_back_or_skipped():
    small = by_name("settings", PRESETS["small"])
    assert small["no-augment"].config.training.augment == ()
    assert "augment" not in small
    paper = by_name("settings", PAPER)
    assert not {"paper-rates", "no-average", "hinge"} & set(paper)
    assert paper["relativistic"].config.training.loss == "relativistic"
    # Batches of any size and number of parts can be halved.
    odd = replace(DEMO, training=replace(DEMO.training, batch_size=10, accumulate=5))
    assert by_name("settings", odd)["half-batch"].config.training.accumulate == 5
    assert by_name("settings", odd)["double-batch"].config.training.accumulate == 5


def test_class_head_of_another_name():
    with pytest.raises(ValueError, match=r"class_head\b.*\bprojection\b.*\bclassifier\b"):
        ModelConfig(class_head="linear")


def test_an_option_that_every_variant_overrides_has_no_effect():
    given = ["--loss", "--r1", "--guide", "--generator-attention", "--beta2", "--seed", "--seeds", "--count"]

    def overridden(study):
        return overridden_options(given, DEMO, STUDIES[study].variants(DEMO))

    assert overridden("stability") == ["--loss", "--r1", "--guide", "--generator-attention"]
    assert overridden("comparison") == ["--loss", "--r1", "--guide"]
    assert overridden("attention") == ["--generator-attention"]
    assert overridden("settings") == []
    assert overridden_options(["--lr-decay-from"], DEMO, all_variants(DEMO)) == ["--lr-decay-from"]
    hinge = replace(DEMO, training=replace(DEMO.training, **PAPER_LOSS))
    assert overridden_options(["--loss", "--guide"], hinge, STUDIES["stability"].variants(hinge)) == []


@pytest.mark.parametrize("study", ["stability", "rates"])
def test_a_study_says_which_options_have_no_effect(study, tmp_path, capsys):
    assert main(["study", study, "--loss", "relativistic", "--seed", "3", "--data", str(tmp_path / "none")]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("note: --loss has no effect: every variant of this study sets it\nsagan: ")
    assert errors.count("no effect") == 1
