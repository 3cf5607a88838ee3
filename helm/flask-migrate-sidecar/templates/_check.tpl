{{/* What values.schema.json cannot tell: values that need one another. */}}
{{- define "flask-migrate-sidecar.check" -}}
{{- $source := .Values.source -}}
{{- if and (has $source.type (list "image" "copy")) (not (include "flask-migrate-sidecar.sourceImage" .)) -}}
{{- fail (printf "source.image: the application's image is needed where source.type is %s" $source.type) -}}
{{- end -}}
{{- if and (eq $source.type "image") (semverCompare "<1.33-0" .Capabilities.KubeVersion.Version) -}}
{{- fail (printf "source.type: image needs Kubernetes 1.33 or later and this is %s; copy works on every version" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if and (eq $source.type "pvc") (not $source.pvc.claimName) -}}
{{- fail "source.pvc.claimName: it is needed where source.type is pvc" -}}
{{- end -}}
{{- if eq $source.type "configMap" -}}
{{- range $key := list "name" "versions" -}}
{{- if not (get $source.configMap $key) -}}
{{- fail (printf "source.configMap.%s: it is needed where source.type is configMap" $key) -}}
{{- end -}}
{{- end -}}
{{- if not .Values.database -}}
{{- fail "database: it is needed where source.type is configMap, for there is no application to tell it" -}}
{{- end -}}
{{- end -}}
{{- if and $source.sitePackages (has $source.type (list "configMap" "baked")) -}}
{{- fail (printf "source.sitePackages: source.type %s has none; the folder inside of the sidecar's image is settings.sitePackages" $source.type) -}}
{{- end -}}
{{- if and (eq .Values.mode "app") (not .Values.app.image) -}}
{{- fail "app.image: it is needed where mode is app" -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled (eq .Values.mode "app") (eq .Values.app.strategy "initContainer") -}}
{{- fail "networkPolicy.enabled: the policy is for pods that only migrate, and with app.strategy initContainer there are none" -}}
{{- end -}}
{{- include "flask-migrate-sidecar.checkEnv" (dict "key" "env" "variables" .Values.env) -}}
{{- if eq .Values.mode "app" -}}
{{- include "flask-migrate-sidecar.checkEnv" (dict "key" "app.env" "variables" (concat .Values.env .Values.app.env)) -}}
{{- end -}}
{{- end -}}
