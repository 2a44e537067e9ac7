{{/* Labels of every object. Helm adds app.kubernetes.io/managed-by by itself. */}}
{{- define "berth.labels" -}}
app.kubernetes.io/name: berth
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: berth
{{- end }}

{{/* What tells the operator's pods from all others. */}}
{{- define "berth.selector" -}}
app.kubernetes.io/name: berth
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{/* The user name under which the API server sees the operator. */}}
{{- define "berth.account" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ .Values.serviceAccount.name }}
{{- end }}

{{/* The operator's image. */}}
{{- define "berth.image" -}}
{{ include "berth.named" (list . .Values.image) }}
{{- end }}

{{/* An image of ours by its values, by digest where one is given. */}}
{{- define "berth.named" -}}
{{- $root := index . 0 }}{{ $image := index . 1 -}}
{{- with $root.Values.global.imageRegistry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default $root.Chart.AppVersion }}{{ end }}
{{- end }}
