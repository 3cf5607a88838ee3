{{/* Names and labels. Each template takes the chart's context; from another chart that is
     (index .Subcharts "flask-migrate-sidecar"). */}}

{{- define "flask-migrate-sidecar.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* A Job's name, its hash included, is a label of its pods: 63 characters. */}}
{{- define "flask-migrate-sidecar.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "flask-migrate-sidecar.selectorLabels" -}}
app.kubernetes.io/name: {{ include "flask-migrate-sidecar.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* No version among the labels of pods: it would make another Job of the same work. */}}
{{- define "flask-migrate-sidecar.podLabels" -}}
{{- $fixed := include "flask-migrate-sidecar.selectorLabels" . | fromYaml -}}
{{- toYaml (merge $fixed .extra .root.Values.labels) -}}
{{- end -}}

{{- define "flask-migrate-sidecar.labels" -}}
{{- $fixed := include "flask-migrate-sidecar.selectorLabels" . | fromYaml -}}
{{- $_ := set $fixed "app.kubernetes.io/version" .root.Chart.AppVersion -}}
{{- $_ := set $fixed "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- $_ := set $fixed "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63) -}}
{{- toYaml (merge $fixed .root.Values.labels) -}}
{{- end -}}

{{- define "flask-migrate-sidecar.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}
