#!/usr/bin/env bash
# Removes taskflow from the cluster of the current kubeconfig, regardless of the options of hack/deploy.sh. With CRD=remove in the environment, it also
# removes the kind Task, and with it all Tasks and their Pods. Default: CRD=keep
set -euo pipefail
cd "$(dirname "$0")/.."
source hack/remove.sh
crd=${CRD:-keep}
case $crd in
keep | remove) ;;
*)
	echo "undeploy: CRD=$crd is unknown: set it to keep or remove" >&2
	exit 1
	;;
esac
# The order matters. The webhook configurations are removed before the operator, because the API server calls it for each Pod with steps. The policies
# are removed after both, because they reject Pods that the webhook has not gated, whose steps would run at once. Controllers retry in between.
kubectl delete --ignore-not-found mutatingwebhookconfiguration/taskflow validatingwebhookconfiguration/taskflow
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
