"""Every option says its rule, what came, and takes nothing else in silence."""

import re
from dataclasses import asdict

import pytest

from slimnet.errors import InputError
from slimnet.options import (
    BudgetOptions,
    CommandOptions,
    DataOptions,
    FinetuneOptions,
    GoalOptions,
    LatencyOptions,
    ModelOptions,
    Options,
    OutputOptions,
    SearchOptions,
    names_of,
    options_from,
    options_of,
)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_drop", -5, "max_drop is in percentage points, 0 to 100; got -5"),
        ("max_drop", float("nan"), "0 to 100; got nan"),
        ("confidence", 0.3, "confidence is a number, 0.5 to 0.999; got 0.3"),
        ("trust_pickle", "no", "trust_pickle is true or false; got 'no'"),
        ("repair", "no", "repair is true or false; got 'no'"),
        ("repair", 0, "true or false; got 0"),
        ("seed", 1.0, "seed is a whole number, 0 or more; got 1.0"),
        ("seed", True, "got True"),
        ("step", 2.0, "step is a whole number of channels, 1 or more; got 2"),
        ("step", 0, "got 0"),
        ("size", float("inf"), "size is a whole number of pixels, 1 or more; got inf"),
        ("oracle_k", "four", "oracle_k is a whole number of candidates, 1 or more; got 'four'"),
        ("opset", 20.0, "opset is a whole number, 18 to 23; got 20"),
        ("scale", "abc", "scale is a number, 1e-12 or more; got 'abc'"),
        ("scale", 0, "got 0"),
        ("mean", [float("nan")], "mean is a list, each a number; got nan"),
        ("mean", "0.5,x", "mean is a list, each a number; got 'x'"),
        ("latency_batch", [1.5], "each a whole number of images, 1 or more; got 1.5"),
        ("latency_batch", [], "got none"),
        ("metrics", "", "metrics is a list, each text; got none"),
        ("arch", 5, "arch is text; got 5"),
        ("channels", "gbr", "channels is rgb or bgr or grey; got 'gbr'"),
        ("objective", "speed", "latency or params or macs or channels; got 'speed'"),
        ("max_ratio", 1.5, "max_ratio is a number, 0 to 1; got 1.5"),
        ("max_ratio", "half", "0 to 1; got 'half'"),
        ("round_to", 0, "round_to is a whole number of channels, 1 or more, or auto; got 0"),
        ("round_to", "eight", "1 or more, or auto; got 'eight'"),
        ("round_to", 8.0, "or auto; got 8"),
        ("round_to", True, "or auto; got True"),
        ("keep", 5, "keep is a list, each text; got 5"),
        ("max_drp", 5, "unknown option 'max_drp'; did you mean 'max_drop'?"),
    ],
)
def test_a_wrong_value_is_refused_with_its_rule(name, value, message):
    with pytest.raises(InputError) as caught:
        Options().changed({name: value})
    assert message in str(caught.value)


def test_lists_come_as_text_or_as_lists():
    options = Options().changed({"mean": "0.5, 0.25,1", "latency_batch": 8, "arch_arg": ["a=1"]})
    assert options.mean == (0.5, 0.25, 1.0)
    assert options.latency_batch == (8,)
    assert options.arch_arg == ("a=1",)


def test_a_number_or_a_word_comes_as_either():
    assert Options(round_to=8).round_to == Options().changed({"round_to": "8"}).round_to == 8
    assert Options().changed({"round_to": "auto"}).round_to == "auto"
    assert Options().changed({"keep": "layer1.*"}).keep == ("layer1.*",)


@pytest.mark.parametrize("round_to", [8, "auto"])
def test_steps_of_single_channels_contradict_rounding(round_to):
    with pytest.raises(InputError) as caught:
        Options(step=1, round_to=round_to)
    assert f"got step 1 and round_to {round_to}" in str(caught.value)
    assert "paper's scheme" in str(caught.value)
    assert Options(step=1, round_to=1).step == 1


@pytest.mark.parametrize("other", [{"objective": "macs"}, {"step": 1}])
def test_layer_times_are_for_the_latency_objective(other):
    with pytest.raises(InputError, match="latency_table has the times of layers"):
        Options(latency_table="report.json", **other)
    assert Options(latency_table="report.json", objective="latency").latency_table


def test_the_latency_table_stands_in_the_section_latency():
    (found,) = (one for one in options_of(Options) if one.name == "latency_table")
    assert found.section == "Latency"


def test_a_regression_is_in_percent_and_needs_a_baseline():
    for given in (5, "5", "5%", " 5 % "):
        changed = Options().changed({"baseline": "report.json", "max_regression": given})
        assert changed.max_regression == 5
    for wrong in ("much", "-1%", "101%", "nan%", True):
        with pytest.raises(InputError, match="max_regression is in percent, such as 2%, 0 to 100"):
            Options(baseline="report.json").changed({"max_regression": wrong})
    with pytest.raises(InputError, match="got 5 and no baseline"):
        Options(max_regression=5.0)


def test_settings_is_the_earlier_name_of_options():
    assert options_from(None, {"settings": {"seed": 2}, "max_drop": 1}) == Options(
        seed=2, max_drop=1
    )


def test_every_option_has_help_and_its_default_is_valid():
    for option in options_of(Options, CommandOptions):
        assert option.help.endswith(".")
        assert not re.search(r"\b(What|of which)\b", option.help)
        option.require(option.default)
    assert Options().changed(asdict(Options())) == Options()


def test_a_stage_gets_its_own_options_and_all_of_them_make_options():
    sections = (ModelOptions, DataOptions, BudgetOptions, SearchOptions, FinetuneOptions,
                LatencyOptions, GoalOptions, OutputOptions)  # fmt: skip
    assert names_of(*sections) == names_of(Options)
    assert all(isinstance(Options(), section) for section in sections)
    assert names_of(ModelOptions) == {"arch", "arch_arg", "allow", "trust_pickle"}
    with pytest.raises(InputError, match="unknown option 'seed'"):
        ModelOptions().changed({"seed": 1})


def test_words_of_the_command_line_become_numbers_only_there():
    known = {one.name: one for one in options_of(Options)}
    assert known["max_drop"].parse_word("3") == 3.0
    assert known["step"].parse_word("3") == 3
    assert known["round_to"].parse_word("auto") == "auto"
    assert known["allow"].parse_word(["a.B"]) == ("a.B",)
    with pytest.raises(InputError, match="step is a whole number of channels, 1 or more; got 'x'"):
        known["step"].parse_word("x")
    with pytest.raises(InputError, match="got '3': leave the quotes out"):
        Options().changed({"max_drop": "3"})


def test_settings_may_be_a_dict_or_nothing_and_else_one_line():
    assert options_from(None, {"seed": 3}).seed == 3
    assert options_from({"seed": 2}, {}, Options(repair=False)) == Options(seed=2, repair=False)
    assert options_from(Options(seed=1), {"max_drop": 2}) == Options(seed=1, max_drop=2)
    with pytest.raises(InputError, match="options are an Options or a dict of options by name"):
        options_from("seed=3", {})
    with pytest.raises(InputError, match="did you mean 'seed'"):
        options_from({"sead": 3}, {})
