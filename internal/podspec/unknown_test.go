package podspec

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestGateKeepsUnknownFields proves that fields of a later Kubernetes version survive: at every level, in the lists that the webhook
// extends, and in fields that this program's types would decode differently.
func TestGateKeepsUnknownFields(t *testing.T) {
	const pod = `{
  "apiVersion": "v1", "kind": "Pod", "new": {"at": ["the", "top"]},
  "metadata": {
    "name": "example", "new": 12345678901234567890,
    "labels": {"taskflow.practice.com/task": "example"},
    "annotations": {"taskflow.practice.com/steps": "b,a"},
    "ownerReferences": [{"apiVersion": "api.practice.com/v1alpha1", "kind": "Task", "name": "example", "uid": "1", "controller": true, "new": 1.50}]
  },
  "spec": {
    "new": null, "restartPolicy": "Never", "schedulingGroup2": {"name": "x"},
    "initContainers": [{"name": "prepare", "new": "init"}],
    "containers": [
      {"name": "a", "command": ["a"], "new": {"deep": {"deeper": []}}, "volumeMounts": [{"name": "work", "mountPath": "/work", "new": true}], "env": [{"name": "A", "new": 1}]},
      {"name": "other", "new": "other", "volumeMounts": [], "args": null},
      {"name": "b", "command": ["b"], "args": [], "volumeMounts": null, "new": "b"}
    ],
    "volumes": [{"name": "work", "newSource": {"path": "/"}, "new": "volume"}]
  },
  "status": {"new": "status"}
}`
	const mount = `{"name": "taskflow-bin", "mountPath": "/taskflow/bin", "readOnly": true}, {"name": "taskflow-podinfo", "mountPath": "/etc/podinfo", "readOnly": true}`
	const flags = `"--out", "stdout", "--halt", "/etc/podinfo/halt", "--run", "/taskflow/run", "--command"`
	const others = `{"name": "taskflow-run", "mountPath": "/taskflow/run", "readOnly": true}`
	want := decode(t, []byte(`{
  "apiVersion": "v1", "kind": "Pod", "new": {"at": ["the", "top"]},
  "metadata": {
    "name": "example", "new": 12345678901234567890,
    "labels": {"taskflow.practice.com/task": "example", "taskflow.practice.com/sequential": "true"},
    "annotations": {"taskflow.practice.com/steps": "b,a", "taskflow.practice.com/order": "0"},
    "ownerReferences": [{"apiVersion": "api.practice.com/v1alpha1", "kind": "Task", "name": "example", "uid": "1", "controller": true, "new": 1.50}]
  },
  "spec": {
    "new": null, "restartPolicy": "Never", "schedulingGroup2": {"name": "x"},
    "initContainers": [{"name": "prepare", "new": "init"}, "taskflow-agent"],
    "containers": [
      {"name": "a", "command": ["/taskflow/bin/agent"], "args": ["--wait", "/etc/podinfo/order", "--waitcontent", "2", `+flags+`, "a"],
       "new": {"deep": {"deeper": []}}, "volumeMounts": [{"name": "work", "mountPath": "/work", "new": true}, `+mount+`, `+others+`, {"name": "taskflow-run", "mountPath": "/taskflow/run/2", "subPath": "2"}], "env": [{"name": "A", "new": 1}]},
      {"name": "other", "new": "other", "volumeMounts": [], "args": null},
      {"name": "b", "command": ["/taskflow/bin/agent"], "args": ["--wait", "/etc/podinfo/order", "--waitcontent", "1", `+flags+`, "b"],
       "volumeMounts": [`+mount+`, `+others+`, {"name": "taskflow-run", "mountPath": "/taskflow/run/1", "subPath": "1"}], "new": "b"}
    ],
    "volumes": [{"name": "work", "newSource": {"path": "/"}, "new": "volume"}, "taskflow-bin", "taskflow-run", "taskflow-podinfo"]
  },
  "status": {"new": "status"}
}`))
	// TestGate has the init container and the volumes; here their names do.
	got := decode(t, gate(t, []byte(pod)))
	spec := got.(map[string]any)["spec"].(map[string]any)
	for _, list := range []string{"initContainers", "volumes"} {
		added := spec[list].([]any)[1:]
		for i, element := range added {
			added[i] = element.(map[string]any)["name"]
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the Pod after the patch (-want +got):\n%s", diff)
	}
}
