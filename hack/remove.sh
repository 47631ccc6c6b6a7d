# remove ARGS... is kubectl delete of what may be absent. With a selector that matches nothing, kubectl prints "No resources found",
# which reads like a failed installation. deploy.sh and undeploy.sh source this.
remove() {
	kubectl delete --ignore-not-found "$@" | sed '/^No resources found$/d'
}
