{{/* A duration such as 1h30m in milliseconds. */}}
{{- define "rafthttp.milliseconds" -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 }}
{{- $sum := 0 }}
{{- range regexFindAll "[0-9]+(ms|s|m|h)" . -1 }}
{{- $sum = add $sum (mul (regexFind "^[0-9]+" . | int64) (get $units (regexFind "[a-z]+" .))) }}
{{- end }}
{{- $sum }}
{{- end }}

{{/* A quantity such as 1.5MiB, 8Gi or 500m as a number, so that two of them can be compared. */}}
{{- define "rafthttp.quantity" -}}
{{- $units := dict "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 "Ei" 1152921504606846976 }}
{{- $unit := regexFind "[A-Za-z]+$" . | trimSuffix "B" }}
{{- mulf (regexFind "^[0-9.]+" . | float64) (empty $unit | ternary 1 (get $units $unit)) }}
{{- end }}

{{/* Fails unless the second of two durations is shorter than the first: (list "a.b" "…" "a.c" "…"), which it names. */}}
{{- define "rafthttp.checkShorter" -}}
{{- $long := include "rafthttp.milliseconds" (index . 1) | int64 }}
{{- $short := include "rafthttp.milliseconds" (index . 3) | int64 }}
{{- if lt $short 1 }}
{{- fail (printf "%s: expected more than nothing, got %s" (index . 2) (index . 3)) }}
{{- else if ge $short $long }}
{{- fail (printf "%s: expected less than %s, which is %s, got %s" (index . 2) (index . 0) (index . 1) (index . 3)) }}
{{- end }}
{{- end }}

{{- define "rafthttp.checkNodeTimes" -}}
{{- $heartbeat := include "rafthttp.milliseconds" .heartbeatInterval | int64 }}
{{- $election := include "rafthttp.milliseconds" .electionTimeout | int64 }}
{{- if lt $heartbeat 1 }}
{{- fail (printf "node.heartbeatInterval: expected 1ms or more, got %s" .heartbeatInterval) }}
{{- else if lt $election (mul 5 $heartbeat) }}
{{- fail (printf "node.electionTimeout: expected at least five times node.heartbeatInterval, which is %s, got %s" .heartbeatInterval .electionTimeout) }}
{{- else if gt $election 50000 }}
{{- fail (printf "node.electionTimeout: expected at most 50s, got %s" .electionTimeout) }}
{{- end }}
{{- include "rafthttp.checkShorter" (list "node.probeInterval" .probeInterval "node.probeTimeout" .probeTimeout) }}
{{- end }}

{{- define "rafthttp.checkNode" -}}
{{- include "rafthttp.checkNodeTimes" .Values.node }}
{{- $bytes := include "rafthttp.quantity" .Values.node.maxRequestBytes | float64 }}
{{- if or (lt $bytes 1.0) (gt $bytes 16777216.0) }}
{{- fail (printf "node.maxRequestBytes: expected 1 to 16MiB, got %s" .Values.node.maxRequestBytes) }}
{{- end }}
{{- if has (int .Values.monitoring.metricsPort) (list 2379 2380) }}
{{- fail (printf "monitoring.metricsPort: expected another port than 2379 and 2380, where a member's clients and peers are, got %d" (int .Values.monitoring.metricsPort)) }}
{{- end }}
{{- include "rafthttp.checkTls" .Values.tls }}
{{- include "rafthttp.checkClientTls" .Values.clientTls }}
{{- if eq (include "rafthttp.tlsSource" .) "certManager" }}
{{- include "rafthttp.checkCertificate" .Values.tls.certManager }}
{{- end }}
{{- end }}

{{- define "rafthttp.checkTls" -}}
{{- $issuer := .certManager.issuerRef.name }}
{{- if and (not .source) .existingSecret $issuer }}
{{- fail "tls.source: expected secret or certManager, since both tls.existingSecret and tls.certManager.issuerRef.name are set" }}
{{- else if and (eq .source "secret") (not .existingSecret) }}
{{- fail "tls.existingSecret: expected the name of the secret with tls.crt, tls.key and ca.crt, since tls.source is secret" }}
{{- else if and (eq .source "certManager") (not $issuer) }}
{{- fail "tls.certManager.issuerRef.name: expected an issuer, since tls.source is certManager" }}
{{- else if and (eq .source "certManager") .existingSecret }}
{{- fail (printf "tls.existingSecret: expected none, since tls.source is certManager, got %s; set tls.source=secret to use it" .existingSecret) }}
{{- else if and (eq .source "none") .existingSecret }}
{{- fail (printf "tls.existingSecret: expected none, since tls.source is none, got %s; set tls.source=secret to use it" .existingSecret) }}
{{- else if and (eq .source "none") $issuer }}
{{- fail (printf "tls.certManager.issuerRef.name: expected none, since tls.source is none, got %s; set tls.source=certManager to use it" $issuer) }}
{{- else if and .allowedCommonName (not (or .existingSecret $issuer)) }}
{{- fail (printf "tls.allowedCommonName: expected none, since peers speak plain HTTP, got %s; set tls.existingSecret or tls.certManager.issuerRef.name" .allowedCommonName) }}
{{- end }}
{{- end }}

{{- define "rafthttp.checkClientTls" -}}
{{- if and .clientCertAuth (not .existingSecret) }}
{{- fail "clientTls.clientCertAuth: expected clientTls.existingSecret beside it, the secret with tls.crt, tls.key and ca.crt" }}
{{- else if and .metrics (not .existingSecret) }}
{{- fail "clientTls.metrics: expected clientTls.existingSecret beside it, the secret with tls.crt, tls.key and ca.crt" }}
{{- else if and .metrics .clientCertAuth }}
{{- fail "clientTls.metrics: expected false, since clientTls.clientCertAuth is on and a kubelet has no certificate to show" }}
{{- end }}
{{- end }}

{{/* What cert-manager would refuse. */}}
{{- define "rafthttp.checkCertificate" -}}
{{- include "rafthttp.checkShorter" (list "tls.certManager.duration" .duration "tls.certManager.renewBefore" .renewBefore) }}
{{- $key := .privateKey }}
{{- if and (eq $key.algorithm "ECDSA") (not (has (int $key.size) (list 256 384 521))) }}
{{- fail (printf "tls.certManager.privateKey.size: expected 256, 384 or 521, since the algorithm is ECDSA, got %d" (int $key.size)) }}
{{- else if and (eq $key.algorithm "RSA") (lt (int $key.size) 2048) }}
{{- fail (printf "tls.certManager.privateKey.size: expected 2048 or more, since the algorithm is RSA, got %d" (int $key.size)) }}
{{- end }}
{{- end }}

{{- define "rafthttp.checkProbe" -}}
{{- include "rafthttp.checkShorter" (list "probe.interval" .interval "probe.timeout" .timeout) }}
{{- if not .targets }}
{{- fail "probe.targets: expected at least one peer URL, such as https://10.0.0.1:2380, since mode is probe" }}
{{- end }}
{{- range .targets }}
{{- if not (include "rafthttp.isUrl" .) }}
{{- fail (printf "probe.targets: expected http://HOST:PORT or https://HOST:PORT, such as https://10.0.0.1:2380, got %s" .) }}
{{- end }}
{{- end }}
{{- $https := false }}
{{- range .targets }}{{ $https = or $https (hasPrefix "https:" .) }}{{ end }}
{{- $tls := .tls }}
{{- if and $https (not $tls.existingSecret) (not $tls.insecureSkipVerify) }}
{{- fail "probe.tls.existingSecret: expected the secret with the certificates that the peer port wants, since a target is https; or probe.tls.insecureSkipVerify=true" }}
{{- else if and $tls.existingSecret (not $https) }}
{{- fail (printf "probe.targets: expected https://HOST:PORT, since probe.tls.existingSecret is %s" $tls.existingSecret) }}
{{- else if and $tls.existingSecret $tls.certKey (not $tls.keyKey) }}
{{- fail (printf "probe.tls.keyKey: expected the secret's key with the private key, since probe.tls.certKey is %s" $tls.certKey) }}
{{- else if and $tls.existingSecret (not $tls.caKey) (not $tls.insecureSkipVerify) }}
{{- fail "probe.tls.caKey: expected the secret's key with the CA's certificate, such as ca.crt, unless probe.tls.insecureSkipVerify is true" }}
{{- end }}
{{- end }}

{{/* Something, if this is a scheme, a host and a port as a peer URL has them; nothing else. */}}
{{- define "rafthttp.isUrl" -}}
{{- $port := regexFind "[0-9]+$" . }}
{{- $host := regexReplaceAll "^https?://(.*):[0-9]+$" . "${1}" }}
{{- if and (regexMatch "^https?://.*:[0-9]{1,5}$" .) (ge (int $port) 1) (le (int $port) 65535) }}
{{- include "rafthttp.isHost" $host }}
{{- end }}
{{- end }}

{{/* Something, if this is a name, an IPv4 address, or an IPv6 address in brackets. */}}
{{- define "rafthttp.isHost" -}}
{{- $byte := "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])" }}
{{- $ipv4 := printf "%s(\\.%s){3}" $byte $byte }}
{{- if hasPrefix "[" . }}
{{- /* Groups of hexadecimal digits: eight of them, or fewer and one gap. An IPv4 address at the end is two. A zone may follow. */ -}}
{{- $groups := regexReplaceAll "%25[-A-Za-z0-9._]+\\]$" . "]" }}
{{- $groups = regexReplaceAll (printf ":%s\\]$" $ipv4) $groups ":0:0]" | trimPrefix "[" | trimSuffix "]" }}
{{- $colons := len (regexFindAll ":" $groups -1) }}
{{- if and (hasSuffix "]" .) (regexMatch "^([0-9A-Fa-f]{1,4})?(::?[0-9A-Fa-f]{1,4})*(::)?$" $groups) }}
{{- if or (and (eq $colons 7) (not (contains "::" $groups)) (not (hasPrefix ":" $groups))) (and (eq (len (regexFindAll "::" $groups -1)) 1) (le $colons 7) (or (not (hasPrefix ":" $groups)) (hasPrefix "::" $groups))) }}yes{{ end }}
{{- end }}
{{- else if regexMatch "\\.[0-9]+$|^[0-9]+$" . }}
{{- if regexMatch (printf "^%s$" $ipv4) . }}yes{{ end }}
{{- else if regexMatch "^[A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?(\\.[A-Za-z_]([-A-Za-z0-9_]*[A-Za-z0-9_])?|\\.[A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?)*$" . }}
{{- if regexMatch "(^|\\.)[A-Za-z_][-A-Za-z0-9_]*$" . }}yes{{ end }}
{{- end }}
{{- end }}

{{- define "rafthttp.checkPods" -}}
{{- $left := sub (mul 1000 (int64 .Values.terminationGracePeriodSeconds)) (mul 1000 (int64 .Values.preStopSeconds)) }}
{{- if ge (include "rafthttp.milliseconds" .Values.grace | int64) $left }}
{{- fail (printf "grace: expected less than terminationGracePeriodSeconds less preStopSeconds, which is %ds, got %s" (div $left 1000) .Values.grace) }}
{{- end }}
{{- $monitoring := .Values.monitoring }}
{{- if and $monitoring.serviceMonitor.enabled $monitoring.podMonitor.enabled }}
{{- fail "monitoring: expected one of serviceMonitor and podMonitor, since both would scrape everything twice" }}
{{- end }}
{{- /* Prometheus takes no job whose scrapes last longer than it is until the next. */ -}}
{{- range $name := list "serviceMonitor" "podMonitor" }}
{{- $monitor := get $monitoring $name }}
{{- if and $monitor.enabled (gt (include "rafthttp.milliseconds" $monitor.scrapeTimeout | int64) (include "rafthttp.milliseconds" $monitor.interval | int64)) }}
{{- fail (printf "monitoring.%s.scrapeTimeout: expected at most the interval, which is %s, got %s" $name $monitor.interval $monitor.scrapeTimeout) }}
{{- end }}
{{- end }}
{{- if and (eq .Values.ipFamilyPolicy "SingleStack") (gt (len .Values.ipFamilies) 1) }}
{{- fail "ipFamilyPolicy: expected PreferDualStack or RequireDualStack, since ipFamilies names two, got SingleStack" }}
{{- end }}
{{- with .Values.otlp.endpoint }}
{{- $authority := regexReplaceAll "^https?://([^/@]+@)?([^/]*)(/.*)?$" . "${2}" }}
{{- if not (include "rafthttp.isHost" (regexReplaceAll ":[0-9]{1,5}$" $authority "")) }}
{{- fail (printf "otlp.endpoint: expected http://HOST:PORT or https://HOST:PORT, such as http://collector:4317, got %s" .) }}
{{- end }}
{{- end }}
{{- end }}

{{/* What the API server changes in no StatefulSet is told before a hook runs, and with the way out. */}}
{{- define "rafthttp.checkUnchanged" -}}
{{- $name := include "rafthttp.fullname" . }}
{{- $there := (lookup "apps/v1" "StatefulSet" .Release.Namespace $name).spec }}
{{- if and .Release.IsUpgrade $there }}
{{- $how := printf "no StatefulSet takes another: first kubectl -n %s delete statefulset %s --cascade=orphan, which leaves the members running; see \"Volumes that grow\" in the chart's README" .Release.Namespace $name }}
{{- $node := .Values.node }}
{{- if ne $node.podManagementPolicy ($there.podManagementPolicy | default "OrderedReady") }}
{{- fail (printf "node.podManagementPolicy: it is %s and would be %s, and %s" $there.podManagementPolicy $node.podManagementPolicy $how) }}
{{- end }}
{{- if ne $node.persistence.enabled (not (empty $there.volumeClaimTemplates)) }}
{{- fail (printf "node.persistence.enabled: it would be another, and %s" $how) }}
{{- end }}
{{- range $there.volumeClaimTemplates }}
{{- $size := .spec.resources.requests.storage }}
{{- if ne (include "rafthttp.quantity" $size) (include "rafthttp.quantity" $node.persistence.size) }}
{{- fail (printf "node.persistence.size: it is %s and would be %s, and %s" $size $node.persistence.size $how) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
