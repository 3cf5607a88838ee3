{{/* Where the application's code comes from: volumes, mounts, and containers that copy it. */}}

{{- define "flask-migrate-sidecar.sourceImage" -}}
{{- $app := ternary .Values.app.image "" (eq .Values.mode "app") -}}
{{- default $app .Values.source.image -}}
{{- end -}}

{{/* Whether a folder of packages comes along: text or nothing, as templates give no booleans. */}}
{{- define "flask-migrate-sidecar.hasPackages" -}}
{{- if and .Values.source.sitePackages (has .Values.source.type (list "image" "copy" "pvc")) -}}
true
{{- end -}}
{{- end -}}

{{/* The volumes of a pod with a sidecar container, as list items. */}}
{{- define "flask-migrate-sidecar.volumes" -}}
{{- include "flask-migrate-sidecar.check" . -}}
{{- include "flask-migrate-sidecar.ownVolumes" . -}}
{{- with .Values.volumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "flask-migrate-sidecar.ownVolumes" -}}
- name: flask-migrate-tmp
  emptyDir: {}
{{- if eq .Values.source.type "image" }}
- name: flask-migrate-source
  image:
    reference: {{ include "flask-migrate-sidecar.sourceImage" . }}
    pullPolicy: {{ .Values.source.pullPolicy }}
{{- else if eq .Values.source.type "copy" }}
- name: flask-migrate-source
  emptyDir: {}
{{- if include "flask-migrate-sidecar.hasPackages" . }}
- name: flask-migrate-packages
  emptyDir: {}
{{- end }}
{{- else if eq .Values.source.type "pvc" }}
- name: flask-migrate-source
  persistentVolumeClaim:
    claimName: {{ .Values.source.pvc.claimName }}
    readOnly: true
{{- else if eq .Values.source.type "configMap" }}
- name: flask-migrate-source
  configMap:
    name: {{ .Values.source.configMap.name }}
- name: flask-migrate-versions
  configMap:
    name: {{ .Values.source.configMap.versions }}
{{- end }}
{{- with include "flask-migrate-sidecar.urlFiles" . }}
- name: flask-migrate-urls
  projected:
    # Whatever user the pod runs as: only the sidecar's container mounts it.
    defaultMode: 0444
    sources:
      {{- . | nindent 6 }}
{{- end }}
{{- end -}}

{{- define "flask-migrate-sidecar.urlFiles" -}}
{{- range $name, $source := include "flask-migrate-sidecar.urls" . | fromYaml }}
{{- with $source.secretFile }}
- secret:
    name: {{ .name }}
    items:
      - key: {{ .key | quote }}
        path: {{ $name }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The mounts of a sidecar container, as list items. */}}
{{- define "flask-migrate-sidecar.volumeMounts" -}}
- name: flask-migrate-tmp
  mountPath: /tmp
{{- include "flask-migrate-sidecar.sourceMounts" . }}
{{- if include "flask-migrate-sidecar.urlFiles" . }}
- name: flask-migrate-urls
  mountPath: /run/flask-migrate
  readOnly: true
{{- end }}
{{- with .Values.volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "flask-migrate-sidecar.sourceMounts" -}}
{{- $source := .Values.source }}
{{- $packages := include "flask-migrate-sidecar.hasPackages" . }}
{{- if eq $source.type "copy" }}
- name: flask-migrate-source
  mountPath: {{ $source.mountPath }}
  readOnly: true
{{- if $packages }}
- name: flask-migrate-packages
  mountPath: /site-packages
  readOnly: true
{{- end }}
{{- else if has $source.type (list "image" "pvc") }}
{{- $path := default (ternary "/app" "/" (eq $source.type "image")) $source.path }}
- name: flask-migrate-source
  mountPath: {{ $source.mountPath }}
  {{- with $path | trimAll "/" }}
  subPath: {{ . | quote }}
  {{- end }}
  readOnly: true
{{- if $packages }}
- name: flask-migrate-source
  mountPath: /site-packages
  subPath: {{ $source.sitePackages | trimAll "/" | quote }}
  readOnly: true
{{- end }}
{{- else if eq $source.type "configMap" }}
{{- /* File by file: in a mounted ConfigMap there is no place to mount the other one. */}}
{{- range $source.configMap.files }}
- name: flask-migrate-source
  mountPath: {{ $source.mountPath }}/migrations/{{ . }}
  subPath: {{ . | quote }}
  readOnly: true
{{- end }}
- name: flask-migrate-versions
  mountPath: {{ $source.mountPath }}/migrations/versions
  readOnly: true
{{- end }}
{{- end -}}

{{/* Init containers that copy the code out of the application's image, as list items. They need
     `cp` in that image, but no shell. */}}
{{- define "flask-migrate-sidecar.copyContainers" -}}
{{- if eq .Values.source.type "copy" }}
{{- $path := default "/app" .Values.source.path }}
{{- include "flask-migrate-sidecar.copyContainer" (dict "root" . "name" "source" "path" $path) }}
{{- if include "flask-migrate-sidecar.hasPackages" . }}
{{- include "flask-migrate-sidecar.copyContainer" (dict "root" . "name" "packages" "path" .Values.source.sitePackages) }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "flask-migrate-sidecar.copyContainer" }}
- name: copy-{{ .name }}
  image: {{ include "flask-migrate-sidecar.sourceImage" .root }}
  imagePullPolicy: {{ .root.Values.source.pullPolicy }}
  # A restarted pod copies over what is there.
  command: [cp, -Rf, {{ printf "%s/." (trimSuffix "/" .path) | quote }}, /copy]
  terminationMessagePolicy: FallbackToLogsOnError
  {{- with .root.Values.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .root.Values.securityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - name: flask-migrate-{{ .name }}
      mountPath: /copy
{{- end -}}
