"""Every YAML under conf/ composes and becomes its typed configuration."""

from __future__ import annotations

import importlib

import pytest
import yaml

from latency_tables.table.device import DeviceSpec
from ofa.architecture.lowering import distinct_layers, lower
from ofa.common.config import build
from ofa.common.errors import UserError
from ofa.common.shipped import CONF
from ofa.data.settings import DataSettings
from ofa.graph.settings import ModelSettings
from ofa.launch import Command, compose, compose_group
from ofa.runs.config import TrainConfig
from ofa.space.staged import StagedSpace
from ofa.training.phases import Phase, check_phases
from ofa.training.settings import TrainSettings
from predictors.settings import FitSettings
from search.algorithms.registry import plan_search

COMMANDS = {path.stem for path in CONF.glob("*.yaml")}
# The mandatory settings of the commands that have any.
REQUIRED = {
    "classify": ["bundle=b", "images=i"],
    "segment": ["bundle=b", "images=i"],
    "predict": ["bundle=b", "images=i"],
    "export_subnet": ["subnet=largest"],
    "evaluate_subnet": ["bundle=b"],
    "finetune_subnet": ["bundle=b"],
    "import_checkpoint": ["file=f"],
    "import_latency_table": ["files=[f]"],
    "inspect_model": ["model=torchvision:resnet18"],
    "import_network": ["net_config=n", "weights=w"],
    "import_predictor": ["file=f"],
    "compress_network": ["steps=[sparse]", "bundle=b"],
    "prune_model": ["model=torchvision:resnet18", "macs_share=0.5"],
}


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def command_of(name: str) -> Command[object, object]:
    module = importlib.import_module(name)
    commands = [value for value in vars(module).values() if isinstance(value, Command)]
    return next(command for command in commands if command.name == name)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_composes_into_its_schema(name: str) -> None:
    assert command_of(name).config(*REQUIRED.get(name, [])) is not None


def test_every_script_has_its_configuration() -> None:
    scripts = {path.stem for path in (CONF.parent / "scripts").glob("*.py")}
    assert scripts == COMMANDS


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_a_missing_mandatory_setting_is_named(name: str) -> None:
    wanted = REQUIRED[name][0].split("=")[0]
    with pytest.raises(UserError, match=f"{wanted}.*command line"):
        command_of(name).config()


@pytest.mark.parametrize("name", choices("experiment"))
def test_every_experiment_composes(name: str) -> None:
    config = command_of("train_supernet").config(f"experiment={name}")
    assert isinstance(config, TrainConfig)
    assert config.run_name == config.data.name
    check_phases(list(config.phases.values()))


@pytest.mark.parametrize("name", choices("space"))
def test_every_space_lowers(name: str) -> None:
    space = build(StagedSpace, compose_group("space", name))
    assert space.name == name
    layers = set(distinct_layers(space))
    assert layers >= {*lower(space, space.smallest), *lower(space, space.largest)}


@pytest.mark.parametrize("name", choices("data"))
def test_every_data_file_builds(name: str) -> None:
    assert build(DataSettings, compose_group("data", name)).name == name


def test_places_are_no_part_of_what_decides_a_result() -> None:
    values = ("data.root=/photos", "data.cache=/copies", "data.workers=7", "data.augment=trivial")
    config = command_of("train_supernet").config("experiment=image_folder", *values)
    assert isinstance(config, TrainConfig)
    recorded = config.record()["data"]
    assert not {"root", "cache", "workers"} & set(recorded)
    assert recorded["augment"] == "trivial" and recorded["stratified"] and recorded["validation_size"] is None


@pytest.mark.parametrize("name", choices("phases"))
def test_every_recipe_ends_with_the_whole_or_the_compound_space(name: str) -> None:
    space = build(StagedSpace, compose_group("space", "mobilenet_v3_tiny"))
    phases = [build(Phase, phase) for phase in compose_group("phases", name).values()]
    sizes = [phase.space(space).size for phase in phases]
    assert sizes == sorted(sizes)
    # A recipe starts with the largest network, or trains all from the first phase on.
    assert sizes[0] in (len(space.resolutions), sizes[-1])
    assert sizes[-1] == space.restrict(compound=phases[-1].compound).size


def test_the_published_recipe() -> None:
    phases = compose_group("phases", "imagenet_ofa")
    assert {name: phase["epochs"] for name, phase in phases.items()} == {
        "largest": 180,
        "kernel": 125,
        "depth_1": 25,
        "depth_2": 125,
        "width_1": 25,
        "width_2": 125,
    }
    assert [phases[n]["lr"] for n in ("kernel", "depth_1", "depth_2")] == [0.03, 0.0025, 0.0075]
    assert [phases[n].get("subnets_per_step", 1) for n in phases] == [1, 1, 2, 2, 4, 4]


@pytest.mark.parametrize("name", choices("training"))
def test_every_training_file_builds(name: str) -> None:
    assert build(TrainSettings, compose_group("training", name)).batch_size > 0


@pytest.mark.parametrize("name", choices("device"))
def test_every_device_builds(name: str) -> None:
    assert build(DeviceSpec, compose_group("device", name)).name == name


@pytest.mark.parametrize("name", choices("search"))
def test_every_search_builds(name: str) -> None:
    assert plan_search(compose_group("search", name)).algorithm == name


@pytest.mark.parametrize("name", choices("user_model"))
def test_the_settings_of_user_models_have_their_defaults(name: str) -> None:
    assert build(ModelSettings, compose_group("user_model", name)) == ModelSettings()


@pytest.mark.parametrize("name", choices("predictor"))
def test_every_predictor_builds(name: str) -> None:
    assert build(FitSettings, compose_group("predictor", name)).hidden_units > 0


def test_no_yaml_is_left_out() -> None:
    tested = {
        "space",
        "data",
        "phases",
        "training",
        "device",
        "search",
        "predictor",
        "experiment",
        "user_model",
    }
    groups = {path.parent.name for path in CONF.rglob("*.yaml") if path.parent != CONF}
    assert groups == tested
    for path in CONF.rglob("*.yaml"):
        assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_an_unknown_choice_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match="mobilenet_v3_tiny"):
        compose("train_supernet", ["space=nothing"])
    with pytest.raises(
        UserError,
        match=r"Unknown space 'tiny'; known: .*mobilenet_v3, mobilenet_v3_small_photos, mobilenet_v3_tiny",
    ):
        compose_group("space", "tiny")
