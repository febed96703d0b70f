# SPDX-License-Identifier: Apache-2.0
"""The JSON of a data set whose classes are the leaves of a graph: Meta-Dataset's form of ImageNet.

Each split has a graph of its own, a list of nodes {wn_id, children_ids, …}; its leaves are the split's
classes, named by their WordNet ids. What is kept of it is which classes lie below each inner node.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tf_lwdgh.data.store import spec_json

GRAPH = "HierarchicalDatasetSpecification"
_NODES = "nodes"  # where, among our own keys, specs keep the classes below each node


def to_json(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of a DatasetSpec's fields; the graph's nodes stand among our own keys."""
    out = spec_json.to_json(fields)
    if fields[_NODES]:
        out[spec_json.EXTRAS][_NODES] = [list(node) for node in fields[_NODES]]
    return out


def from_json(data: Any) -> dict[str, Any]:
    """The fields of a DatasetSpec, of any of the three forms.

    Raises:
      ValueError: it is no spec; the message names the key, the rule and the value.
    """
    if not isinstance(data, dict) or data.get("__class__") != GRAPH:
        fields = spec_json.from_json(data)
        nodes = data.get(spec_json.EXTRAS, {}).get(_NODES, [])
        lists = isinstance(nodes, list) and all(
            isinstance(node, list) and all(type(i) is int for i in node) for node in nodes
        )
        _require(lists, f"{spec_json.EXTRAS}[{_NODES}]", "be a list of lists of class ids", nodes)
        return {**fields, _NODES: tuple(map(tuple, nodes))} if nodes else fields
    names = _dictionary(data, "class_names")
    texts = all(isinstance(name, str) and i.isdecimal() for i, name in names.items())
    _require(texts, "class_names", "give each class id a name", names)
    ids = {name: int(i) for i, name in names.items()}
    counts, images, nodes = {}, {}, []
    for split in ("TRAIN", "VALID", "TEST"):
        graph = _graph(data, split)
        leaves = [node for node, children in graph.items() if not children]
        unknown = [leaf for leaf in leaves if leaf not in ids]
        _require(not unknown, f"split_subgraphs[{split}]", "have leaves of class_names only", unknown)
        sizes = _dictionary(_dictionary(data, "images_per_class"), split)
        missing = [leaf for leaf in leaves if leaf not in sizes]
        _require(not missing, f"images_per_class[{split}]", "count every leaf", missing)
        _check_run(split, sorted(ids[leaf] for leaf in leaves), sum(counts.values()))
        counts[split] = len(leaves)
        images |= {str(ids[leaf]): sizes[leaf] for leaf in leaves}
        below = _below(graph, split)
        inner = sorted(node for node, children in graph.items() if children)
        nodes += [tuple(sorted(ids[leaf] for leaf in below[node])) for node in inner]
    plain = {**data, "__class__": "DatasetSpecification", "classes_per_split": counts}
    return {**spec_json.from_json({**plain, "images_per_class": images}), _NODES: tuple(nodes)}


def _graph(data: Mapping[str, Any], split: str) -> dict[str, list[str]]:
    """The children of each node."""
    key = f"split_subgraphs[{split}]"
    listed = _dictionary(data, "split_subgraphs").get(split)
    fits = isinstance(listed, list) and all(
        isinstance(n, dict)
        and isinstance(n.get("wn_id"), str)
        and isinstance(n.get("children_ids"), list)
        and all(isinstance(child, str) for child in n["children_ids"])
        for n in listed
    )
    _require(fits, key, "be a list of nodes with wn_id and children_ids", listed)
    graph = {node["wn_id"]: node["children_ids"] for node in listed}
    strays = sorted({c for children in graph.values() for c in children if c not in graph})
    _require(not strays, key, "hold every node's children", strays)
    return graph


def _below(graph: Mapping[str, list[str]], split: str) -> dict[str, frozenset[str]]:
    """The leaves below each node, a leaf's being itself."""
    found = {node: frozenset([node]) for node, children in graph.items() if not children}
    left = [node for node in graph if node not in found]
    while left:
        ready = [node for node in left if all(child in found for child in graph[node])]
        _require(bool(ready), f"split_subgraphs[{split}]", "have no cycle", sorted(left)[:5])
        for node in ready:
            found[node] = frozenset().union(*(found[child] for child in graph[node]))
        left = [node for node in left if node not in found]
    return found


def _check_run(split: str, ids: list[int], start: int) -> None:
    wanted = list(range(start, start + len(ids)))
    rule = f"have the classes {start} to {start + len(ids) - 1}"
    _require(ids == wanted, f"split_subgraphs[{split}]", rule, ids)


def _dictionary(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    _require(isinstance(data.get(key), dict), key, "be a dictionary", data.get(key))
    return data[key]


def _require(holds: bool, key: str, rule: str, received: Any) -> None:
    if not holds:
        raise ValueError(f"{key} must {rule}. Received: {spec_json.short(received)}.")
