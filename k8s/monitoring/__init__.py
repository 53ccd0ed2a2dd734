"""Monitoring as code: the dashboard and the page of metrics. Rules lie in `k8s/components`."""
