# overlay RESOURCE... prints a kustomization with the images of dist/images.yaml. It ends in a patch of the operator's Deployments, which the caller
# can extend. deploy.sh and manifests.sh source this file.
overlay() {
	local operator agent
	operator=$(sed -n 's/^  operator: //p' dist/images.yaml) agent=$(sed -n 's/^  agent: //p' dist/images.yaml)
	printf 'resources:\n'
	printf -- '- ../../%s\n' "$@"
	cat <<-EOF
		images:
		- {name: taskflow/operator, newName: ${operator%@*}, digest: ${operator#*@}}
		patches:
		- target: {kind: Deployment}
		  patch: |
		    - {op: replace, path: /spec/template/spec/containers/0/args/0, value: "--agent-image=$agent"}
	EOF
}
