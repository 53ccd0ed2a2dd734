"""Network: the NetworkPolicies allow what the parts need of each other, and nothing more.

They are evaluated as a network plugin does: a connection passes when some policy of its source
allows it to leave and some policy of its target allows it to enter.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from k8s.check.objects import OURS, Manifests, Pods, selects, title

CLIENT: Final[Mapping[str, str]] = {"loragen.io/client": "true"}
"""What labels a pod, or a namespace, whose pods are clients."""
_ANY_PORT: Final = "any other port"
_WANTED: Final = frozenset(
    {
        ("server", "worker", "http"),
        ("server", "router-service", "serve"),
        ("server", "redis", "redis"),
        ("prometheus", "server", "metrics"),
        ("prometheus", "worker", "http"),
        ("prometheus", "router-service", "metrics"),
    }
)
_AMONG_THEMSELVES: Final = frozenset({"router-service"})
_FROM_OUTSIDE: Final[Mapping[str, frozenset[str]]] = {
    "server": frozenset({"api", "metrics"}),
    "worker": frozenset({"http"}),
    "router-service": frozenset({"dashboard", "serve", "metrics"}),
}


def network_problems(manifests: Manifests) -> Iterator[str]:
    """Yield connections that fail though they are needed, or pass though they are not."""
    policies = manifests.of_kind("NetworkPolicy")
    if not any(_denies_all(each) for each in policies):
        yield "NetworkPolicy: none denies everything by default, in and out"
    for each in policies:
        for problem in _policy_problems(manifests, each):
            yield f"{title(each)}: {problem}"
    for source in manifests.pods:
        for target in manifests.pods:
            yield from _pair_problems(policies, source, target)


def _denies_all(policy: Mapping[str, Any]) -> bool:
    spec = policy["spec"]
    return (
        not spec.get("podSelector")
        and set(spec.get("policyTypes") or []) == {"Ingress", "Egress"}
        and not spec.get("ingress")
        and not spec.get("egress")
    )


def _policy_problems(manifests: Manifests, policy: Mapping[str, Any]) -> Iterator[str]:
    spec = policy["spec"]
    own = [pods for pods in manifests.pods if selects(spec.get("podSelector"), pods.labels)]
    if not own:
        yield "podSelector selects no pods"
    for rule in spec.get("ingress") or []:
        if not rule.get("from"):
            yield "an ingress rule lets everyone in"
        for peer in rule.get("from") or []:
            yield from _peer_problems(manifests, peer)
            if "namespaceSelector" in peer or "ipBlock" in peer:
                yield from _outside_problems(own, rule.get("ports"))
        yield from _port_problems(own, rule)
    for rule in spec.get("egress") or []:
        if not rule.get("to") and (not rule.get("ports") or _are_ours(own)):
            yield "an egress rule lets out to everywhere"
        for peer in rule.get("to") or []:
            yield from _peer_problems(manifests, peer)
            if "namespaceSelector" not in peer:
                reached = [
                    pods for pods in manifests.pods if selects(peer.get("podSelector"), pods.labels)
                ]
                yield from _port_problems(reached, rule)


def _peer_problems(manifests: Manifests, peer: Mapping[str, Any]) -> Iterator[str]:
    selector = peer.get("podSelector")
    if "namespaceSelector" in peer or "ipBlock" in peer or selector is None:
        return
    if (selector.get("matchLabels") or {}) == CLIENT:
        return  # clients are no part of the manifests
    if not any(selects(selector, pods.labels) for pods in manifests.pods):
        yield f"peer {selector.get('matchLabels')} is no pod of the manifests"


def _outside_problems(own: Iterable[Pods], ports: Any) -> Iterator[str]:
    for pods in own:
        allowed = _FROM_OUTSIDE.get(pods.component, frozenset())
        if pods.component not in OURS:
            continue
        if not ports:
            yield f"lets other namespaces reach every port of {pods.owner}"
        for port in ports or []:
            if port.get("port") not in allowed:
                yield f"lets other namespaces reach port {port.get('port')} of {pods.owner}"


def _port_problems(pods: Iterable[Pods], rule: Mapping[str, Any]) -> Iterator[str]:
    chosen = list(pods)
    for port in rule.get("ports") or []:
        if chosen and not any(each.port(port.get("port")) is not None for each in chosen):
            yield f"port {port.get('port')}: no pod it is about has this port"


def _pair_problems(policies: list[dict[str, Any]], source: Pods, target: Pods) -> Iterator[str]:
    for name in [*(port.get("name", "") for port in target.ports()), _ANY_PORT]:
        enters = _passes(policies, "ingress", target, source, name)
        leaves = _passes(policies, "egress", source, target, name)
        wanted = _is_wanted(source, target, name)
        where = f"port {name} of {target.owner}"
        if wanted and not (enters and leaves):
            yield f"NetworkPolicy: {source.owner} cannot reach {where}"
        # The target's wall stands by itself, whatever the source's lets out.
        if enters and not wanted and _are_ours([target]):
            yield f"NetworkPolicy: {source.owner} can reach {where}, and has no business there"


def _is_wanted(source: Pods, target: Pods, port: str) -> bool:
    if source.component == target.component and source.component in _AMONG_THEMSELVES:
        return True
    return (source.component, target.component, port) in _WANTED


def _are_ours(pods: Iterable[Pods]) -> bool:
    return any(each.component in OURS for each in pods)


def _passes(policies: list[dict[str, Any]], way: str, own: Pods, other: Pods, port: str) -> bool:
    """Whether the policies of `own` let it speak with `other` in that direction."""
    kind = way.capitalize()
    applying = [
        each["spec"]
        for each in policies
        if selects(each["spec"].get("podSelector"), own.labels)
        and kind in (each["spec"].get("policyTypes") or ["Ingress"])
    ]
    if not applying:
        return True  # whom no policy is about may do everything
    target = other if way == "egress" else own
    peers = "to" if way == "egress" else "from"
    return any(
        _has_port(rule.get("ports"), target, port)
        and (not rule.get(peers) or any(_is_peer(peer, other) for peer in rule[peers]))
        for spec in applying
        for rule in spec.get(way) or []
    )


def _is_peer(peer: Mapping[str, Any], pods: Pods) -> bool:
    # Of a namespace the labels are not known, so only one that selects all counts as ours.
    if peer.get("namespaceSelector") or "ipBlock" in peer:
        return False
    return selects(peer.get("podSelector"), pods.labels)


def _has_port(ports: Any, target: Pods, name: str) -> bool:
    if not ports:
        return True
    if name == _ANY_PORT:
        return any("endPort" in each for each in ports)
    number = target.port(name)
    return any(each.get("port") in (name, number) for each in ports)
