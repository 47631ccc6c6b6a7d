#!/usr/bin/env bash
# Writes those of the Helm chart's templates that are config/ as it is, but for the namespace, and where a value says whether they
# are there. All others are written by hand; test/chart proves that both ways install the same objects.
set -euo pipefail
cd "$(dirname "$0")/.."
chart=charts/taskflow
rm -rf $chart/templates/generated
mkdir -p $chart/templates/generated $chart/files

template() { # NAME CONDITION FILE...: an empty condition means always
	local out=$chart/templates/generated/$1.yaml condition=$2
	{
		echo '{{- /* Made by `make generate` from config/. */ -}}'
		[ -z "$condition" ] || echo "{{- if $condition }}"
		for file in "${@:3}"; do
			echo ---
			sed 's/taskflow-system/{{ .Release.Namespace }}/g' "config/$file"
		done
		[ -z "$condition" ] || echo '{{- end }}'
	} >"$out"
}

template rbac "" rbac/{service_account,controllers,nodes,operator,users}.yaml
template policy "" policy/{annotations,keys,templates,own_webhook,unmutated,ownership}.yaml
template namespaced .Values.watchNamespaces namespaced/unwatched.yaml
sed -i 's/\[the-names\]/{{ toJson .Values.watchNamespaces }}/' $chart/templates/generated/namespaced.yaml
template manager "" manager/{metrics_service,disruption_budget,lease}.yaml
template own-certificates 'eq .Values.certificates "own"' own-certificates/{secret,role,bindings}.yaml
template certmanager 'eq .Values.certificates "certManager"' certmanager/certificates.yaml
template network-policy .Values.networkPolicy.enabled manager/network_policy.yaml
for port in webhook metrics; do
	sed -i "s/^  - ports: \[{port: $port}\]$/&\n    {{- with .Values.networkPolicy.${port}From }}\n    from: {{- toYaml . | nindent 4 }}\n    {{- end }}/" $chart/templates/generated/network-policy.yaml
done
template priority-class 'eq .Values.priorityClassName "taskflow-operator"' {manager/priority_class,policy/priority}.yaml
template service-monitor .Values.serviceMonitor.enabled prometheus/service_monitor.yaml
template crd .Values.crds.enabled crd/tasks.yaml
sed -i 's/^  annotations:$/&\n    {{- if .Values.crds.keep }}\n    helm.sh\/resource-policy: keep\n    {{- end }}/' $chart/templates/generated/crd.yaml
cp config/grafana/taskflow.json $chart/files/
