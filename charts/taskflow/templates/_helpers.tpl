{{/* isMirrorPod is a CEL expression: a kubelet reports a static Pod, which is running already. Nothing in it can be changed. */}}
{{- define "taskflow.isMirrorPod" -}}
'kubernetes.io/config.mirror' in object.metadata.?annotations.orValue({}) && 'system:nodes' in request.userInfo.?groups.orValue([])
{{- end }}

{{/* isGated is a CEL expression: the webhook has gated the Pod. At most the first step is released, and as many containers start the agent as
there are steps. */}}
{{- define "taskflow.isGated" -}}
object.metadata.?annotations[?'taskflow.practice.com/order'].orValue('') in ['0', '1'] &&
object.metadata.?annotations[?'taskflow.practice.com/halt'].orValue('') == '' &&
object.metadata.?annotations[?'taskflow.practice.com/steps'].orValue('').split(',').size() <=
object.spec.containers.filter(c, '/taskflow/bin/agent' in c.?command.orValue([]) || '/taskflow/bin/agent' in c.?args.orValue([])).size()
{{- end }}

{{/* namesTask and isSequential select the Pods whose labels ask for order. A selector has no "or", so there are two. No Pod matches both. A value
of the label sequential that is neither "true" nor "false" is selected, too: the webhook rejects it. */}}
{{- define "taskflow.namesTask" -}}
- {key: taskflow.practice.com/task, operator: Exists}
{{- end }}
{{- define "taskflow.isSequential" -}}
- {key: taskflow.practice.com/sequential, operator: Exists}
- {key: taskflow.practice.com/sequential, operator: NotIn, values: ["false"]}
- {key: taskflow.practice.com/task, operator: DoesNotExist}
{{- end }}

{{/* isServed selects the namespaces whose Pods the webhook is called for: not the cluster's own, and not the operator's, which must be able to
start while it is not running. */}}
{{- define "taskflow.isServed" -}}
- {key: kubernetes.io/metadata.name, operator: NotIn, values: [kube-system, {{ .Release.Namespace }}]}
{{- end }}

{{/* binding grants the operator a role. Its arguments: kind and namespace (of a RoleBinding), role (the kind of the role), name (of both), and
release. */}}
{{- define "taskflow.binding" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}
metadata:
  name: {{ .name }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: {{ .role }}, name: {{ .name }}}
subjects:
- {kind: ServiceAccount, name: taskflow-operator, namespace: {{ .release.Namespace }}}
{{- end }}
