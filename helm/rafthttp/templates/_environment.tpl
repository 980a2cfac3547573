{{/*
Flags are given as environment variables, so that both extraEnv and extraArgs can override each: a variable of the same
name takes the place of the chart's, and a flag counts more than a variable.
*/}}

{{/* The variables of a container, as a list: (dict "root" . "chart" "the template of the chart's own") */}}
{{- define "rafthttp.environment" -}}
{{- $extra := dict }}
{{- range .root.Values.extraEnv }}
{{- $_ := set $extra .name . }}
{{- end }}
{{- $variables := list }}
{{- $names := list }}
{{- range include .chart .root | fromYamlArray }}
{{- $names = append $names .name }}
{{- $variables = append $variables (get $extra .name | default .) }}
{{- end }}
{{- range .root.Values.extraEnv }}
{{- if not (has .name $names) }}
{{- $variables = append $variables . }}
{{- end }}
{{- end }}
{{- toYaml $variables }}
{{- end }}

{{- define "rafthttp.commonVariables" -}}
- name: POD_NAME
  valueFrom:
    fieldRef: {apiVersion: v1, fieldPath: metadata.name}
- {name: RAFTHTTP_LOG, value: {{ .Values.log.filter | quote }}}
- {name: RAFTHTTP_LOG_FORMAT, value: {{ .Values.log.format | quote }}}
- {name: RAFTHTTP_GRACE, value: {{ .Values.grace | quote }}}
- {name: RAFTHTTP_LISTEN_METRICS_URLS, value: {{ printf "%s://[::]:%d" (include "rafthttp.metricsScheme" .) (int .Values.monitoring.metricsPort) | quote }}}
{{- if .Values.otlp.endpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ .Values.otlp.endpoint | quote }}}
- {name: OTEL_EXPORTER_OTLP_PROTOCOL, value: {{ .Values.otlp.protocol | quote }}}
- {name: OTEL_RESOURCE_ATTRIBUTES, value: {{ printf "k8s.pod.name=$(POD_NAME),k8s.namespace.name=%s" .Release.Namespace | quote }}}
{{- end }}
{{- end }}

{{- define "rafthttp.nodeVariables" -}}
{{- $scheme := include "rafthttp.peerScheme" . }}
{{- $clients := include "rafthttp.clientScheme" . }}
{{- $own := printf "$(POD_NAME).%s" (include "rafthttp.domain" .) }}
{{- include "rafthttp.commonVariables" . }}
- {name: RAFTHTTP_NAME, value: $(POD_NAME)}
- {name: RAFTHTTP_DATA_DIR, value: /var/lib/rafthttp/data}
# One socket for IPv6 and IPv4, whichever of them the pod has.
- {name: RAFTHTTP_LISTEN_PEER_URLS, value: {{ printf "%s://[::]:2380" $scheme | quote }}}
- {name: RAFTHTTP_INITIAL_ADVERTISE_PEER_URLS, value: {{ printf "%s://%s:2380" $scheme $own | quote }}}
- {name: RAFTHTTP_LISTEN_CLIENT_URLS, value: {{ printf "%s://[::]:2379" $clients | quote }}}
- {name: RAFTHTTP_ADVERTISE_CLIENT_URLS, value: {{ printf "%s://%s:2379" $clients $own | quote }}}
- {name: RAFTHTTP_INITIAL_CLUSTER_STATE, value: auto}
- {name: RAFTHTTP_INITIAL_CLUSTER_TOKEN, value: {{ .Values.node.initialClusterToken | default (printf "%s/%s" .Release.Namespace .Release.Name) | quote }}}
- {name: RAFTHTTP_HEARTBEAT_INTERVAL, value: {{ .Values.node.heartbeatInterval | quote }}}
- {name: RAFTHTTP_ELECTION_TIMEOUT, value: {{ .Values.node.electionTimeout | quote }}}
- {name: RAFTHTTP_SNAPSHOT_COUNT, value: {{ .Values.node.snapshotCount | int64 | quote }}}
- {name: RAFTHTTP_MAX_REQUEST_BYTES, value: {{ .Values.node.maxRequestBytes | quote }}}
- {name: RAFTHTTP_PROBE_INTERVAL, value: {{ .Values.node.probeInterval | quote }}}
- {name: RAFTHTTP_PROBE_TIMEOUT, value: {{ .Values.node.probeTimeout | quote }}}
- {name: RAFTHTTP_ETCD_METRICS, value: {{ .Values.monitoring.etcdMetrics | quote }}}
{{- if .Values.otlp.endpoint }}
- {name: RAFTHTTP_TRACE_RATIO, value: {{ .Values.otlp.traceRatio | quote }}}
{{- end }}
{{- if eq $scheme "https" }}
- {name: RAFTHTTP_PEER_CERT_FILE, value: /etc/rafthttp/peer-tls/tls.crt}
- {name: RAFTHTTP_PEER_KEY_FILE, value: /etc/rafthttp/peer-tls/tls.key}
- {name: RAFTHTTP_PEER_TRUSTED_CA_FILE, value: /etc/rafthttp/peer-tls/ca.crt}
{{- with .Values.tls.allowedCommonName }}
- {name: RAFTHTTP_PEER_CERT_ALLOWED_CN, value: {{ . | quote }}}
{{- end }}
{{- end }}
{{- if eq $clients "https" }}
{{ include "rafthttp.clientTlsVariables" . }}
{{- end }}
{{- end }}

{{- define "rafthttp.clientTlsVariables" -}}
- {name: RAFTHTTP_CERT_FILE, value: /etc/rafthttp/client-tls/tls.crt}
- {name: RAFTHTTP_KEY_FILE, value: /etc/rafthttp/client-tls/tls.key}
- {name: RAFTHTTP_AUTO_TRUSTED_CA_FILE, value: /etc/rafthttp/client-tls/ca.crt}
{{- if .Values.clientTls.clientCertAuth }}
- {name: RAFTHTTP_CLIENT_CERT_AUTH, value: "true"}
- {name: RAFTHTTP_TRUSTED_CA_FILE, value: /etc/rafthttp/client-tls/ca.crt}
{{- end }}
{{- end }}

{{- define "rafthttp.probeVariables" -}}
{{- include "rafthttp.commonVariables" . }}
- {name: RAFTHTTP_INTERVAL, value: {{ .Values.probe.interval | quote }}}
- {name: RAFTHTTP_TIMEOUT, value: {{ .Values.probe.timeout | quote }}}
{{- $tls := .Values.probe.tls }}
{{- if $tls.existingSecret }}
{{- with $tls.caKey }}
- {name: RAFTHTTP_CACERT, value: {{ printf "/etc/rafthttp/etcd-tls/%s" . | quote }}}
{{- end }}
{{- with $tls.certKey }}
- {name: RAFTHTTP_CERT, value: {{ printf "/etc/rafthttp/etcd-tls/%s" . | quote }}}
- {name: RAFTHTTP_KEY, value: {{ printf "/etc/rafthttp/etcd-tls/%s" $tls.keyKey | quote }}}
{{- end }}
{{- end }}
{{- if $tls.insecureSkipVerify }}
- {name: RAFTHTTP_INSECURE_SKIP_TLS_VERIFY, value: "true"}
{{- end }}
{{- end }}
