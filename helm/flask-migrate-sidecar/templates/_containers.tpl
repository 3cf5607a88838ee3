{{/* For the initContainers of a chart of your own, as list items; volumes come from
     "flask-migrate-sidecar.volumes":

       initContainers:
         {{- include "flask-migrate-sidecar.initContainer" (index .Subcharts "flask-migrate-sidecar") | nindent 8 }}
*/}}
{{- define "flask-migrate-sidecar.initContainer" -}}
{{- include "flask-migrate-sidecar.containers" (dict "root" . "name" "migrate" "args" .Values.args) -}}
{{- end -}}

{{/* The same that only waits until a Job, or another pod, has migrated. */}}
{{- define "flask-migrate-sidecar.waitContainer" -}}
{{- include "flask-migrate-sidecar.containers" (dict "root" . "name" "wait-for-migrations" "args" (list "wait" "head")) -}}
{{- end -}}

{{- define "flask-migrate-sidecar.containers" -}}
{{- include "flask-migrate-sidecar.check" .root -}}
{{- with include "flask-migrate-sidecar.copyContainers" .root | trim }}
{{- . }}
{{ end -}}
- {{ include "flask-migrate-sidecar.container" . | nindent 2 | trim }}
{{- end -}}

{{/* One sidecar container: takes root, name and args. */}}
{{- define "flask-migrate-sidecar.container" -}}
{{- $values := .root.Values -}}
name: {{ .name }}
image: {{ include "flask-migrate-sidecar.image" .root }}
imagePullPolicy: {{ $values.image.pullPolicy }}
args:
  {{- toYaml .args | nindent 2 }}
env:
  {{- include "flask-migrate-sidecar.env" .root | nindent 2 }}
{{- with $values.envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
terminationMessagePath: {{ $values.terminationMessagePath }}
# The kubelet takes the end of the log where a crash left no message.
terminationMessagePolicy: FallbackToLogsOnError
volumeMounts:
  {{- include "flask-migrate-sidecar.volumeMounts" .root | nindent 2 }}
{{- end -}}

{{/* What every pod of this chart has beside its containers. */}}
{{- define "flask-migrate-sidecar.podSpec" -}}
{{- with .Values -}}
automountServiceAccountToken: false
{{- with .serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
{{- with .imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
terminationGracePeriodSeconds: {{ .terminationGracePeriodSeconds }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
volumes:
  {{- include "flask-migrate-sidecar.volumes" . | nindent 2 }}
{{- end -}}

{{/* A pod that ends: takes root, name and args. */}}
{{- define "flask-migrate-sidecar.runToEnd" -}}
restartPolicy: Never
{{ include "flask-migrate-sidecar.podSpec" .root }}
{{- with include "flask-migrate-sidecar.copyContainers" .root | trim }}
initContainers:
  {{- . | nindent 2 }}
{{- end }}
containers:
  - {{ include "flask-migrate-sidecar.container" . | nindent 4 | trim }}
{{- end -}}
