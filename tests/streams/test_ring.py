from streams.ring import Ring


def test_every_partition_has_one_owner_among_the_nodes() -> None:
    ring = Ring({"a", "b", "c"})
    owned = [ring.owned(node, "conv", 64) for node in ("a", "b", "c")]
    assert set.union(*owned) == set(range(64))
    assert sum(map(len, owned)) == 64
    assert all(len(share) > 8 for share in owned)


def test_the_owner_does_not_depend_on_the_order_of_the_nodes() -> None:
    assert all(Ring(["a", "b"]).owner("conv", p) == Ring(["b", "a"]).owner("conv", p) for p in range(64))


def test_only_the_share_of_a_lost_node_moves() -> None:
    before, after = Ring({"a", "b", "c"}), Ring({"a", "b"})
    moved = {p for p in range(256) if before.owner("conv", p) != after.owner("conv", p)}
    assert moved == before.owned("c", "conv", 256)


def test_families_are_placed_independently() -> None:
    ring = Ring({"a", "b", "c", "d"})
    assert ring.owned("a", "conv", 64) != ring.owned("a", "room", 64)


def test_without_nodes_nobody_owns() -> None:
    assert Ring(()).owner("conv", 0) is None
