"""A bill of materials says nothing of the machine that made it."""

from supply.sbom import placeless


def test_references_to_files_are_left_out_and_others_stay():
    public = {"type": "website", "url": "https://example.org"}
    local = {"type": "distribution", "url": "file:///checkout"}
    bill = {"components": [{"name": "a", "externalReferences": [local, public]}, {"name": "b"}]}
    assert placeless(bill)["components"] == [{"name": "a", "externalReferences": [public]}, {"name": "b"}]
