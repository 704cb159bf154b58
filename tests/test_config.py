"""Settings: where they come from, what is refused, and that what is shown can be read back."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from vidswap.config import CompositeConfig, RunConfig
from vidswap.errors import UsageError
from vidswap.setting_types import convert, expected, groups, settings
from vidswap.settings import (
    PRESETS,
    Override,
    as_dict,
    build,
    check,
    describe,
    flatten,
    load_config,
)

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def load(**kwargs):
    return load_config(**{"environ": {}, **kwargs})


def test_defaults_alone_are_the_dataclasses():
    config, origins = load()
    assert config == RunConfig()
    assert set(origins) == set(settings())
    assert set(origins.values()) == {"default"}


def test_each_place_wins_over_the_one_before(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("smooth:\n  lag: 7\nmix.strength: 0.7\nvideo: {crf: 20}\n")
    environ = {"VIDSWAP_SET_MIX__STRENGTH": "0.6", "VIDSWAP_SET_VIDEO__CRF": "21", "PATH": "x"}
    config, origins = load(preset="fast", file=file, overrides=["video.crf=22"], environ=environ)
    assert (config.smooth.lag, config.mix.strength, config.video.crf) == (7, 0.6, 22)
    assert config.video.encoder_preset == PRESETS["fast"]["video.encoder_preset"]
    assert origins["video.encoder_preset"] == "preset fast"
    assert origins["smooth.lag"] == str(file)
    assert origins["mix.strength"] == "VIDSWAP_SET_MIX__STRENGTH"
    assert origins["video.crf"] == "--set"
    assert origins["video.codec"] == "default"


def test_the_environment_of_the_process_is_read(monkeypatch):
    monkeypatch.setenv("VIDSWAP_SET_DEVICE", "cpu")
    assert load_config()[0].device == "cpu"


@pytest.mark.parametrize("preset", ["quality,cpu", ["quality", "cpu"], ["quality,cpu"]])
def test_presets_combine_in_order(preset):
    config, origins = load(preset=preset)
    assert config.device == "cpu" and origins["device"] == "preset cpu"
    assert config.video.crf == PRESETS["quality"]["video.crf"]


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_files_in_configs_equal_the_presets(name):
    from_file, _ = load(file=CONFIGS / f"{name}.yaml")
    from_code, _ = load(preset=name)
    assert from_file == from_code
    flat = {
        f"{key}.{inner}" if isinstance(value, dict) else key: leaf
        for key, value in (yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) or {}).items()
        for inner, leaf in (value.items() if isinstance(value, dict) else [("", value)])
    }
    assert flat == dict(PRESETS[name])


def test_every_file_in_configs_is_a_preset():
    assert {path.stem for path in CONFIGS.glob("*.y*ml")} == set(PRESETS)


def test_every_setting_has_a_docstring_and_words_for_its_type():
    for key, setting in settings().items():
        assert setting.doc, f"{key} has no docstring under it"
        assert expected(key)
    assert all(groups().values())
    assert settings()["mix.strength"].doc.startswith("0 gives the inversion")


def test_every_default_is_a_value_that_may_be_set():
    for key, setting in settings().items():
        assert convert(key, setting.default) == setting.default
        text = "none" if setting.default is None else str(setting.default)
        assert convert(key, text) == setting.default


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("mix.strength", "1", 1.0),
        ("inversion.tune_learning_rate", "3e-4", 3e-4),
        ("composite.sharpness", "No", False),
        ("composite.occlusion", "1", True),
        ("video.pix_fmt", "none", None),
        ("video.pix_fmt", "yuv444p", "yuv444p"),
        ("composite.color", "none", "none"),
        ("faces.select", "0", "0"),
        ("faces.select", 0, "0"),
        ("composite.erode", "-3", -3.0),
        ("device", "cuda", "cuda"),
        ("mix.edit", "smile=1,age=-.5", "smile=1,age=-.5"),
        ("mix.edit", "none", None),
    ],
)
def test_texts_become_the_type_of_the_setting(key, text, value):
    converted = convert(key, text)
    assert converted == value and type(converted) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mix.strength=2", "mix.strength: expected a number from 0 to 1, got '2' (--set)"),
        ("mix.strength=nan", "expected a number from 0 to 1, got 'nan'"),
        ("mix.strength=", "got ''"),
        ("smooth.lag=1.5", "smooth.lag: expected a whole number from 0 to 256, got '1.5'"),
        ("smooth.quad=-1", "expected a number of at least 0, got '-1'"),
        ("composite.color=red", "expected one of none, lab, blocks, got 'red'"),
        ("composite.sharpness=2", "expected true or false, got '2'"),
        ("mix.edit=smile", "mix.edit: expected names and steps such as smile=1,age=-0.5, or none, got"),
        ("device=tpu", "device: expected auto, cpu or cuda, got 'tpu'"),
        ("video.codec=", "video.codec: expected text, got ''"),
        ("mix.strenth=1", "unknown setting 'mix.strenth' (--set): did you mean 'mix.strength'?"),
        ("strength=1", "did you mean 'mix.strength'?"),
        ("face.detector=x", "did you mean 'faces.detector'?"),
        ("fether=1", "did you mean 'composite.feather'?"),
        ("qqqq=1", "unknown setting 'qqqq' (--set): `vidswap config show` lists all"),
        ("mix=1", "'mix' is a group of settings (--set): set one of mix.mixer, mix.strength"),
        ("mix.strength", "--set mix.strength: expected key=value"),
        ("=1", "expected key=value"),
    ],
)
def test_wrong_values_are_refused_in_one_line(text, message):
    with pytest.raises(UsageError) as caught:
        load(overrides=[text])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_names_elsewhere_are_refused_with_their_place():
    with pytest.raises(UsageError, match="unknown preset 'fsat': did you mean 'fast'"):
        load(preset="fsat")
    with pytest.raises(UsageError, match=r"mix\.x.*VIDSWAP_SET_MIX__X"):
        load(environ={"VIDSWAP_SET_MIX__X": "1"})
    with pytest.raises(UsageError, match="there are default, fast"):
        load(preset="")


def test_one_setting_by_two_options_must_agree():
    option = Override("mix.strength", 0.5, "--strength")
    assert load(overrides=[option, "mix.strength=0.50"])[0].mix.strength == 0.5
    with pytest.raises(UsageError, match="given twice, by --strength .0.5. and by --set .0.6."):
        load(overrides=[option, "mix.strength=0.6"])
    repeated, _ = load(overrides=["mix.strength=0.1", "mix.strength=0.2"])
    assert repeated.mix.strength == 0.2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"mix: {strenth: 1}", "did you mean 'mix.strength'"),
        (b"mix: 3", "'mix' is a group"),
        (b"mix: {strength: 1}\nmix.strength: 0.5", "mix.strength is given twice"),
        (b"mix:\n  strength: 1\n  strength: 0.5", "line 3: strength is given twice"),
        (b"mix: {strength: [1]}", "expected a number from 0 to 1, got [1]"),
        (b"mix: {strength: true}", "expected a number from 0 to 1, got True"),
        (b"- a", "expected settings such as"),
        (b"a: b: c", "line 1: not valid YAML"),
        (b"!!python/object/apply:os.system ['true']", "not valid YAML"),
        (b"mix: &b {strength: *b}", "mix.strength: expected a number from 0 to 1, got {"),
        (b"x: &x {x: *x}", "unknown setting 'x'"),
        (b"\xff\xfe\x00", "not text in UTF-8"),
        (b"#" * (1 << 17), "larger than 64 kB"),
        (b"? [a, b]\n: 1", "not valid YAML"),
        (b"[" * 500, "not valid YAML"),
        (b"3: 4", "unknown setting '3'"),
    ],
)
def test_wrong_files_are_refused_in_one_line(tmp_path, content, message):
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        load(file=file)
    assert message in str(caught.value), caught.value
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "# only a remark\n", "mix:\n", "{}"])
def test_files_that_set_nothing(tmp_path, content):
    file = tmp_path / "empty.yaml"
    file.write_text(content)
    assert load(file=file)[0] == RunConfig()


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(UsageError, match="cannot read the settings file"):
            load(file=path)


def test_check_holds_for_configurations_made_in_python():
    assert check(RunConfig()) == RunConfig()
    with pytest.raises(UsageError, match="composite.feather: expected a number from 0 to 1024"):
        check(RunConfig(composite=CompositeConfig(feather=-1)))


def test_as_dict_and_build_are_inverses():
    config, _ = load(preset="quality", overrides={"mix.strength": 0.3})
    assert as_dict(config) == dataclasses.asdict(config)
    assert as_dict(config)["mix"]["strength"] == 0.3
    assert build(flatten(config)) == config


@settings_of_hypothesis(max_examples=40, deadline=None)
@given(
    text=st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), min_size=1),
    switch=st.booleans(),
    docs=st.booleans(),
    strength=st.floats(0, 1),
)
def test_what_describe_prints_is_read_back_as_the_same(
    tmp_path_factory, text, switch, docs, strength
):
    assume(text.strip())
    chosen = {"mix.strength": strength}
    for setting in settings().values():
        if setting.type is bool:
            chosen[setting.key] = switch
        elif str in (setting.type, *typing.get_args(setting.type)) and setting.key not in (
            "device", "mix.edit",
        ):  # fmt: skip
            chosen[setting.key] = text
    config, origins = load(overrides=chosen)
    assert len(chosen) > 8
    file = tmp_path_factory.mktemp("settings") / "shown.yaml"
    for changed_only in (False, True):
        shown = describe(config, origins, docs=docs, changed_only=changed_only)
        file.write_text(shown, encoding="utf-8")
        assert load(file=file)[0] == config


@pytest.mark.parametrize(
    "text", ["null", "none", "no", "1e5", "a: b", "# x", "'\"\\", "\U0001f600", "-"]
)
def test_texts_that_yaml_would_take_for_something_else(tmp_path, text):
    config, _ = load(overrides={"mix.layers": text})
    file = tmp_path / "shown.yaml"
    file.write_text(describe(config), encoding="utf-8")
    assert load(file=file)[0].mix.layers == text


def test_describe_says_where_each_value_came_from():
    config, origins = load(preset="fast", overrides=["mix.strength=0.5"])
    text = describe(config, origins)
    assert "  strength: 0.5  # from --set\n" in text
    assert "  # 0 gives the inversion of the target, 1 the full swap.\n" in text
    assert "encoder_preset: veryfast  # from preset fast\n" in text
    assert "codec: libx264\n" in text
    changed = describe(config, origins, docs=False, changed_only=True)
    assert changed.count(":") == changed.count("\n")
    assert "codec" not in changed
    assert describe(RunConfig(), changed_only=True) == ""
