"""Where a graph ends."""

from collections.abc import Iterator


def bottom_components(graph: list[list[int]]) -> Iterator[int]:
    """Members of the strongly connected components that nothing leads out of (Tarjan, iterative)."""
    count, stack = 0, []
    order, low, component = [-1] * len(graph), [0] * len(graph), [-1] * len(graph)
    components = 0
    for root in range(len(graph)):
        if order[root] >= 0:
            continue
        work = [(root, 0)]
        while work:
            node, edge = work.pop()
            if edge == 0:
                order[node] = low[node] = count
                count += 1
                stack.append(node)
            advanced = False
            for position in range(edge, len(graph[node])):
                child = graph[node][position]
                if order[child] < 0:
                    work.append((node, position + 1))
                    work.append((child, 0))
                    advanced = True
                    break
                if component[child] < 0:
                    low[node] = min(low[node], order[child])
            if advanced:
                continue
            if low[node] == order[node]:
                while True:
                    member = stack.pop()
                    component[member] = components
                    if member == node:
                        break
                components += 1
            if work:
                parent = work[-1][0]
                low[parent] = min(low[parent], low[node])
    leaves = [True] * components
    for node, children in enumerate(graph):
        if any(component[child] != component[node] for child in children):
            leaves[component[node]] = False
    return (node for node in range(len(graph)) if leaves[component[node]])
