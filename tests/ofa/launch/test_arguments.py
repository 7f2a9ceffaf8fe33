"""Settings as they are typed: texts arrive as they stand, mistakes get one line."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from ofa.common.errors import UserError
from ofa.common.text_settings import Name, PathText
from ofa.launch.arguments import prepared_arguments, prepared_settings, unknown_settings


@dataclass(frozen=True)
class Part:
    text: str | None = None
    number: int = 0


@dataclass(frozen=True)
class Schema:
    run_name: Name
    path: PathText | None = None
    paths: PathText | tuple[PathText, ...] | None = None
    names: tuple[str, ...] = ()
    amount: float = 0.0
    part: Part = Part()
    parts: dict[str, Part] = field(default_factory=dict)


def value(setting: str) -> object:
    """Return the value that Hydra reads from a setting once it is prepared."""
    (prepared,) = prepared_settings([setting], Schema)
    return OverridesParser.create().parse_override(prepared).value()


ODD_TEXTS = (
    *(
        "2024",
        "1_1_1",
        "007",
        "1e5",
        "true",
        "NULL",
        "",
        " ",
        "my run (2)",
        "a,b",
        "a=b",
        "[a]",
        "{a}",
        "a b",
    ),
    *("café-猫", "x:y", 'say "hi"', "it's", "back\\slash", "end\\", "'", '"', "choice(a)", "#1", "a\tb"),
)


@pytest.mark.parametrize("text", ODD_TEXTS)
@pytest.mark.parametrize("name", ["run_name", "path", "part.text", "parts.one.text", "+run_name"])
def test_texts_arrive_as_they_are_typed(name: str, text: str) -> None:
    assert value(f"{name}={text}") == text


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("path=null", None),
        ("run_name='quoted 1'", "quoted 1"),
        ('run_name="2024"', "2024"),
        ("run_name=${data.name}", "${data.name}"),
        ("paths=[a,b]", ["a", "b"]),
        ("paths=one file", "one file"),
        ("names=[a,b]", ["a", "b"]),
        ("amount=3", 3),
        ("part.number=7", 7),
    ],
)
def test_what_is_no_plain_text_stays_what_it_is(setting: str, expected: object) -> None:
    assert value(setting) == expected


@pytest.mark.parametrize("text", ["3 (4", "café", '"x', "a=b", "[1,"])
def test_a_value_that_cannot_be_read_is_shown_in_quotes_that_work(text: str) -> None:
    with pytest.raises(
        UserError, match="amount: the value .* cannot be read; as a text it is written"
    ) as info:
        prepared_settings([f"amount={text}"], Schema)
    (written,) = shlex.split(str(info.value).partition("written ")[2].removesuffix("."))
    assert OverridesParser.create().parse_override(written).value() == text


def test_every_wrong_argument_is_named_at_once() -> None:
    arguments = ["foo", "run name=2", "amount=1,2", "space=nothing", "device=raspberry", "run_name=good"]
    with pytest.raises(UserError) as info:
        prepared_arguments(arguments, Schema)
    lines = str(info.value).splitlines()
    assert lines[0] == "'foo' is no setting; expected NAME=VALUE."
    assert lines[1] == "'run name' cannot be the name of a setting; expected NAME=VALUE."
    assert lines[2].startswith("amount has several values, 1,2: a list is written 'amount=[1,2]'")
    assert lines[3].startswith("Unknown space 'nothing'; known: mobilenet_v2, ")
    assert lines[4].startswith("Unknown device 'raspberry'; known: ")
    assert lines[4].endswith("Another machine is measured by a kit: ofa kit.")


def test_a_sweep_lists_texts_and_choices() -> None:
    prepared = prepared_arguments(["-m", "run_name=a,2024,'b,c'", "amount=1,2"], Schema)
    assert prepared == ["-m", 'run_name="a","2024",\'b,c\'', "amount=1,2"]
    assert prepared_arguments(["-m", "run_name=choice(a,b)"], Schema) == ["-m", "run_name=choice(a,b)"]
    with pytest.raises(UserError, match="Unknown space 'typo'"):
        prepared_arguments(["space=resnet50,typo", "--multirun"], Schema)


def test_options_stay_as_they_are_and_settings_have_no_dashes() -> None:
    arguments = ["--cfg", "job", "-cn", "name", "run_name=x y", "~part", "--help"]
    assert prepared_arguments(arguments, Schema) == [*arguments[:4], 'run_name="x y"', "~part", "--help"]
    with pytest.raises(UserError, match=r"^A setting has no dashes: run_name=3\nA .*: part\.number=4$"):
        prepared_arguments(["--run_name=3", "--part.number=4"], Schema)


def test_unknown_settings_get_a_suggestion_or_the_list_of_their_group() -> None:
    known = [
        "training",
        "training.batch_size",
        "limits",
        "limits.latency_ms",
        "run_name",
        "stages",
        "stages.fit",
    ]
    settings = [
        "trainning.batch_size=3",
        "limits.zzz=1",
        "qqq=1",
        "latency_ms=3",
        "+added=1",
        "hydra.x=1",
        "run_name=1",
        "stages.fit.predictor.members=3",
        "stages.fit={predictor: {members: 3}}",
        "limits={latency_ms: 3}",
    ]
    assert unknown_settings(settings, known) == [
        "Unknown setting 'trainning.batch_size'. Did you mean 'training.batch_size'?",
        "Unknown setting 'limits.zzz'; known in limits: limits.latency_ms.",
        "Unknown setting 'qqq'; known: training, limits, run_name, stages.",
        "Unknown setting 'latency_ms'. Did you mean 'limits.latency_ms'?",
        "Unknown setting 'stages.fit.predictor.members'; stages.fit has none yet. Add it with a plus sign: "
        "+stages.fit.predictor.members=VALUE",
        "Unknown setting 'stages.fit.predictor'; stages.fit has none yet. Add it with a plus sign: "
        "+stages.fit.predictor=VALUE",
    ]
