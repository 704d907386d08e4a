"""Every runtime dependency has a licence that was signed off."""

import pytest

from supply.licences import allowed, page, runtime

SIGNED, ROWS = page()


def test_the_page_has_what_is_installed_under_the_licence_it_has_and_all_of_them_are_signed_off():
    installed = runtime()
    assert {"numpy", "scipy", "pandas", "pydantic"} <= installed.keys()
    absent = {(name, licence) for name, (licence, _) in installed.items()} - ROWS.keys()
    assert not absent, "not in docs/licences.md: run make licences"
    assert [row for row in ROWS if not allowed(row[1], SIGNED)] == []


@pytest.mark.parametrize(
    ("expression", "passes"),
    [
        ("MIT", True), ("GPL-3.0-only", False), ("MIT AND GPL-3.0-only", False), ("", False),
        ("MIT OR GPL-3.0-only", True), ("(MIT OR GPL-2.0-only) AND BSD-3-Clause", True),
        ("LicenseRef-Proprietary", False),
        ("Apache-2.0 WITH LLVM-exception AND MIT", True),
    ],
)  # fmt: skip
def test_an_expression_passes_when_all_its_parts_are_signed_off(expression, passes):
    assert allowed(expression, SIGNED) is passes
