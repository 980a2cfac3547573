"""The chart on a real control plane whose kubelets are pretended."""
