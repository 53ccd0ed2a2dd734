"""Check: everything that is wrong with one rendered folder."""

from collections.abc import Sequence
from pathlib import Path

from k8s.check.network import network_problems
from k8s.check.objects import Manifests
from k8s.check.policy import policy_problems
from k8s.check.processes import process_problems
from k8s.check.ray_service import ray_service_problems
from k8s.check.references import DocumentedSecrets, reference_problems
from k8s.check.schema import schema_problems
from k8s.check.settings import configuration_problems, environment_problems
from k8s.check.transform import Object


def problems(
    objects: Sequence[Object], secrets: DocumentedSecrets, crd: Path | None = None
) -> list[str]:
    """Return a line per problem; `crd` is KubeRay's definition of a RayService."""
    manifests = Manifests(objects)
    found = list(schema_problems(manifests, crd))
    if found:
        # What has the wrong form cannot be looked into further without stumbling.
        return found
    return [
        *policy_problems(manifests),
        *reference_problems(manifests, secrets),
        *network_problems(manifests),
        *configuration_problems(manifests),
        *environment_problems(manifests),
        *process_problems(manifests),
        *ray_service_problems(manifests, secrets),
    ]
