{{/* The variables of a sidecar container, as list items. */}}
{{- define "flask-migrate-sidecar.env" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
{{- range $name, $value := include "flask-migrate-sidecar.settings" . | fromYaml }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- range $name, $source := include "flask-migrate-sidecar.urls" . | fromYaml }}
{{- if $source.secretKeyRef }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef:
      name: {{ $source.secretKeyRef.name }}
      key: {{ $source.secretKeyRef.key | quote }}
{{- else }}
- name: {{ $name }}_FILE
  value: {{ printf "/run/flask-migrate/%s" $name }}
{{- end }}
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The settings by variable: `lockTimeout` is MIGRATE_LOCK_TIMEOUT. */}}
{{- define "flask-migrate-sidecar.settings" -}}
{{- $settings := dict -}}
{{- range $key, $value := .Values.settings -}}
{{- $text := kindIs "float64" $value | ternary (int64 $value) $value | toString -}}
{{- if not (or (kindIs "invalid" $value) (eq $text "")) -}}
{{- $_ := set $settings (printf "MIGRATE_%s" ($key | snakecase | upper)) $text -}}
{{- end -}}
{{- end -}}
{{- if and (has .Values.source.type (list "image" "copy" "pvc")) (not .Values.settings.appDir) -}}
{{- $_ := set $settings "MIGRATE_APP_DIR" .Values.source.mountPath -}}
{{- end -}}
{{- if and (eq .Values.source.type "configMap") (not .Values.settings.directory) -}}
{{- $_ := set $settings "MIGRATE_DIRECTORY" (printf "%s/migrations" .Values.source.mountPath) -}}
{{- if not .Values.settings.app -}}
{{- $_ := set $settings "MIGRATE_APP" "none" -}}
{{- end -}}
{{- end -}}
{{- if include "flask-migrate-sidecar.hasPackages" . -}}
{{- $folders := list "/site-packages" .Values.settings.sitePackages | compact -}}
{{- $_ := set $settings "MIGRATE_SITE_PACKAGES" (join ":" $folders) -}}
{{- end -}}
{{- if and (ne .Values.terminationMessagePath "/dev/termination-log") (not .Values.settings.terminationLog) -}}
{{- $_ := set $settings "MIGRATE_TERMINATION_LOG" .Values.terminationMessagePath -}}
{{- end -}}
{{- toYaml $settings -}}
{{- end -}}

{{/* The Secrets of the databases by variable. Names of binds compare without case. */}}
{{- define "flask-migrate-sidecar.urls" -}}
{{- $urls := dict -}}
{{- if .Values.database -}}
{{- $_ := set $urls "MIGRATE_DATABASE_URL" .Values.database -}}
{{- end -}}
{{- range $bind, $source := .Values.binds -}}
{{- $name := printf "MIGRATE_DATABASE_URL__%s" (regexReplaceAll "[-.]" $bind "_" | upper) -}}
{{- if hasKey $urls $name -}}
{{- fail (printf "binds.%s: another bind has the same name, without regard to case and with '-' and '.' as '_'" $bind) -}}
{{- end -}}
{{- $_ := set $urls $name $source -}}
{{- end -}}
{{- toYaml $urls -}}
{{- end -}}

{{/* Takes key and variables. Of two variables of one name Kubernetes takes the last, and Helm 4
     refuses them; a URL in the pod's specification is a password for everybody who may read pods. */}}
{{- define "flask-migrate-sidecar.checkEnv" -}}
{{- $seen := dict -}}
{{- range .variables -}}
{{- if hasKey $seen .name -}}
{{- fail (printf "%s: %s is there twice" $.key .name) -}}
{{- end -}}
{{- $_ := set $seen .name true -}}
{{- if regexMatch "^MIGRATE_" .name -}}
{{- fail (printf "%s: %s belongs under settings, database or binds" $.key .name) -}}
{{- end -}}
{{- if has .name (list "POD_NAME" "POD_NAMESPACE" "NODE_NAME") -}}
{{- fail (printf "%s: %s is there already" $.key .name) -}}
{{- end -}}
{{- if and .value (regexMatch "(DATABASE_URL|DATABASE_URI|PASSWORD)$" .name) -}}
{{- fail (printf "%s: %s: a secret comes from a Secret, by valueFrom.secretKeyRef" $.key .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
