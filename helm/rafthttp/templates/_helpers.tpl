{{- define "rafthttp.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* 52: a StatefulSet's pods get a label with a hash behind their set's name, and jobs a suffix. */}}
{{- define "rafthttp.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains (include "rafthttp.name" .) .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "rafthttp.name" .) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "rafthttp.selectorLabels" -}}
app.kubernetes.io/name: {{ include "rafthttp.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The pods that serve: jobs and tests of the release have another component. */}}
{{- define "rafthttp.podSelector" -}}
{{ include "rafthttp.selectorLabels" . }}
app.kubernetes.io/component: {{ .Values.mode }}
{{- end }}

{{- define "rafthttp.labels" -}}
{{ include "rafthttp.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* metadata, but for the name: (dict "root" . "namespace" … "labels" … "annotations" …) */}}
{{- define "rafthttp.metadata" -}}
namespace: {{ .namespace | default .root.Release.Namespace }}
labels:
  {{- include "rafthttp.labels" .root | nindent 2 }}
  {{- with .component }}
  app.kubernetes.io/component: {{ . }}
  {{- end }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $annotations := merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "rafthttp.image" -}}
{{- $name := .Values.image.repository }}
{{- with .Values.image.registry }}{{ $name = printf "%s/%s" . $name }}{{ end }}
{{- if .Values.image.digest }}{{ printf "%s@%s" $name .Values.image.digest }}
{{- else }}{{ printf "%s:%s" $name (.Values.image.tag | default .Chart.AppVersion) }}{{ end }}
{{- end }}

{{- define "rafthttp.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "rafthttp.fullname" .) }}
{{- else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{- define "rafthttp.headless" -}}
{{ include "rafthttp.fullname" . }}-peers
{{- end }}

{{/* The DNS domain of the members' pods. */}}
{{- define "rafthttp.domain" -}}
{{ include "rafthttp.headless" . }}.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}
{{- end }}

{{- define "rafthttp.peerScheme" -}}
{{ ternary "http" "https" (eq .Values.tls.source "none") }}
{{- end }}

{{- define "rafthttp.tlsSecret" -}}
{{- if eq .Values.tls.source "secret" }}{{ required "tls.existingSecret: the name of the secret with tls.crt, tls.key and ca.crt, since tls.source is secret" .Values.tls.existingSecret }}
{{- else }}{{ include "rafthttp.fullname" . }}-peer-tls{{ end }}
{{- end }}

{{/* Every member at the start, as --initial-cluster has it. */}}
{{- define "rafthttp.initialCluster" -}}
{{- $members := list }}
{{- range $ordinal := until (int .Values.replicaCount) }}
{{- $name := printf "%s-%d" (include "rafthttp.fullname" $) $ordinal }}
{{- $members = append $members (printf "%s=%s://%s.%s:2380" $name (include "rafthttp.peerScheme" $) $name (include "rafthttp.domain" $)) }}
{{- end }}
{{- join "," $members }}
{{- end }}

{{/* What of a pod's spec is the same everywhere: (dict "root" . "component" …) */}}
{{- define "rafthttp.podBasics" -}}
serviceAccountName: {{ include "rafthttp.serviceAccountName" .root }}
automountServiceAccountToken: false
# Or the variables that Kubernetes makes of services would be taken for flags.
enableServiceLinks: false
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "rafthttp.containerBasics" -}}
image: {{ include "rafthttp.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
{{- end }}

{{- define "rafthttp.placement" -}}
{{- if .Values.affinity }}
affinity:
  {{- toYaml .Values.affinity | nindent 2 }}
{{- else if eq .Values.podAntiAffinity "hard" }}
affinity:
  podAntiAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "rafthttp.podSelector" . | nindent 12 }}
{{- else if eq .Values.podAntiAffinity "soft" }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "rafthttp.podSelector" . | nindent 14 }}
{{- end }}
{{- if .Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml .Values.topologySpreadConstraints | nindent 2 }}
{{- else }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "rafthttp.podSelector" . | nindent 8 }}
{{- end }}
{{- end }}

{{/* Probes, the end of the pod, and what users add to the container. */}}
{{- define "rafthttp.containerHealth" -}}
startupProbe:
  httpGet: {path: /livez, port: metrics}
  {{- toYaml .Values.startupProbe | nindent 2 }}
livenessProbe:
  httpGet: {path: /livez, port: metrics}
  {{- toYaml .Values.livenessProbe | nindent 2 }}
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  {{- toYaml .Values.readinessProbe | nindent 2 }}
{{- if and (gt (int .Values.preStopSeconds) 0) (semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version) }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ .Values.preStopSeconds }}
{{- end }}
{{- with .Values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "rafthttp.environment" -}}
{{- if .Values.otlp.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .Values.otlp.endpoint | quote }}
- name: OTEL_EXPORTER_OTLP_PROTOCOL
  value: {{ .Values.otlp.protocol | quote }}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: k8s.pod.name=$(POD_NAME),k8s.namespace.name={{ .Release.Namespace }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "rafthttp.logArgs" -}}
- --log-format={{ .Values.log.format }}
- --log={{ .Values.log.filter }}
- --grace={{ .Values.grace }}
{{- end }}
