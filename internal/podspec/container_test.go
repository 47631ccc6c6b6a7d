package podspec

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestNamedTaskOverrides proves how a container of the Pod changes the step of the same name.
func TestNamedTaskOverrides(t *testing.T) {
	get := func(raw []byte, name string) map[string]any {
		spec := decode(t, raw).(map[string]any)["spec"].(map[string]any)
		for _, list := range []string{"containers", "initContainers"} {
			containers, _ := spec[list].([]any)
			for _, container := range containers {
				if container := container.(map[string]any); container["name"] == name {
					return container
				}
			}
		}
		t.Fatalf("there is no container %q: %s", name, raw)
		return nil
	}
	cases := map[string]struct {
		containers string
		of         string
		field      string
		want       string
	}{
		"the image":        {`{"name":"fetch","image":"git:2"}`, "fetch", "image", `"git:2"`},
		"the Task's image": {`{"name":"fetch","image":"task",` + defaulted + `}`, "fetch", "image", `"git:1"`},
		"the Task's pull policy, if the Pod's is Kubernetes' default": {
			`{"name":"fetch","image":"task",` + defaulted + `}`, "fetch", "imagePullPolicy", `"Never"`,
		},
		"neither has a pull policy: the API server's default depends on the image": {
			`{"name":"report","image":"task",` + defaulted + `}`, "report", "imagePullPolicy", `null`,
		},
		"the Pod's pull policy": {
			`{"name":"fetch","image":"task","imagePullPolicy":"IfNotPresent"}`, "fetch", "imagePullPolicy", `"IfNotPresent"`,
		},
		"the Pod's image and Kubernetes' default for it": {
			`{"name":"report","image":"a/b","imagePullPolicy":"Always"}`, "report", "imagePullPolicy", `"Always"`,
		},
		"a termination message that is Kubernetes' default": {
			`{"name":"fetch","image":"task",` + defaulted + `}`, "fetch", "terminationMessagePolicy", `"FallbackToLogsOnError"`,
		},
		"what only the Pod has": {`{"name":"report","image":"task","workingDir":"/x","unknown":[1.50]}`, "report", "unknown", `[1.50]`},
		"variables merge by name": {
			`{"name":"fetch","image":"task","env":[{"name":"NEW","value":"n"},{"name":"TOKEN","value":"mine","unknown":1},{"name":"DEPTH","valueFrom":{"fieldRef":{"fieldPath":"x"}}}]}`,
			"fetch", "env",
			`[{"name":"DEPTH","valueFrom":{"fieldRef":{"fieldPath":"x"}}},{"name":"TOKEN","value":"mine","unknown":1},{"name":"NEW","value":"n"}]`,
		},
		"a variable twice, which the Task doesn't have": {
			`{"name":"report","image":"task","env":[{"name":"A","value":"1"},{"name":"B","value":"$(A)"},{"name":"A","value":"2"}]}`, "report", "env",
			`[{"name":"A","value":"1"},{"name":"B","value":"$(A)"},{"name":"A","value":"2"}]`,
		},
		"a variable twice, beside other variables of the Task": {
			`{"name":"fetch","image":"task","env":[{"name":"A","value":"1"},{"name":"A","valueFrom":{"fieldRef":{"fieldPath":"x"}}}]}`, "fetch", "env",
			`[{"name":"DEPTH","value":"1"},{"name":"TOKEN","valueFrom":{"secretKeyRef":{"name":"token","key":"t"}}},` +
				`{"name":"A","value":"1"},{"name":"A","valueFrom":{"fieldRef":{"fieldPath":"x"}}}]`,
		},
		"a variable twice, which the Task has": {
			`{"name":"fetch","image":"task","env":[{"name":"DEPTH","value":"2"},{"name":"A","value":"a"},{"name":"DEPTH","value":"$(DEPTH)0"}]}`, "fetch", "env",
			`[{"name":"DEPTH","value":"2"},{"name":"DEPTH","value":"$(DEPTH)0"},{"name":"TOKEN","valueFrom":{"secretKeyRef":{"name":"token","key":"t"}}},` +
				`{"name":"A","value":"a"}]`,
		},
		"a variable twice in the placeholder": {
			`{"name":"task","image":"task","env":[{"name":"A","value":"1"},{"name":"DEPTH","value":"2"},{"name":"DEPTH","value":"3"},{"name":"A","value":"2"}]}`, "fetch", "env",
			`[{"name":"A","value":"1"},{"name":"DEPTH","value":"1"},{"name":"A","value":"2"},{"name":"TOKEN","valueFrom":{"secretKeyRef":{"name":"token","key":"t"}}}]`,
		},
		"envFrom is appended: the last source counts": {
			`{"name":"report","image":"task","envFrom":[{"secretRef":{"name":"token"},"prefix":"T_"},{"configMapRef":{"name":"mine"},"unknown":1},{"secretRef":{"name":"token"}}]}`,
			"report", "envFrom",
			`[{"configMapRef":{"name":"settings"}},{"prefix":"T_","secretRef":{"name":"token"}},` +
				`{"configMapRef":{"name":"mine"},"unknown":1},{"secretRef":{"name":"token"}}]`,
		},
		"envFrom of the placeholder stays": {
			`{"name":"task","image":"task","envFrom":[{"configMapRef":{"name":"mine"}}]},{"name":"fetch","image":"task"},{"name":"compile","image":"task"}`,
			"report", "envFrom",
			`[{"configMapRef":{"name":"mine"}},{"configMapRef":{"name":"settings"}},{"prefix":"T_","secretRef":{"name":"token"}}]`,
		},
		"ports merge by number and protocol": {
			`{"name":"report","image":"task","ports":[{"containerPort":53,"protocol":"TCP"},{"containerPort":80,"protocol":"TCP","hostPort":8080},{"containerPort":81,"protocol":"TCP"}]}`,
			"report", "ports",
			`[{"containerPort":53,"name":"dns","protocol":"UDP"},{"containerPort":80,"name":"web","protocol":"TCP","hostPort":8080},` +
				`{"containerPort":53,"protocol":"TCP"},{"containerPort":81,"protocol":"TCP"}]`,
		},
		"mounts merge by path": {
			`{"name":"fetch","image":"task","volumeMounts":[{"name":"cache","mountPath":"/work","subPath":"x","unknown":1},{"name":"token","mountPath":"/t"}]}`,
			"fetch", "volumeMounts",
			`[{"name":"cache","mountPath":"/work","subPath":"x","unknown":1},{"name":"token","mountPath":"/t"},` +
				`{"name":"taskflow-bin","mountPath":"/taskflow/bin","readOnly":true},{"name":"taskflow-podinfo","mountPath":"/etc/podinfo","readOnly":true},` +
				`{"name":"taskflow-run","mountPath":"/taskflow/run","readOnly":true},{"name":"taskflow-run","mountPath":"/taskflow/run/1","subPath":"1"}]`,
		},
		"a mount twice, which the API server rejects with its own message": {
			`{"name":"report","image":"task","volumeMounts":[{"name":"a","mountPath":"/x"},{"name":"b","mountPath":"/x"}]}`, "report", "volumeMounts",
			`[{"name":"a","mountPath":"/x"},{"name":"b","mountPath":"/x"},` +
				`{"name":"taskflow-bin","mountPath":"/taskflow/bin","readOnly":true},{"name":"taskflow-podinfo","mountPath":"/etc/podinfo","readOnly":true},` +
				`{"name":"taskflow-run","mountPath":"/taskflow/run","readOnly":true},{"name":"taskflow-run","mountPath":"/taskflow/run/3","subPath":"3"}]`,
		},
		"a probe has one handler": {
			`{"name":"report","image":"task","livenessProbe":{"exec":{"command":["x"]}}}`, "report", "livenessProbe", `{"exec":{"command":["x"]}}`,
		},
		"a security context merges, a profile has one type": {
			`{"name":"report","image":"task","securityContext":{"runAsUser":7,"seccompProfile":{"type":"RuntimeDefault"}}}`, "report", "securityContext",
			`{"runAsUser":7,"runAsGroup":1,"seccompProfile":{"type":"RuntimeDefault"}}`,
		},
		"resources merge": {
			`{"name":"fetch","image":"task","resources":{"requests":{"cpu":"2"},"limits":{"cpu":"4"}}}`, "fetch", "resources",
			`{"requests":{"cpu":"2","memory":"1Gi"},"limits":{"cpu":"4"}}`,
		},
		"a sidecar": {``, "db", "env", `[{"name":"SIZE","value":"large"}]`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			pod := naming(c.containers)
			if c.containers == "" {
				pod = `{"metadata":{"labels":{"taskflow.practice.com/task":"build"}},"spec":{"restartPolicy":"Never","containers":[],` +
					`"initContainers":[{"name":"first","image":"x"},{"name":"db","image":"task","env":[{"name":"SIZE","value":"large"}]}]}}`
			}
			raw, _ := admit(t, []byte(pod), readTask(t, build))
			if diff := cmp.Diff(decode(t, []byte(c.want)), get(raw, c.of)[c.field]); diff != "" {
				t.Errorf("%s of %s (-want +got):\n%s", c.field, c.of, diff)
			}
			assertUnchanged(t, raw)
		})
	}
}
