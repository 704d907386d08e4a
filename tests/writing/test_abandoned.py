"""What a killed process left is cleaned; what a person keeps in a folder of such a name is not."""

from perfmodel.files.leftovers import leftovers_in
from perfmodel.files.writing import remove_abandoned, write_whole


def test_only_what_is_an_unfinished_file_is_deleted(tmp_path):
    left, kept, deep = (tmp_path / f".plan.json.draftplan-{sign * 8}" for sign in "abc")
    for folder in (left, kept, deep / "sub"):
        folder.mkdir(parents=True)
    (left / "plan.json").write_text("{")
    (left / "speedup.npy").write_text("")
    (kept / "thesis.txt").write_text("mine")
    (deep / "sub" / "thesis.txt").write_text("mine")
    foreign = {item.folder.name: item.foreign for item in leftovers_in(tmp_path)}
    assert foreign == {left.name: "", kept.name: "thesis.txt", deep.name: "sub"}
    write_whole(tmp_path / "plan.json", "new")
    assert not left.exists()
    assert (kept / "thesis.txt").read_text() == (deep / "sub" / "thesis.txt").read_text() == "mine"
    assert remove_abandoned(tmp_path) == []
