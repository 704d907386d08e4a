"""Whatever happens to a file, it loads believably or is refused by name; it never runs anything."""

import json
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from perfmodel.engine import EngineOverhead
from perfmodel.errors import SpecError
from perfmodel.files import catalogue
from perfmodel.files.quantity import Grid, figures_of
from perfmodel.hardware import HardwareProfile
from perfmodel.model import ModelSpec

ROOT = Path(catalogue.__file__).parents[1]
ENGINES = ROOT / "data" / "engines"
MODELS = ROOT / "data" / "models"
PROFILES = Path(catalogue.own_package("hardware_profiles").__path__[0])

YAML_VALUES = (
    *(
        "no",
        "on",
        "~",
        "",
        "true",
        "1e12",
        "-1",
        "0",
        "1e999",
        ".inf",
        ".nan",
        "012",
        "1:30",
        "9" * 50,
        "9" * 5000,
    ),
    *(
        "text",
        "'80 GB'",
        "80 GB/s",
        "80 us",
        "80",
        "1e-30 s",
        "1e30 GB",
        "-5 us",
        "[1, 2]",
        "{a: b}",
        "[",
        "}",
    ),
    *("|", ">", "&x 1", "*x", "@", "`", "%", "\t3", "<<: 3", "? x", "- x", "a: b: c", "--- x", "#", "!own x"),
    *('"\\ud800"', '"\\x00"', '"\\UFFFFFFFF"', "\u2028", "\U0001f4a5", "!!binary aGk=", "!!set {a}"),
    "!!python/object/apply:os.system ['touch {canary}']",
    "!!python/object/new:subprocess.Popen [['touch', '{canary}']]",
    "!!python/name:os.system",
)
JSON_VALUES = (
    *("NaN", "Infinity", "-Infinity", "1e999", "null", "true", "[]", "{}", '"32"', '"x"', "-1", "0", "1.5"),
    *(
        "9" * 40,
        "9" * 5000,
        "[" * 200,
        '{"a": ' * 200,
        '"\\ud800"',
        '"\\u0000"',
        "tru",
        "0x10",
        "01",
        "'a'",
        "",
    ),
    *("4096000000000", "[[1, 2], [3]]", '{"rope_type": 3}'),
)


def one_of(pattern, text, rng):
    """Return a random match of a pattern as what stands before, in and after it, or None."""
    places = list(re.finditer(pattern, text))
    if not places:
        return None
    place = rng.choice(places)
    return text[: place.start()], place.group(), text[place.end() :]


def truncate(text, rng, _):
    return text[: rng.randrange(len(text))]


def swap_value(text, rng, values):
    match = one_of(r"(?<=[:\[,] )[^,\[\]{}\n]+", text, rng)
    return match[0] + rng.choice(values) + match[2] if match else text


def rename_key(text, rng, _):
    match = one_of(r"[A-Za-z_][\w-]*(?=\"?:)", text, rng)
    if not match:
        return text
    at = rng.randrange(len(match[1]))
    return match[0] + match[1][:at] + rng.choice("xyz_ A0\"'") + match[1][at + 1 :] + match[2]


def swap_unit(text, rng, _):
    units = ["", "Gb/s", "GB", "TB/s", "s", "us", "gb", "TFLOPs", "W", "%", "furlong"]
    match = one_of(r"(?<=\d) (GB/s|GiB|GB|MB|TFLOPS|TOPS|us|ms|W|USD/h)\b", text, rng)
    return f"{match[0]} {rng.choice(units)}{match[2]}" if match else text


def huge_number(text, rng, _):
    numbers = ["9" * 400, "1e308", "0", "-7", "1e-320", str(2**63), "1_0", "0x7f"]
    match = one_of(r"\d+", text, rng)
    return match[0] + rng.choice(numbers) + match[2] if match else text


def repeat_line(text, rng, _):
    lines = text.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    return "".join([*lines[: at + 1], lines[at] * rng.choice([1, 1, 3]), *lines[at + 1 :]])


def drop_line(text, rng, _):
    lines = text.splitlines(keepends=True)
    del lines[rng.randrange(len(lines))]
    return "".join(lines)


def indent_line(text, rng, _):
    lines = text.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    lines[at] = rng.choice([" ", "    ", "\t", "\r", "\u00a0"]) + lines[at]
    return "".join(lines)


def flip_bytes(text, rng, _):
    content = bytearray(text.encode())
    for _turn in range(rng.choice([1, 1, 2, 20])):
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content)


def insert_sign(text, rng, _):
    at = rng.randrange(len(text))
    return text[:at] + rng.choice(":{}[],&*!|>%@`\"'#-?\\\0\x1b\x85\ufeff") + text[at:]


MUTATIONS = (
    *(truncate, flip_bytes, swap_value, swap_value, swap_value, rename_key, swap_unit, huge_number),
    *(repeat_line, drop_line, indent_line, insert_sign),
)


def mutants(path, count, values):
    """Yield `count` mutants of a file, the same ones in every run."""
    text = path.read_text(encoding="utf-8")
    for seed in range(count):
        rng = random.Random(f"{path.name} {seed}")
        mutation = MUTATIONS[seed % len(MUTATIONS)]
        mutant = mutation(text, rng, values)
        if rng.random() < 0.15 and isinstance(mutant, str) and mutant.strip():
            mutant = rng.choice(MUTATIONS[2:])(mutant, rng, values)
        yield f"{mutation.__name__} {seed}", mutant.encode() if isinstance(mutant, str) else mutant


def assert_believable(noun):
    for path, declared, value in figures_of(noun):
        numbers = value.seconds if isinstance(value, Grid) else np.asarray(value)
        assert np.all(np.isfinite(numbers)), path
        assert np.all((numbers >= declared.least) & (numbers <= declared.most)), path


def parses(content):
    try:
        yaml.compose(content.decode(), Loader=yaml.SafeLoader)
    except Exception:
        return False
    return True


@pytest.mark.parametrize(
    ("load", "path", "count"),
    [
        (HardwareProfile.load, PROFILES / "h100-nvl-94gb.yaml", 500),
        (HardwareProfile.load, PROFILES / "b200.yaml", 200),
        (EngineOverhead.load, ENGINES / "magicdec-a100.yaml", 500),
        (EngineOverhead.load, ENGINES / "vllm-h100.yaml", 300),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_mutated_yaml_file_loads_believably_or_is_refused_with_file_and_line(tmp_path, load, path, count):
    canary = tmp_path / "canary"
    values = [value.replace("{canary}", str(canary)) for value in YAML_VALUES]
    target = tmp_path / path.name
    outcomes = Counter()
    for _label, content in mutants(path, count, values):
        target.write_bytes(content)
        try:
            noun = load(target)
        except SpecError as error:
            outcomes["refused"] += 1
            for fault in error.faults:
                assert fault.file == str(target)
                assert len(str(fault).splitlines()) == 1
                assert len(str(fault)) < 2000
                assert fault.line is not None or not parses(content)
        else:
            outcomes["loaded"] += 1
            assert_believable(noun)
    assert not canary.exists()
    assert outcomes["refused"] > count / 2
    assert outcomes["loaded"] > count / 50


@pytest.mark.parametrize("name", ["Llama-3.1-8B", "DeepSeek-V3"])
def test_a_mutated_model_config_loads_believably_or_is_refused_with_its_file(tmp_path, name):
    config = json.loads((MODELS / f"{name}.json").read_text(encoding="utf-8"))
    original = tmp_path / f"{name}.json"
    original.write_text(json.dumps(config, indent=1))
    target = tmp_path / "config" / "mutant.json"
    target.parent.mkdir()
    outcomes = Counter()
    for _label, content in mutants(original, 200, JSON_VALUES):
        target.write_bytes(content)
        try:
            model = ModelSpec.load(target)
        except SpecError as error:
            outcomes["refused"] += 1
            files = {fault.file for fault in error.faults}
            assert files == {str(target)}
        else:
            outcomes["loaded"] += 1
            assert 0 < model.weight_bytes < np.inf
            assert 0 <= model.kv_bytes(1000) < np.inf
    assert outcomes["refused"] > 50
    assert outcomes["loaded"] > 10
