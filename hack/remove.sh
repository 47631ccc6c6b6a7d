# remove ARGS... is kubectl delete for objects that may not exist. It hides "No resources found", which kubectl prints if a selector matches nothing,
# because it reads like a failure. deploy.sh and undeploy.sh source this file.
remove() {
	kubectl delete --ignore-not-found "$@" | sed '/^No resources found$/d'
}
