"""Path closure and draw of causalbench 1.1.2's `Evaluator.evaluate_network`, as sets and dicts, to test against.

Written after its source (Apache-2.0), without its statistics; test_published.py runs the package itself.
"""

import random

Network = dict[str, set[str]]


def rounds(edges: list[tuple[str, str]], max_path_length: int) -> list[Network]:
    """The network, then the pairs with a path after every round that changes them."""
    network: Network = {}
    for source, target in edges:
        network.setdefault(source, set()).add(target)
    found = [network]
    for _ in range(max_path_length - 1):
        now = found[-1]
        deeper = {v: n.union(*[now[nn] for nn in n if nn in now]) - {v} for v, n in now.items()}
        if deeper == now:
            break
        found.append(deeper)
    return found


def drawn(genes: list[str], reach: Network, number: int, seed: int) -> set[tuple[str, str]]:
    """Pairs without a path."""
    generator, edges = random.Random(seed), set()
    while len(edges) < number:
        first, second = generator.sample(range(len(genes)), 2)
        if genes[second] not in reach.get(genes[first], set()):
            edges.add((genes[first], genes[second]))
    return edges


def pairs_of(network: Network) -> set[tuple[str, str]]:
    return {(source, target) for source, targets in network.items() for target in targets}
