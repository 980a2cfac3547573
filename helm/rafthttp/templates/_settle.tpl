{{/*
What is null, or not there, is settled before any template reads it: called first in each of them. Null comes from
`--set a.b=null`, from a map without anything below it in a file of values, and from an upgrade with `--reuse-values`
out of a chart that did not have the value. It means the default, as values.yaml has it; but for what is handed to
Kubernetes as it is, where it means none.
*/}}
{{- define "rafthttp.settle" -}}
{{- include "rafthttp.fill" (dict "values" .Values "defaults" (.Files.Get "files/values.yaml" | fromYaml)) }}
{{- end }}

{{/* Puts what `values` lacks there, map by map: (dict "values" … "defaults" …) */}}
{{- define "rafthttp.fill" -}}
{{- $asIs := list "startupProbe" "livenessProbe" "readinessProbe" "resources" "podSecurityContext" "securityContext" "labels" "monitoringNamespaces" }}
{{- $values := .values }}
{{- range $name, $default := .defaults }}
{{- $given := index $values $name }}
{{- if has $name $asIs }}
{{- include "rafthttp.prune" $given }}
{{- else if kindIs "invalid" $given }}
{{- $_ := set $values $name $default }}
{{- else if not (and (kindIs "map" $default) (kindIs "map" $given)) }}
{{- else if $default }}
{{- include "rafthttp.fill" (dict "values" $given "defaults" $default) }}
{{- else }}
{{- include "rafthttp.prune" $given }}
{{- end }}
{{- end }}
{{- end }}

{{/* Takes out of a map what is null in it, however deep. */}}
{{- define "rafthttp.prune" -}}
{{- if kindIs "map" . }}
{{- $map := . }}
{{- range $name, $value := . }}
{{- if kindIs "invalid" $value }}
{{- $_ := unset $map $name }}
{{- else }}
{{- include "rafthttp.prune" $value }}
{{- end }}
{{- end }}
{{- else if kindIs "slice" . }}
{{- range . }}
{{- include "rafthttp.prune" . }}
{{- end }}
{{- end }}
{{- end }}
