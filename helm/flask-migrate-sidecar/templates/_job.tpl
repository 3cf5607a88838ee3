{{/* The specification of the Job. */}}
{{- define "flask-migrate-sidecar.jobSpec" -}}
{{- $job := .Values.job -}}
backoffLimit: {{ $job.backoffLimit }}
{{- if not (kindIs "invalid" $job.activeDeadlineSeconds) }}
activeDeadlineSeconds: {{ $job.activeDeadlineSeconds }}
{{- end }}
{{- if not (kindIs "invalid" $job.ttlSecondsAfterFinished) }}
ttlSecondsAfterFinished: {{ $job.ttlSecondsAfterFinished }}
{{- end }}
{{- with include "flask-migrate-sidecar.failureRules" . | trim }}
podFailurePolicy:
  rules:
    {{- . | nindent 4 }}
{{- end }}
template:
  metadata:
    labels:
      {{- include "flask-migrate-sidecar.podLabels" (dict "root" . "component" "migrate" "extra" .Values.podLabels) | nindent 6 }}
    {{- $annotations := deepCopy .Values.podAnnotations }}
    {{- with .Values.trigger }}
    {{- $_ := set $annotations "flask-migrate-sidecar/trigger" (toString .) }}
    {{- end }}
    {{- with $annotations }}
    annotations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  spec:
    {{- include "flask-migrate-sidecar.runToEnd" (dict "root" . "name" "migrate" "args" .Values.args) | nindent 4 }}
{{- end -}}

{{/* The first rule that matches counts; the API wants exit codes sorted and unique. */}}
{{- define "flask-migrate-sidecar.failureRules" -}}
{{- $codes := list -}}
{{- range .Values.job.podFailurePolicy.failOn -}}
{{- $codes = append $codes (int .) -}}
{{- end -}}
{{- if .Values.job.podFailurePolicy.ignoreDisruptions }}
- action: Ignore
  onPodConditions:
    - type: DisruptionTarget
      status: "True"
{{- end }}
{{- if $codes }}
- action: FailJob
  onExitCodes:
    containerName: migrate
    operator: In
    values:
    {{- range untilStep 1 256 1 }}
    {{- if has . $codes }}
      - {{ . }}
    {{- end }}
    {{- end }}
{{- end }}
{{- end -}}

{{/* The name tells what the Job runs: other work is another Job, for a Job cannot be changed, and
     the same work is the same Job, which then does not run again. */}}
{{- define "flask-migrate-sidecar.jobName" -}}
{{- $hash := include "flask-migrate-sidecar.jobSpec" . | sha256sum | trunc 10 -}}
{{- printf "%s-%s" (include "flask-migrate-sidecar.fullname" .) $hash -}}
{{- end -}}
