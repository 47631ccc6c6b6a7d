#!/usr/bin/env bash
# Starts a cluster on this machine, installs taskflow into it, runs the first Task and prints its logs.
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "1. A Kubernetes cluster on this machine"
make --no-print-directory up
environment=$(go run -C test/cluster . env)
eval "$environment"

say "2. taskflow in it"
make --no-print-directory deploy-local

say "3. The first Task: three steps, one after another (config/samples/task.yaml)"
kubectl delete task example-taskflow --ignore-not-found
kubectl apply -f config/samples/task.yaml
kubectl get tasks --watch &
watch=$!
trap 'kill $watch 2>/dev/null || true' EXIT
kubectl wait --for=jsonpath='{.status.completionTime}' --timeout=120s task/example-taskflow >/dev/null || true
kill $watch 2>/dev/null || true
wait $watch 2>/dev/null || true

if [ "$(kubectl get task example-taskflow -o jsonpath='{.status.phase}')" != Succeeded ]; then
	kubectl describe task example-taskflow
	kubectl logs example-taskflow --all-containers --prefix --tail=20 || true # there may be no Pod
	echo "demo: the Task didn't succeed within two minutes: its conditions, events and logs are above" >&2
	exit 1
fi
for step in step1 step2 step3; do
	say "kubectl logs example-taskflow -c $step"
	kubectl logs example-taskflow -c $step --tail=5
done
say "kubectl get tasks"
kubectl get tasks

cat <<'EOF'

The cluster stays up. Try next:
  eval "$(go run -C test/cluster . env)"      # kubectl for this cluster
  kubectl describe task example-taskflow      # the Task's steps and events
  kubectl explain task.spec                   # the fields of a Task
  kubectl apply -f config/samples/failing.yaml && kubectl get tasks -w
  make down                                   # remove the cluster
EOF
