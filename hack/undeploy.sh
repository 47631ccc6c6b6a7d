#!/usr/bin/env bash
# Removes taskflow from the cluster of the current kubeconfig, however it was installed from here. undeploy.sh [CRD]: "remove" also
# removes the kind Task, and with it all Tasks and their Pods.
set -euo pipefail
cd "$(dirname "$0")/.."
source hack/remove.sh
crd=${1:-keep}
case $crd in
keep | remove) ;;
*)
	echo "undeploy: CRD=$crd is unknown: set it to keep or remove" >&2
	exit 1
	;;
esac
# The API server calls the webhook for each Pod with steps: so the configuration goes before the program. And the policies go last, which
# refuse a Pod that the webhook hasn't seen: its steps would run at once. In between, controllers that are still there only try again.
kubectl delete --ignore-not-found mutatingwebhookconfiguration taskflow
remove -n taskflow-system --cascade=foreground deployments -l app.kubernetes.io/name=taskflow-operator
kubectl delete --ignore-not-found -k config/own-certificates
kubectl delete --ignore-not-found -k config/policy
kubectl delete --ignore-not-found -k config/namespaced
remove rolebindings --all-namespaces -l app.kubernetes.io/name=taskflow-operator
kubectl delete --ignore-not-found -k config/base
if [ "$crd" = remove ]; then
	kubectl delete --ignore-not-found -k config/crd
else
	echo "The kind Task and all Tasks are still there: make undeploy CRD=remove removes them."
fi
