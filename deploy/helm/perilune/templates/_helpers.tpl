{{/* Every helper takes a dict: root (the chart's scope) and service (master, trainer, rollout, reward, sandbox). */}}

{{- define "perilune.name" -}}
{{- printf "%s-%s" .root.Release.Name .service | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "perilune.selector" -}}
app.kubernetes.io/name: perilune
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .service }}
{{- end }}

{{- define "perilune.labels" -}}
{{ include "perilune.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "perilune.image" -}}
{{- with .root.Values.image -}}
{{ .registry }}perilune-{{ $.service }}:{{ .tag | default $.root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "perilune.port" -}}
{{- get (dict "master" 7040 "trainer" 7042 "rollout" 7043 "reward" 7041 "sandbox" 7050) .service -}}
{{- end }}

{{/* The environment that all services share; the sandbox gets no address of another. */}}
{{- define "perilune.environment" -}}
{{- $values := .root.Values }}
- {name: PERILUNE_METRICS_PORT, value: "9464"}
- {name: PERILUNE_METRICS_HOST, value: "0.0.0.0"}
- {name: PERILUNE_PATIENCE_S, value: "600"}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- name: PERILUNE_WORKER_ID
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: PERILUNE_ADVERTISE
  value: $(POD_IP):{{ include "perilune.port" . }}
{{- if $values.telemetry.endpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ $values.telemetry.endpoint | quote }}}
{{- end }}
{{- if $values.tls }}
- {name: PERILUNE_TOKENS_FILE, value: /run/secrets/perilune/tokens.toml}
- {name: PERILUNE_TLS_CERT, value: /run/secrets/perilune/tls.pem}
- {name: PERILUNE_TLS_KEY, value: /run/secrets/perilune/tls.key}
{{- else }}
- {name: PERILUNE_ALLOW_UNAUTHENTICATED, value: "1"}
{{- end }}
{{- if ne .service "sandbox" }}
- name: PERILUNE_NATS_URL
  value: {{ if $values.tls }}tls://{{ .service }}@{{ else }}nats://{{ end }}{{ $values.nats.address }}
- name: PERILUNE_MASTER_ADDRESS
  value: {{ include "perilune.name" (dict "root" .root "service" "master") }}:7040
- name: PERILUNE_SANDBOX_ADDRESS
  value: {{ include "perilune.name" (dict "root" .root "service" "sandbox") }}:7050
{{- if $values.tls }}
- {name: PERILUNE_TOKEN_FILE, value: /run/secrets/perilune/token}
- {name: PERILUNE_NATS_PASSWORD_FILE, value: /run/secrets/perilune/nats_password}
- {name: PERILUNE_TLS_CA, value: /run/secrets/perilune/ca.pem}
- {name: PERILUNE_TLS_SERVER_NAME, value: perilune}
{{- end }}
{{- end }}
{{- if eq .service "master" }}
{{ include "perilune.databaseEnvironment" . }}
{{- end }}
{{- end }}

{{- define "perilune.databaseEnvironment" -}}
- {name: PERILUNE_DATABASE_URL, value: {{ .root.Values.database.url | quote }}}
- {name: PERILUNE_DATABASE_PASSWORD_FILE, value: /run/secrets/perilune/postgres_password}
- {name: PGSSLMODE, value: {{ .root.Values.database.sslMode }}}
{{- if .root.Values.tls }}
- {name: PGSSLROOTCERT, value: /run/secrets/perilune/ca.pem}
{{- end }}
{{- end }}

{{/* The service's own files of the one secret. */}}
{{- define "perilune.secretVolume" -}}
- name: secrets-{{ .service }}
  secret:
    secretName: {{ .root.Values.secretName }}
    defaultMode: 0440
    items:
      {{- if eq .service "master" }}
      - {key: postgres_password, path: postgres_password}
      {{- end }}
      {{- if .root.Values.tls }}
      - {key: tokens.toml, path: tokens.toml}
      - {key: {{ .service }}.pem, path: tls.pem}
      - {key: {{ .service }}.key, path: tls.key}
      {{- if ne .service "sandbox" }}
      - {key: ca.pem, path: ca.pem}
      - {key: token_{{ .service }}, path: token}
      - {key: nats_{{ .service }}, path: nats_password}
      {{- end }}
      {{- end }}
{{- end }}

{{- define "perilune.hasSecret" -}}
{{- if or .root.Values.tls (eq .service "master") -}}true{{- end -}}
{{- end }}

{{/* Kubernetes asks for gRPC health itself where there is no TLS; with it, the image's own probe does. */}}
{{- define "perilune.probes" -}}
{{- $health := printf "grpc: {port: %s}" (include "perilune.port" .) }}
{{- if .root.Values.tls }}{{ $health = "exec: {command: [perilune-probe]}" }}{{ end -}}
startupProbe:
  {{ $health }}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 120
readinessProbe:
  {{ $health }}
  periodSeconds: 10
  timeoutSeconds: 5
livenessProbe:
  {{ $health }}
  periodSeconds: 20
  timeoutSeconds: 5
  failureThreshold: 6
{{- end }}

{{/* A service's container up to its own environment, which the caller goes on with. */}}
{{- define "perilune.container" -}}
name: {{ .service }}
image: {{ include "perilune.image" . }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
ports:
  - {name: grpc, containerPort: {{ include "perilune.port" . }}}
  - {name: metrics, containerPort: {{ .metricsPort | default 9464 }}}
{{ include "perilune.probes" . }}
{{- end }}

{{- define "perilune.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "perilune.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
{{- end }}

{{- define "perilune.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "perilune.podBasics" -}}
serviceAccountName: {{ include "perilune.name" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* What a container asks for, with its cards: whole ones, which Kubernetes wants as a limit. */}}
{{- define "perilune.resources" -}}
{{- $resources := deepCopy .resources -}}
{{- if .gpus -}}
{{- $_ := set $resources "limits" (merge (dict "nvidia.com/gpu" .gpus) ($resources.limits | default dict)) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end }}
