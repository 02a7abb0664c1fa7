"""Seeds are told apart by name and type, and are the same everywhere and always."""

from __future__ import annotations

from xr2ct.seeds import derive_seed, generator


def test_a_seed_depends_on_every_part_of_its_name() -> None:
    names = [(0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 2), (0, "a", "1"), (0, "a"), (0, "a1")]
    assert len({derive_seed(*name) for name in names}) == len(names)
    assert all(0 <= derive_seed(*name) < 2**63 for name in names)


def test_a_seed_is_a_constant_of_its_name() -> None:
    assert derive_seed(0, "order", 7) == 8352504072931228165
    assert generator(0, "order", 7).integers(1000, size=3).tolist() == [625, 561, 882]
