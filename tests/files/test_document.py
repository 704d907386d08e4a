"""Files are read strictly: everything wrong is named at once with its line, and nothing is ever executed."""

import json
import string
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from perfmodel.errors import SpecError
from perfmodel.files import document
from perfmodel.files.checking import check
from perfmodel.files.document import parse_json, parse_yaml, read_json, read_yaml
from perfmodel.files.opening import PROFILE

LOADERS = [loader for name in ("SafeLoader", "CSafeLoader") if (loader := getattr(yaml, name, None))]


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    depth: int


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    rate: float = 0.5
    exact: bool = False
    inner: Inner | None = None
    many: list[Inner] = []
    named: dict[str, Inner] = {}


def read(text, parse=parse_yaml):
    return parse(text.encode(), "file.yaml")


def faults_of(text, parse=parse_yaml):
    with pytest.raises(SpecError) as error:
        check(Outer, read(text, parse))
    return error.value.faults


@pytest.fixture(params=LOADERS, autouse=True, ids=lambda loader: loader.__name__)
def loader(request, monkeypatch):
    monkeypatch.setattr(document, "_Loader", request.param)


def test_a_good_file_becomes_the_instance_it_describes():
    outer = check(
        Outer, read("name: x\nrate: 1e12\ninner: {depth: 3}\nmany:\n- depth: 4\nnamed: {a: {depth: 5}}")
    )
    assert outer == Outer(
        name="x", rate=1e12, inner=Inner(depth=3), many=[Inner(depth=4)], named={"a": Inner(depth=5)}
    )


@pytest.mark.parametrize(
    ("written", "value"),
    [("1e12", 1e12), ("2.5", 2.5), ("-3", -3), (".5", 0.5), ("1E-6", 1e-6), ("true", True), ("~", None),
     ("'1e12'", "1e12"), ('"no"', "no"), ("2026-01-01", "2026-01-01"), ("1.2.3", "1.2.3"), ("", None)],
)  # fmt: skip
def test_a_plain_scalar_means_one_thing(written, value):
    assert read(f"a: {written}").data["a"] == value
    assert type(read(f"a: {written}").data["a"]) is type(value)


@pytest.mark.parametrize("written", ["no", "No", "yes", "on", "OFF", "y", "n"])
@pytest.mark.parametrize("place", ["name: {}", "rate: {}", "exact: {}", "{}: 3", "many: [{}]"])
def test_norway_is_not_a_truth_value(written, place):
    text = place.format(written)
    assert any("true or false" in fault.problem and fault.line == 1 for fault in faults_of(text))


@pytest.mark.parametrize("written", ["012", "0x1F", "0o17", "0b11", "1_000", "1:30", "190:20:30"])
def test_numbers_that_yaml_readers_read_differently_are_refused(written):
    assert "differently" in faults_of(f"name: x\nrate: {written}")[0].problem


@pytest.mark.parametrize("written", [".inf", "-.inf", ".nan", ".NaN", "1e999", "9" * 31, "9" * 100_000])
def test_infinite_and_absurdly_long_numbers_are_refused_at_their_line(written):
    (fault,) = faults_of(f"name: x\nrate: {written}")
    assert (fault.line, fault.field) == (2, "rate")


def test_every_fault_is_named_at_once_with_file_line_and_nearest_name():
    faults = faults_of("nmae: x\nname: 7\nrate: '0.5'\nexact: 1\ninner:\n  depht: 3\nmany: {}\nname: y\n")
    assert {(fault.line, fault.field) for fault in faults} == {
        (1, "nmae"), (3, "rate"), (4, "exact"), (5, "inner.depth"), (6, "inner.depht"), (7, "many"),
        (8, "name"),
    }  # fmt: skip
    assert {fault.file for fault in faults} == {"file.yaml"}
    nearest = {fault.field: fault.nearest for fault in faults}
    assert nearest["nmae"] == "name"
    assert nearest["inner.depht"] == "depth"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", 1, "empty"),
        ("# only a comment\n", 1, "empty"),
        ("--- 3", 1, "not a mapping"),
        ("- a\n- b", 1, "not a mapping"),
        ("just text", 1, "not a mapping"),
        ("a: 1\n---\nb: 2", 2, "second document"),
        ("a: 1\nb: &x 2", 2, "anchor"),
        ("a: *x", 1, "alias"),
        ("a: 1\nb: !!python/object/apply:os.system ['true']", 2, "tag"),
        ("a: !!str 3", 1, "tag"),
        ("a: !mine {b: 1}", 1, "tag"),
        ("!!map {a: 1}", 1, "tag"),
        ("%TAG ! tag:x,2000:\n---\na: 1", 2, "%TAG"),
        ("a:\n\tb: 1", 2, "tab"),
        ("a: [1, 2", 1, "not valid YAML"),
        ("a: 'x", 1, "not valid YAML"),
        ("a: 1\n b: 2", 2, "not valid YAML"),
        ("a: b: c", 1, "not valid YAML"),
        ("a: {b: }}", 1, "not valid YAML"),
        ("? [1, 2]\n: 3", 1, "as a key"),
        ("a: " + "[" * 5000, 1, "nested deeper"),
        ("{a: " * 5000, 1, "nested deeper"),
        ('a: "\\UFFFFFFFF"', 1, "not valid YAML"),
        ('a: "\\ud800"', 1, ""),
        ("a: \x00", 1, "not valid YAML"),
    ],
)
def test_yaml_that_cannot_be_trusted_is_refused(text, line, says):
    with pytest.raises(SpecError) as error:
        read(text)
    (fault,) = error.value.faults
    assert says in fault.problem
    assert fault.file == "file.yaml"
    libraries_differ = says in ("not valid YAML", "%TAG")
    assert fault.line in (line - 1, line, line + 1, None) if libraries_differ else fault.line == line


def test_billion_laughs_is_refused_at_the_first_anchor():
    lines = ["a0: &a0 [lol, lol]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]
    with pytest.raises(SpecError, match="anchor"):
        read("\n".join(lines))


def test_a_tag_executes_nothing(tmp_path):
    canary = tmp_path / "canary"
    for tag in (
        "!!python/object/apply:os.system", "!!python/object/new:os.system", "!!python/name:os.system",
    ):
        with pytest.raises(SpecError):
            read(f"name: {tag} ['touch {canary}']")
    assert not canary.exists()


def test_faults_found_before_a_syntax_error_are_named_too():
    with pytest.raises(SpecError) as error:
        read("a: no\nb: [")
    assert len(error.value.faults) == 2
    assert error.value.faults[0].line == 1


def test_a_key_cannot_break_the_lines_of_a_message():
    (fault, *_) = faults_of('"a\\nb\\e[31m": 3\nname: x')
    assert "\n" not in str(fault)
    assert "\x1b" not in str(fault)


def test_very_many_faults_are_cut_short():
    text = "name: x\n" + "".join(f"k{i}: 1\n" for i in range(5000))
    faults = faults_of(text)
    assert len(faults) <= 201
    assert "further faults" in faults_of(text + "".join("name: x\n" for _ in range(300)))[-1].problem


def test_the_time_for_long_hostile_scalars_grows_no_faster_than_they_do():
    start = time.process_time()
    for scalar in ("1_" * 200_000 + "x", "1" * 400_000 + "x", "1:" * 200_000 + "1", "." * 400_000):
        assert read(f"a: {scalar}").data["a"] == scalar
    assert time.process_time() - start < 10.0


GOOD_JSON = '{"name": "x", "rate": 2, "many": [{"depth": 1}, {"depth": 2}], "inner": null, "named": {}}'


def test_json_agrees_with_the_standard_library():
    assert read(GOOD_JSON, parse_json).data == json.loads(GOOD_JSON)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(
    st.dictionaries(st.text(max_size=5), json_values, max_size=5), st.sampled_from([None, 1]), st.booleans()
)
def test_any_json_object_is_read_as_the_standard_library_reads_it(value, indent, ascii_only):
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert parse_json(text.encode(), "f").data == value


@given(st.text(st.sampled_from('{}[]:,"\\ \n' + string.digits + "aeltrufsn.-+E"), max_size=40))
def test_what_the_standard_library_refuses_as_json_is_refused(text):
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if isinstance(value, dict):
        return
    with pytest.raises(SpecError):
        parse_json(text.encode(), "f")


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", 1, "not valid JSON"),
        ("[1]", 1, "not a mapping"),
        ("3", 1, "not a mapping"),
        ('{"a": 1}\n{"b": 2}', 2, "Extra data"),
        ('{"a": 1,\n3}', 2, "not valid JSON"),
        ('{"a": [1,]}', 1, "not valid JSON"),
        ('{"a" 1}', 1, "':' delimiter"),
        ('{"a": 1 "b": 2}', 1, "',' delimiter"),
        ("{a: 1}", 1, "double quotes"),
        ('{"a": 01}', 1, "not valid JSON"),
        ('{"a": +1}', 1, "not valid JSON"),
        ('{"a": tru}', 1, "not valid JSON"),
        ('{"a":\n "x', 2, "not valid JSON"),
        ('{"a": "\\x"}', 1, "not valid JSON"),
        ('{"a": "\t"}', 1, "not valid JSON"),
        ('{"a": "\\ud800"}', 1, "half"),
        ("// note\n{}", 1, "not valid JSON"),
        ('{"a": ' * 100_000, 1, "nested deeper"),
        ('{"a": ' + "[" * 100_000, 1, "nested deeper"),
    ],
)
def test_json_that_cannot_be_trusted_is_refused(text, line, says):
    with pytest.raises(SpecError) as error:
        parse_json(text.encode(), "file.json")
    (fault,) = error.value.faults
    assert says in fault.problem
    assert (fault.file, fault.line) == ("file.json", line)


@pytest.mark.parametrize("written", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 40])
def test_json_numbers_must_be_finite(written):
    (fault,) = faults_of(f'{{"name": "x",\n"rate": {written}}}', parse_json)
    assert (fault.line, fault.field) == (2, "rate")


def test_json_faults_have_lines_and_duplicates_are_refused():
    faults = faults_of(
        '{"name": "x",\n"name": "y",\n"rate": "0.5",\n"rat": 1,\n"many": [{"depth": 1},\n{"depth": "2"}]}',
        parse_json,
    )
    assert [(fault.line, fault.field) for fault in faults] == [
        (2, "name"), (3, "rate"), (4, "rat"), (6, "many.1.depth"),
    ]  # fmt: skip


@pytest.mark.parametrize("reader", [read_yaml, read_json])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xfe\x00", "UTF-8"),
        (b"a: 1\n\xc3\x28", "UTF-8"),
        (b" " * (PROFILE.largest + 1), "larger"),
        (b"", "e"),
    ],
)
def test_binary_and_huge_files_are_refused_by_name(tmp_path, reader, content, says):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=says) as error:
        reader(path)
    assert error.value.faults[0].file == str(path)


@pytest.mark.parametrize("reader", [read_yaml, read_json])
@pytest.mark.parametrize("place", ["absent", ".", "nul\0"])
def test_what_is_not_a_file_is_refused_by_name(tmp_path, reader, place):
    with pytest.raises(SpecError, match="file"):
        reader(f"{tmp_path}/{place}")


def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD_JSON.encode())
    assert read_json(path).data["name"] == "x"
