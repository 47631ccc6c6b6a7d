#!/usr/bin/env bash
# Removes taskflow from the cluster of the current kubeconfig, however it was installed from here. undeploy.sh [CRD]: "remove" also
# removes the kind Task, and with it all Tasks and their Pods.
set -euo pipefail
cd "$(dirname "$0")/.."
crd=${1:-keep}
case $crd in
keep | remove) ;;
*)
	echo "undeploy: CRD=$crd is unknown: set it to keep or remove" >&2
	exit 1
	;;
esac
# First what the API server asks for each Pod: with the operator gone there would be nobody to answer. No Pod with steps may
# be created from here on.
kubectl delete --ignore-not-found -k config/namespaced
kubectl delete --ignore-not-found -k config/policy
kubectl delete --ignore-not-found -k config/webhook
# Then what there is in the cluster, and last the namespace, with all that is in it.
kubectl delete rolebindings --all-namespaces -l app.kubernetes.io/name=taskflow-operator
kubectl delete --ignore-not-found -k config/own-certificates
kubectl delete --ignore-not-found -k config/base
if [ "$crd" = remove ]; then
	kubectl delete --ignore-not-found -k config/crd
else
	echo "The kind Task and all Tasks are still there: make undeploy CRD=remove removes them."
fi
