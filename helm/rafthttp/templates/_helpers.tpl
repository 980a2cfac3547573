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

{{/* An umbrella chart's registry comes before the chart's own, as in other charts. */}}
{{- define "rafthttp.image" -}}
{{- $name := .Values.image.repository }}
{{- with .Values.global.imageRegistry | default .Values.image.registry }}{{ $name = printf "%s/%s" . $name }}{{ end }}
{{- if .Values.image.digest }}{{ printf "%s@%s" $name .Values.image.digest }}
{{- else }}{{ printf "%s:%s" $name (.Values.image.tag | default .Chart.AppVersion) }}{{ end }}
{{- end }}

{{/* The umbrella chart's and the chart's own, each once; both are names, or maps with a name. */}}
{{- define "rafthttp.imagePullSecrets" -}}
{{- $names := list }}
{{- range concat (.Values.global.imagePullSecrets | default list) .Values.imagePullSecrets }}
{{- if kindIs "map" . }}{{ $names = append $names .name }}{{ else }}{{ $names = append $names . }}{{ end }}
{{- end }}
{{- with $names | uniq }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Of a service's spec, by which kinds of addresses it is reached. */}}
{{- define "rafthttp.ipFamilies" }}
{{- with .Values.ipFamilyPolicy }}
  ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .Values.ipFamilies }}
  ipFamilies: {{ toJson . }}
{{- end }}
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
{{ include "rafthttp.headless" . }}.{{ include "rafthttp.services" . }}
{{- end }}

{{/* The DNS domain of the namespace's services; the part that resolvers add where the cluster's is not known. */}}
{{- define "rafthttp.services" -}}
{{ .Release.Namespace }}.svc{{ with .Values.clusterDomain }}.{{ . }}{{ end }}
{{- end }}

{{/* Whatever names a certificate means it. */}}
{{- define "rafthttp.tlsSource" -}}
{{- if .Values.tls.source }}{{ .Values.tls.source }}
{{- else if .Values.tls.existingSecret }}secret
{{- else if .Values.tls.certManager.issuerRef.name }}certManager
{{- else }}none{{ end }}
{{- end }}

{{- define "rafthttp.peerScheme" -}}
{{ ternary "http" "https" (eq (include "rafthttp.tlsSource" .) "none") }}
{{- end }}

{{/* The secret with the peers' certificate; nothing where they speak plain HTTP. */}}
{{- define "rafthttp.tlsSecret" -}}
{{- $source := include "rafthttp.tlsSource" . }}
{{- if eq $source "secret" }}{{ .Values.tls.existingSecret }}
{{- else if eq $source "certManager" }}{{ include "rafthttp.fullname" . }}-peer-tls{{ end }}
{{- end }}

{{- define "rafthttp.clientScheme" -}}
{{ ternary "https" "http" (and (eq .Values.mode "node") (not (empty .Values.clientTls.existingSecret))) }}
{{- end }}

{{- define "rafthttp.metricsScheme" -}}
{{ ternary "https" "http" (and (eq .Values.mode "node") .Values.clientTls.metrics) }}
{{- end }}

{{/* How a scraper speaks to the metrics port. */}}
{{- define "rafthttp.scrapeTls" -}}
{{- if eq (include "rafthttp.metricsScheme" .) "https" }}
scheme: https
tlsConfig:
  ca:
    secret: {name: {{ .Values.clientTls.existingSecret }}, key: ca.crt}
  serverName: {{ include "rafthttp.headless" . }}.{{ .Release.Namespace }}.svc
{{- end }}
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
{{- with .root.Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- include "rafthttp.imagePullSecrets" .root }}
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
{{- with .Values.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
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

{{/* A probe that is not null: (list "livenessProbe" "/livez" "the metrics port's scheme" .Values.livenessProbe) */}}
{{- define "rafthttp.probe" -}}
{{- if kindIs "map" (last .) }}
{{- $get := dict "path" (index . 1) "port" "metrics" }}
{{- if eq (index . 2) "https" }}
{{- $_ := set $get "scheme" "HTTPS" }}
{{- end }}
{{ first . }}:
  {{- merge (dict "httpGet" $get) (last .) | toYaml | nindent 2 }}
{{- end }}
{{- end }}

{{/* Probes, the end of the pod, and its resources. */}}
{{- define "rafthttp.containerHealth" -}}
{{- $scheme := include "rafthttp.metricsScheme" . }}
{{- include "rafthttp.probe" (list "startupProbe" "/livez" $scheme .Values.startupProbe) }}
{{- include "rafthttp.probe" (list "livenessProbe" "/livez" $scheme .Values.livenessProbe) }}
{{- include "rafthttp.probe" (list "readinessProbe" "/readyz" $scheme .Values.readinessProbe) }}
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
