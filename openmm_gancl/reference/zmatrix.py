"""The Z-matrix of a molecule, from its bonds alone.

A spanning tree of the bond graph is rooted at three bonded atoms a0-a1-a2. Every other atom x with tree
parent p gets the row (x, p, q, d): q is the parent of p (a1 that of a0), and d fixes the rotation about the
bond q-p. The first child of p is *primary*: its d lies beyond q, so its torsion turns everything behind p.
The other children of p take that first child as d, so theirs is an improper torsion that stays narrow.
Ring-closing bonds are left out.
"""

from collections.abc import Hashable, Sequence
from itertools import combinations, pairwise
from typing import Any

import networkx as nx
import numpy as np

from ..errors import InputError
from ..units import FloatArray, IntArray

MIN_SINE = 0.2
"""An angle with a smaller sine (within 12 degrees of linear) makes a poor frame for a torsion."""

Torsion = tuple[int, int, int, int]


def bond_graph(topology: Any) -> nx.Graph:
    """The bonds of an ``openmm.app.Topology``, with the element symbol of each atom; one molecule only.

    Raises:
        InputError: for a single atom, a topology without bonds, or several molecules.
    """
    graph = nx.Graph()
    for atom in topology.atoms():
        graph.add_node(atom.index, element=atom.element.symbol if atom.element else "X")
    graph.add_edges_from((a.index, b.index) for a, b in topology.bonds())
    if len(graph) < 2:
        raise InputError(f"{len(graph)} atom(s) have no internal coordinates: use a particle label instead")
    if graph.number_of_edges() == 0:
        raise InputError("the topology holds no bonds: call createStandardBonds() or give a file with CONECT records")
    n_molecules = nx.number_connected_components(graph)
    if n_molecules > 1:
        raise InputError(
            f"the topology holds {n_molecules} molecules, but exact lifts need one: keep only the solute, or "
            "add the missing bonds"
        )
    return graph


def checked_torsions(graph: nx.Graph, label_torsions: Sequence[Sequence[int]] | IntArray) -> list[Torsion]:
    """Label torsions as tuples of four bonded atoms, no two about one bond and none closing a ring.

    Raises:
        InputError: with the remedy, for anything else.
    """
    torsions = [(int(i), int(j), int(k), int(m)) for i, j, k, m in label_torsions]
    if torsions and len(graph) < 4:
        raise InputError(f"a molecule of {len(graph)} atoms has no torsion: leave the torsion labels out")
    for torsion in torsions:
        if not all(atom in graph for atom in torsion):
            raise InputError(f"label torsion {torsion} names an atom outside 0 to {len(graph) - 1}: correct it")
        if len(set(torsion)) < 4 or not nx.is_path(graph, torsion):
            raise InputError(f"label torsion {torsion} does not follow bonds: name four atoms bonded in a row")
    if len({frozenset(torsion[1:3]) for torsion in torsions}) < len(torsions):
        raise InputError("two label torsions turn about the same bond: keep one of them")
    if torsions and not nx.is_forest(nx.Graph(_path_bonds(torsions))):
        raise InputError("the label torsions close a ring and so depend on each other: leave one of them out")
    return torsions


def build_z_matrix(
    graph: nx.Graph, label_torsions: Sequence[Torsion] = (), positions: FloatArray | None = None
) -> IntArray:
    """The Z-matrix of a molecule in which every label torsion is a primary torsion.

    Args:
        graph: what `bond_graph` made.
        label_torsions: what `checked_torsions` made.
        positions: shape=(n_atoms, 3), any one structure, with which near-linear frames are avoided.

    Returns:
        shape=(n_atoms, 4), rows in build order: atom, bond, angle and torsion partner, all placed in rows
        above; -1 where the first three rows have none.
    """
    root = label_torsions[0][:3] if label_torsions else _default_root(graph, positions)
    up, children = _rooted_tree(graph, root, _path_bonds([*label_torsions, root]))
    labels = [_away_from_root(torsion, up, root) for torsion in label_torsions]
    near_ends = {(q, p): near for near, q, p, _ in labels}
    far_ends = {far for *_, far in labels}

    rows: dict[int, tuple[int, ...]] = {x: (x, *root[:n][::-1]) for n, x in enumerate(root)}
    for p, branches in children.items():
        q = up[p]
        ordered = sorted(branches, key=lambda x: x not in far_ends)
        beyond = [atom for atom in (up[q], *children[q]) if atom != p]
        candidates = [near_ends[q, p]] if (q, p) in near_ends else beyond
        for x in ordered:
            if x not in root:
                d = _best_frame(p, q, candidates, positions) if x == ordered[0] else ordered[0]
                rows[x] = (x, p, q, d)
    return _in_build_order(graph, rows)


def rotor_folds(graph: nx.Graph, z_matrix: IntArray, label_torsions: Sequence[Torsion] = ()) -> IntArray:
    """How many times each torsion of a Z-matrix repeats by symmetry in a full turn.

    Args:
        graph: what `bond_graph` made.
        z_matrix: shape=(n_atoms, 4), what `build_z_matrix` made.
        label_torsions: what `checked_torsions` made; labels keep fold 1.

    Returns:
        shape=(n_atoms - 3,): 3 for methyl-like rotors, 2 for planar ones (carboxylate, amide NH2, phenyl) at
        their primary torsion, otherwise 1.
    """
    bridges = {frozenset(bond) for bond in nx.bridges(graph)}
    fixed = {frozenset(torsion[1:3]) for torsion in label_torsions}
    distinct = {atom for torsion in label_torsions for atom in torsion}
    partner = {int(row[0]): int(row[1]) for row in z_matrix}
    folds = np.ones(max(len(z_matrix) - 3, 0), dtype=np.int64)
    for i, (_, p, q, d) in enumerate(z_matrix[3:].tolist()):
        is_primary = partner[d] != p
        if is_primary and {p, q} not in fixed and {p, q} in bridges:
            folds[i] = max(_rotor_fold(graph, p, q, distinct), _rotor_fold(graph, q, p, distinct))
    return folds


def _path_bonds(paths: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    return [bond for path in paths for bond in pairwise(path)]


def _sine(positions: FloatArray, i: int, j: int, k: int) -> float:
    u, v = positions[i] - positions[j], positions[k] - positions[j]
    return float(np.linalg.norm(np.cross(u, v)) / (np.linalg.norm(u) * np.linalg.norm(v)))


def _default_root(graph: nx.Graph, positions: FloatArray | None) -> tuple[int, ...]:
    """Three bonded heavy atoms in the middle of the molecule."""
    if len(graph) < 3:
        return tuple(sorted(graph))
    eccentricity = nx.eccentricity(graph)

    def preference(triple: tuple[int, int, int]) -> tuple[Any, ...]:
        linear = positions is not None and _sine(positions, *triple) < MIN_SINE
        n_hydrogens = sum(graph.nodes[atom]["element"] == "H" for atom in triple)
        return linear, n_hydrogens, eccentricity[triple[1]], triple

    triples = ((a, b, c) for b in graph for a, c in combinations(sorted(graph[b]), 2))
    return min(triples, key=preference)


def _rooted_tree(
    graph: nx.Graph, root: Sequence[int], required: Sequence[tuple[int, int]]
) -> tuple[dict[int, int], dict[int, list[int]]]:
    """The parent of each atom, and the children of each atom, heavy and large branches first.

    Where a ring must be cut, it is cut farthest from the root, but never at a required bond.
    """
    distance = nx.single_source_shortest_path_length(graph, root[1])
    weighted = nx.Graph()
    weighted.add_weighted_edges_from((a, b, distance[a] + distance[b]) for a, b in graph.edges)
    weighted.add_weighted_edges_from((a, b, -1) for a, b in required)
    tree = nx.bfs_tree(nx.minimum_spanning_tree(weighted), root[0])
    size = dict.fromkeys(tree, 1)
    for parent, child in reversed(list(tree.edges)):
        size[parent] += size[child]

    def preference(atom: int) -> tuple[Any, ...]:
        return atom not in root, graph.nodes[atom]["element"] == "H", -size[atom], atom

    up = {child: parent for parent, child in tree.edges} | {root[0]: root[1]}
    children = {atom: sorted(tree.successors(atom), key=preference) for atom in tree}
    children[root[0]].remove(root[1])
    return up, children


def _away_from_root(torsion: Torsion, up: dict[int, int], root: Sequence[int]) -> Torsion:
    """The torsion in the direction in which its second atom is the parent of its third; a1 is that of a0."""
    i, j, k, m = torsion
    return torsion if up[k] == j and k != root[1] else (m, k, j, i)


def _best_frame(p: int, q: int, candidates: Sequence[int], positions: FloatArray | None) -> int:
    """The first candidate d whose angle p-q-d is far from linear, or the one farthest from it."""
    if positions is None:
        return candidates[0]
    sines = [_sine(positions, p, q, d) for d in candidates]
    return candidates[int(np.argmax(np.minimum(sines, MIN_SINE)))]


def _in_build_order(graph: nx.Graph, rows: dict[int, tuple[int, ...]]) -> IntArray:
    """Rows sorted so that partners come first, and hydrogens as late as they can."""
    needs = nx.DiGraph((partner, row[0]) for row in rows.values() for partner in row[1:])
    order = nx.lexicographical_topological_sort(needs, key=lambda x: (graph.nodes[x]["element"] == "H", x))
    return np.array([(*rows[x], -1, -1, -1)[:4] for x in order], dtype=np.int64)


def _rotor_fold(graph: nx.Graph, centre: int, axis: int, distinct: set[int]) -> int:
    """The fold of the group behind the bridge axis-centre: all neighbours of the centre must be alike.

    Alike means one Weisfeiler-Lehman colour in the moved group. Where colours are too coarse (chirality), the
    fold proposes states that are not equivalent: this costs efficiency, never exactness.
    """
    arms = [atom for atom in graph[centre] if atom != axis]
    elements = {graph.nodes[atom]["element"] for atom in arms}
    if len(arms) not in (2, 3) or len(elements) > 1 or len({graph.degree[atom] for atom in arms}) > 1:
        return 1
    if len(arms) == 2 and not _is_planar(graph, centre, axis, elements):
        return 1
    cut = nx.restricted_view(graph, [], [(axis, centre)])
    group = nx.Graph(cut.subgraph(nx.node_connected_component(cut, centre)))
    colours: dict[int, Hashable] = {
        atom: f"{atom}" if atom == centre or atom in distinct else graph.nodes[atom]["element"] for atom in group
    }
    nx.set_node_attributes(group, colours, "colour")
    hashes = nx.weisfeiler_lehman_subgraph_hashes(group, node_attr="colour", iterations=len(group))
    return len(arms) if len({hashes[atom][-1] for atom in arms}) == 1 else 1


def _is_planar(graph: nx.Graph, centre: int, axis: int, arm_elements: set[str]) -> bool:
    """Whether a centre of three neighbours is flat: carbon is, nitrogen in nitro or next to a flat atom."""
    element = graph.nodes[centre]["element"]
    return element == "C" or (element == "N" and (arm_elements == {"O"} or graph.degree[axis] <= 3))
