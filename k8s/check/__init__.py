"""The check of the Kubernetes manifests: rendered, against schemas, policy and the code itself."""
